"""Completions: what may have been begun, of the phrases that a caller may know. Pure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from server.analysis.contract import Analyzer
from server.analysis.normalize import Normalizer
from server.hits import Suggestion
from server.retrieval.lexicon import Ids, View
from server.retrieval.lexicon_builder import longest
from server.retrieval.pinyin import has_han, is_han, letters, readings

_BEST = 60  # of the phrases that one look-up finds
_SKIPPED = 300  # phrases looked through for initials that leave some out
_TAILS = 20  # ways to complete the last word alone
_BOUNDARIES = 2  # places where it may begin


@dataclass(frozen=True, slots=True)
class Typed:
    """``key``: normalised, without blanks. ``latin``: whether pinyin may be in it. ``sounds``: ways to
    read it, all in letters; ``initials``: the same of first letters."""

    key: str
    latin: bool
    sounds: tuple[str, ...]
    initials: tuple[str, ...]

    @classmethod
    def of(cls, text: str, normalizer: Normalizer) -> "Typed":
        normalized = normalizer.normalize(text).text
        joined = letters(normalized)
        read = readings(joined)
        return cls(
            key="".join(normalized.split()),
            latin=any(char.isascii() and char.isalpha() for char in joined),
            sounds=tuple("".join(syllables) for syllables in read),
            initials=tuple("".join(each[0] for each in syllables) for syllables in read),
        )


@dataclass(frozen=True, slots=True)
class Completions:
    """Over what the caller may know of documents, and what was asked by anybody.

    Each yields the best first, and the same text more than once.
    """

    documents: View
    queries: View
    analyzer: Analyzer
    normalizer: Normalizer

    def whole(self, typed: Typed) -> Iterator[Suggestion]:
        """Phrases that begin with what was typed, then those that read so, are abbreviated so, and
        sound so."""
        if not typed.key:
            return
        begin = _leading_han(typed.key)
        han = [char for char in typed.key if has_han(char)]

        def fits(key: str) -> bool:
            return key.startswith(begin) and all(char in key for char in han)

        yield from self._found(lambda view: [view.lexicon.by_key.starting(typed.key)])
        if typed.latin:
            yield from self._found(
                lambda view: [view.lexicon.by_pinyin.starting(each) for each in typed.sounds], fits
            )
            if len(typed.key) > 1:
                yield from self._found(
                    lambda view: [
                        view.lexicon.by_initials.starting(each) for each in typed.initials
                    ],
                    fits,
                )
                yield from self._skipping(typed)
        elif is_han(typed.key) and len(typed.key) > 1:
            sounds, length = {*readings(typed.key)}, len(typed.key)
            yield from self._found(
                lambda view: [view.lexicon.by_pinyin.starting(each) for each in typed.sounds],
                lambda key: not sounds.isdisjoint(readings(key[:length])),
            )

    def last_word(self, query: str) -> Iterator[Suggestion]:
        """What was typed with its last word completed."""
        for at in self._boundaries(query):
            typed = Typed.of(query[at:], self.normalizer)
            words = (each for each in self.whole(typed) if each.kind == "text")
            for found in islice(words, _TAILS):
                yield Suggestion(text=query[:at] + found.text, kind="text")

    def _found(
        self,
        ids: Callable[[View], Sequence[Ids]],
        fits: Callable[[str], bool] = lambda _: True,
    ) -> Iterator[Suggestion]:
        """What a look-up finds in both, by score."""
        scored = [
            (-float(view.scores[number]), number, view)
            for view in (self.queries, self.documents)
            for number in view.best(np.concatenate(ids(view)), _BEST)
            if fits(view.lexicon.keys[number])
        ]
        for _, number, view in sorted(scored, key=lambda item: item[:2]):
            yield _suggestion(view, number)

    def _skipping(self, typed: Typed) -> Iterator[Suggestion]:
        """Phrases whose initials hold those typed in order, the first two at their beginning."""
        initials, lexicon = typed.initials[0], self.documents.lexicon
        if not 3 <= len(initials) <= 8 or not initials.isalpha() or has_han(typed.key):
            return
        for number in self.documents.best(lexicon.by_initials.starting(initials[:2]), _SKIPPED):
            read = readings(lexicon.keys[number][: 3 * len(initials)])
            if any(_holds((syllable[0] for syllable in each), initials) for each in read):
                yield _suggestion(self.documents, number)

    def _boundaries(self, query: str) -> list[int]:
        """Where its last word may begin, the last first: after a blank, where a script changes, and
        where a word of Chinese does."""
        places = {token.start for token in longest(self.analyzer.analyze(query).words)}
        for at in range(1, len(query)):
            if query[at - 1].isspace() or has_han(query[at]) != has_han(query[at - 1]):
                places.add(at)
        inner = (at for at in places if query[:at].strip() and query[at:].strip())
        return sorted(inner, reverse=True)[:_BOUNDARIES]


def distinct(found: Iterable[Suggestion], typed: str, analyzer: Analyzer) -> Iterator[Suggestion]:
    """Each once, whatever its writing and its endings, and none that is what was typed."""

    def key(text: str) -> tuple[str, ...]:
        return tuple(token.term for token in analyzer.analyze(text).words) or (text,)

    seen = {key(typed)}
    for each in found:
        terms = key(each.text)
        if terms not in seen:
            seen.add(terms)
            yield each


def _suggestion(view: View, number: int) -> Suggestion:
    entry = view.lexicon.entries[number]
    match entry.kind:
        case "title" | "heading" | "query":
            return Suggestion(text=entry.text, kind=entry.kind)
        case _:
            return Suggestion(text=entry.text, kind="text")


def _leading_han(key: str) -> str:
    end = next((at for at, char in enumerate(key) if not has_han(char)), len(key))
    return key[:end]


def _holds(text: Iterator[str], wanted: str) -> bool:
    """Whether ``text`` has the letters in order, others between them or not."""
    return all(letter in text for letter in wanted)
