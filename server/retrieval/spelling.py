"""Spelling: what somebody meant who typed what no document has: pinyin instead of characters, characters
that sound like the right ones, English words with a slip. Pure, over what the caller may know."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rapidfuzz import process
from rapidfuzz.distance import OSA

from server.analysis.contract import Analyzer
from server.analysis.normalize import Normalizer
from server.hits import Reason
from server.retrieval.lexicon import MAX_SOUND, Ids, View, squeezed
from server.retrieval.lexicon_builder import longest
from server.retrieval.pinyin import blurred, has_han, is_han, letters, readings

MAX_CHARS = 100  # of a query; what is longer is a text that was pasted
_MAX_TRIES = 60  # stretches of Chinese that are compared with phrases
_OFFERED = 3  # of what may have been meant
_LEAST_WORD = 4  # letters of an English word that may have a slip
_TWO_SLIPS = 8  # letters from which on it may have two
_LEAST_INITIALS = 3
_MOST_INITIALS = 8
_LEAST_SYLLABLES = 2  # of a phrase that is part of longer pinyin
_LONGEST_PINYIN = 60  # letters
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_PINYIN = re.compile(r"[a-z]+")


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a query, by offsets into it, that the caller's documents may not have, and what may
    have been meant, the likeliest first."""

    start: int
    end: int
    meant: tuple[str, ...]
    reason: Reason


