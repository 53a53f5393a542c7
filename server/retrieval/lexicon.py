"""Lexicon: the phrases of a collection, found by how they begin, by their pinyin or by its initials.

It holds for every phrase how many documents of each access class (those with one and the same ``acl``)
have it, so that what a caller gets is ranked by the documents that he may see, and what stands in others
only is not there for him.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from server.analysis.normalize import Normalizer
from server.documents import PUBLIC
from server.retrieval.pinyin import blurred, has_han, readings

Ids = NDArray[np.int32]
Scores = NDArray[np.float32]

# A "guess" is what seems to be a word of Chinese. "common" words are known and never suggested. A
# "query" was asked, and stands in no document as such.
Kind = Literal["title", "heading", "phrase", "word", "guess", "common", "query"]

_BONUS = {"title": 0.9, "heading": 0.6, "phrase": 0.5, "query": 1.5, "word": 0.0, "guess": -0.5}
_MAX_READ = 12  # characters of a phrase that pinyin finds it by
_PER_CHAR = 0.04  # what a letter of length costs, so that the shorter of two comes first
MAX_SOUND = 8  # syllables of phrases that a misspelt one is compared with
_LEAST_DOCUMENTS = 20  # of a caller, from which on a word may be too frequent
_COMMON_SHARE = 0.5  # a word that so many of his documents have tells nothing
_KNOWN_CALLERS = 64
_AFTER_ALL = "\U0010ffff"
_NONE: Ids = np.empty(0, dtype=np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """``text`` as the documents write it. ``counts``: (access class, documents of it)."""

    text: str
    kind: Kind
    counts: tuple[tuple[int, int], ...]


class _Sorted:
    """Strings with numbers, found by how they begin."""

    def __init__(self, pairs: Iterable[tuple[str, int]]) -> None:
        ordered = sorted(pairs)
        self._keys = [key for key, _ in ordered]
        self._ids = np.fromiter((number for _, number in ordered), np.int32, len(ordered))

    def starting(self, prefix: str) -> Ids:
        first = bisect_left(self._keys, prefix)
        return self._ids[first : bisect_left(self._keys, prefix + _AFTER_ALL, first)]

    def equal(self, key: str) -> Ids:
        first = bisect_left(self._keys, key)
        return self._ids[first : bisect_left(self._keys, key + "\x00", first)]


class Lexicon:
    """Does not change; thread-safe. ``classes``: the groups of each access class, None for one that
    everybody belongs to. ``sizes``: how many documents each has, where that is known. ``keys``: each
    phrase normalised, without blanks, by number."""

    def __init__(
        self,
        entries: Sequence[Entry],
        classes: Sequence[frozenset[str] | None],
        sizes: Sequence[int] = (),
    ) -> None:
        normalizer = Normalizer()
        self.entries = entries
        self.classes = classes
        self.sizes = sizes
        self.keys = [squeezed(entry.text, normalizer) for entry in entries]
        self._documents = np.array(sizes or [0] * len(classes), dtype=np.int64)
        pairs = [pair for entry in entries for pair in entry.counts]
        self._class_of = np.fromiter((each for each, _ in pairs), np.int32, len(pairs))
        self._counts = np.fromiter((count for _, count in pairs), np.int32, len(pairs))
        lengths = np.fromiter((len(entry.counts) for entry in entries), np.int64, len(entries))
        self._starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]) if entries else _NONE
        self._fixed = np.array(
            [
                _BONUS.get(entry.kind, -np.inf) - _PER_CHAR * len(key)
                for entry, key in zip(entries, self.keys, strict=True)
            ],
            dtype=np.float32,
        )
        kinds = [entry.kind for entry in entries]
        self._is_word = np.array([kind in {"word", "guess"} for kind in kinds], dtype=np.bool_)
        self._is_vague = np.array([kind in {"phrase", "guess"} for kind in kinds], dtype=np.bool_)
        self._index()
        self._for_groups = lru_cache(_KNOWN_CALLERS)(self._make_view)
        self._making = threading.Lock()

    def _index(self) -> None:
        whole, first, blurs = [], [], []
        for number, key in enumerate(self.keys):
            for syllables in readings(key[:_MAX_READ]) if has_han(key) else ():
                whole.append(("".join(syllables), number))
                first.append(("".join(each[0] for each in syllables), number))
                if len(key) <= MAX_SOUND:
                    blurs.append(("".join(map(blurred, syllables)), number))
        self.by_key = _Sorted((key, number) for number, key in enumerate(self.keys))
        self.by_pinyin = _Sorted(set(whole))
        self.by_initials = _Sorted(set(first))
        self.by_sound = _Sorted(set(blurs))
        latin = {key for key in self.keys if key.isalpha() and not has_han(key)}
        self.latin: dict[str, list[str]] = {}  # by first letter
        for key in sorted(latin):
            self.latin.setdefault(key[0], []).append(key)

    def view(self, groups: frozenset[str] | None) -> "View":
        """The lexicon as a caller of these groups may know it; None: all of it."""
        with self._making:
            return self._for_groups(groups)

    def _make_view(self, groups: frozenset[str] | None) -> "View":
        allowed = np.array(
            [
                groups is None or mine is None or PUBLIC in mine or not groups.isdisjoint(mine)
                for mine in self.classes
            ],
            dtype=np.int32,
        )
        if not len(self.entries):
            return View(self, np.empty(0, np.int32), np.empty(0, np.float32))
        counts = np.add.reduceat(self._counts * allowed[self._class_of], self._starts)
        documents = int((self._documents * allowed).sum())
        shown = (counts > 0) & ~(self._is_vague & (counts < 2))
        if documents >= _LEAST_DOCUMENTS:
            shown &= ~(self._is_word & (counts > _COMMON_SHARE * documents))
        scores = np.where(shown, np.log1p(counts) + self._fixed, -np.inf)
        return View(self, counts.astype(np.int32), scores.astype(np.float32))


@dataclass(frozen=True, slots=True)
class View:
    """A lexicon as one caller may know it. ``counts``: visible documents by phrase's number;
    ``scores``: -inf for what is not to be suggested to him."""

    lexicon: Lexicon
    counts: NDArray[np.int32]
    scores: Scores

    def best(self, ids: Ids, at_most: int) -> list[int]:
        """Numbers of the best of ``ids`` that may be suggested, the best first, each once."""
        ids = np.unique(ids)
        scores = self.scores[ids]
        kept = np.isfinite(scores)
        ids, scores = ids[kept], scores[kept]
        if len(ids) > at_most:
            top = np.argpartition(-scores, at_most)[:at_most]
            ids, scores = ids[top], scores[top]
        return [int(ids[place]) for place in np.lexsort((ids, -scores))]

    def known(self, ids: Ids) -> list[int]:
        """Numbers of those of ``ids`` that he may see at all, and that are no guesses, the most
        frequent first."""
        found = [
            int(number)
            for number in np.unique(ids)
            if self.counts[number] > 0 and self.lexicon.entries[number].kind != "guess"
        ]
        return sorted(found, key=lambda number: -int(self.counts[number]))

    def knows(self, key: str) -> bool:
        """Whether the caller may see a document that has just this phrase."""
        return bool((self.counts[self.lexicon.by_key.equal(key)] > 0).any())

    def count(self, key: str) -> int:
        """Of how many of his documents it is known."""
        return int(self.counts[self.lexicon.by_key.equal(key)].max(initial=0))


def squeezed(text: str, normalizer: Normalizer) -> str:
    """Normalised and without blanks: how phrases are compared."""
    return "".join(normalizer.normalize(text).text.split())