class Spelling:
    """Thread-safe. ``view``: what the caller may know."""

    def __init__(self, view: View, analyzer: Analyzer, normalizer: Normalizer) -> None:
        self._view = view
        self._lexicon = view.lexicon
        self._analyzer = analyzer
        self._normalizer = normalizer

    def parts(self, query: str) -> list[Part]:
        """The parts of a query that something else may have been meant by, in order, apart from each
        other. Whether a document has one as it is typed is for the store to say."""
        if len(query) > MAX_CHARS:
            return []
        whole = self._whole(query)
        if whole is not None:
            return [whole]
        found: list[Part] = []
        for part in self._by_piece(query):
            if not found or part.start >= found[-1].end:
                found.append(part)
        return found

    def _whole(self, query: str) -> Part | None:
        """The query as pinyin, or partly in pinyin, of one phrase or of several in a row."""
        typed = letters(self._normalizer.normalize(query).text)
        latin = "".join(char for char in typed if not has_han(char))
        if len(typed) > _LONGEST_PINYIN or not _PINYIN.fullmatch(latin) or self._all_known(query):
            return None
        start, end = len(query) - len(query.lstrip()), len(query.rstrip())
        for sound in _sounds(typed):
            meant = self._texts(self._lexicon.by_pinyin.equal(sound), like=typed)
            if meant:
                return Part(start, end, meant, "pinyin")
        if typed == latin and (joined := self._joined(latin)):
            return Part(start, end, (joined,), "pinyin")
        if typed == latin and _LEAST_INITIALS <= len(latin) <= _MOST_INITIALS:
            meant = self._texts(self._lexicon.by_initials.equal(latin))
            if meant and not self._close_words(latin):
                return Part(start, end, meant, "pinyin")
        return None

    def _all_known(self, query: str) -> bool:
        words = [match.group() for match in _WORD.finditer(query) if not has_han(match.group())]
        return all(self._knows(word) for word in words)

    def _by_piece(self, query: str) -> Iterator[Part]:
        tokens = longest(self._analyzer.analyze(query).words)
        tries = iter(range(_MAX_TRIES))
        for start, end in _pieces(query):
            if has_han(query[start]):
                inside = [
                    (max(token.start, start), min(token.end, end))
                    for token in tokens
                    if token.start < end and token.end > start
                ]
                yield from self._han(query, inside, tries)
            else:
                yield from self._latin(query[start:end], start)

    def _latin(self, word: str, start: int) -> Iterator[Part]:
        if self._knows(word):
            return
        typed = letters(self._normalizer.normalize(word).text)
        end = start + len(word)
        if _PINYIN.fullmatch(typed):
            meant = self._texts(self._lexicon.by_pinyin.equal(typed))
            if meant:
                yield Part(start, end, meant, "pinyin")
                return
        close = self._close_words(word)
        if close:
            yield Part(start, end, close, "spelling")
        elif _PINYIN.fullmatch(typed) and (joined := self._joined(typed)):
            yield Part(start, end, (joined,), "pinyin")

    def _han(
        self, query: str, tokens: Sequence[tuple[int, int]], tries: Iterator[int]
    ) -> Iterator[Part]:
        """Stretches with a word that is not known, the longest first from the left, for which there is
        a phrase that sounds the same or nearly so, or that differs in one character of three or more;
        as long as there are ``tries`` left."""
        odd = [not self._knows(query[start:end]) for start, end in tokens]
        at = 0
        while at < len(tokens):
            for to in range(min(len(tokens), at + MAX_SOUND), at, -1):
                start, end = tokens[at][0], tokens[to - 1][1]
                if not any(odd[at:to]) or not 2 <= end - start <= MAX_SOUND:
                    continue
                if next(tries, None) is None:
                    return
                part = self._alike(query[start:end], start)
                if part is not None:
                    yield part
                    at = to - 1
                    break
            at += 1

    def _alike(self, text: str, start: int) -> Part | None:
        key = squeezed(text, self._normalizer)
        if not is_han(key) or self._view.knows(key):
            return None
        end = start + len(text)
        found = readings(key)
        exact = [self._lexicon.by_pinyin.equal("".join(each)) for each in found]
        near = [self._lexicon.by_sound.equal("".join(map(blurred, each))) for each in found]
        for several in (exact, near):
            meant = tuple(
                dict.fromkeys(
                    text
                    for ids in several
                    for text in self._texts(ids)
                    if len(squeezed(text, self._normalizer)) == len(key)
                )
            )
            if meant:
                return Part(start, end, meant, "pinyin")
        meant = self._one_other(key) if len(key) > 2 else ()
        return Part(start, end, meant, "spelling") if meant else None

    def _one_other(self, key: str) -> tuple[str, ...]:
        """Phrases with one other character, but not the first and the last one at once."""
        ids = self._lexicon.by_key.starting(key[0])
        close = [
            number
            for number in self._view.best(ids, len(ids))
            if len(other := self._lexicon.keys[number]) == len(key)
            and sum(one != two for one, two in zip(other, key, strict=True)) == 1
        ]
        return tuple(self._lexicon.entries[number].text for number in close[:_OFFERED])

    def _knows(self, word: str) -> bool:
        return self._view.knows(squeezed(word, self._normalizer))

    def _texts(self, ids: Ids, *, like: str = "") -> tuple[str, ...]:
        """Phrases that have the Chinese characters of ``like``, the best first."""
        wanted = [char for char in like if has_han(char)]
        if not len(ids):
            return ()
        return tuple(
            self._lexicon.entries[number].text
            for number in self._view.best(ids, 10 * _OFFERED)
            if _in_order(wanted, self._lexicon.keys[number])
        )[:_OFFERED]

    def _close_words(self, word: str) -> tuple[str, ...]:
        """Known words a slip or two away, the nearest and then the most frequent first."""
        key = squeezed(word, self._normalizer)
        if len(key) < _LEAST_WORD or has_han(key):
            return ()
        slips = 1 if len(key) < _TWO_SLIPS else 2
        pools = {key[0], key[1]}  # the first two may have changed places
        known = [each for first in pools for each in self._lexicon.latin.get(first, ())]
        close = process.extract(
            key, known, scorer=OSA.distance, score_cutoff=slips, limit=10 * _OFFERED
        )
        seen = [
            (int(distance), -self._view.count(each), each)
            for each, distance, _ in close
            if self._view.knows(each)
        ]
        return tuple(_cased(self._writing(each), word) for *_, each in sorted(seen)[:_OFFERED])

    def _writing(self, key: str) -> str:
        """A phrase as his documents write it most."""
        ids = [int(number) for number in self._lexicon.by_key.equal(key)]
        best = max(ids, key=lambda number: int(self._view.counts[number]))
        return self._lexicon.entries[best].text

    def _joined(self, typed: str) -> str:
        """The fewest phrases that pinyin is made of, two or more, or an empty string."""
        if len(typed) > _LONGEST_PINYIN:
            return ""
        best: list[tuple[str, ...] | None] = [(), *[None] * len(typed)]
        for end in range(2, len(typed) + 1):
            for start in range(max(0, end - 6 * MAX_SOUND), end - 1):
                before = best[start]
                now = best[end]
                if before is None or (now is not None and len(before) + 1 >= len(now)):
                    continue
                ids = self._lexicon.by_pinyin.equal(typed[start:end])
                words = [self._lexicon.entries[each].text for each in self._view.known(ids)]
                words = [word for word in words if len(word) >= _LEAST_SYLLABLES]
                if words:
                    best[end] = (*before, words[0])
        parts = best[-1] or ()
        return "".join(parts) if len(parts) > 1 else ""


def _sounds(typed: str) -> list[str]:
    """Ways to read what was typed, partly in Chinese."""
    return ["".join(each) for each in readings(typed)]


def _in_order(wanted: Sequence[str], text: str) -> bool:
    at = 0
    for char in wanted:
        at = text.find(char, at) + 1
        if not at:
            return False
    return True


def _pieces(query: str) -> Iterator[tuple[int, int]]:
    """Where its words of letters alone stand, the Chinese apart from the others."""
    for match in _WORD.finditer(query):
        start = match.start()
        for at in range(start + 1, match.end() + 1):
            if at == match.end() or has_han(query[at]) != has_han(query[at - 1]):
                yield start, at
                start = at


def _cased(text: str, like: str) -> str:
    """In small letters where it was typed so, or with a capital."""
    if like.islower():
        return text.lower()
    return text.capitalize() if like.istitle() and text.islower() else text
