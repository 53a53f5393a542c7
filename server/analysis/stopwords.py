"""Stop words of a collection: words of a query that the BM25 retriever leaves out.

One a line, UTF-8; blank lines and lines that start with ``#`` are skipped. They act on queries alone, so
the index keeps them and a change needs no rebuild.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from server.analysis.contract import Analysis, Token
from server.analysis.english import EnglishWords
from server.analysis.entries import entries, refusal
from server.analysis.normalize import Normalizer

MAX_WORDS = 10_000
MAX_WORD_CHARS = 100

_FIELD = "stop_words"


@dataclass(frozen=True)
class StopWords:
    """Words in order of the file, each once, as normalised text has them. Thread-safe."""

    words: tuple[str, ...] = ()

    @classmethod
    def parse(cls, lines: Iterable[str]) -> "StopWords":
        """Raises InvalidInput, naming the line."""
        normalizer = Normalizer()
        words: dict[str, None] = {}
        for number, entry in entries(lines):
            word = normalizer.normalize(entry).text.strip()
            if " " in word or not any(char.isalnum() for char in word):
                rule = "a stop word has a letter or digit and no white space"
                raise refusal(number, entry, rule, field=_FIELD)
            if len(word) > MAX_WORD_CHARS:
                rule = f"a stop word has at most {MAX_WORD_CHARS} characters"
                raise refusal(number, entry, rule, field=_FIELD)
            words[word] = None
            if len(words) > MAX_WORDS:
                rule = f"there are at most {MAX_WORDS:,} stop words"
                raise refusal(number, entry, rule, field=_FIELD)
        return cls(tuple(words))

    @cached_property
    def hash(self) -> str:
        """SHA-256, as hex; empty without words."""
        if not self.words:
            return ""
        return hashlib.sha256("".join(f"{word}\n" for word in self.words).encode()).hexdigest()

    @cached_property
    def _terms(self) -> frozenset[str]:
        """The words as terms: Latin ones are stemmed in every query."""
        stem = EnglishWords().stem
        return frozenset(self.words) | {stem(word) for word in self.words if word.isalpha()}

    def without(self, analysis: Analysis) -> Analysis:
        """The query's terms without those of stop words; all of them where no word would be left.

        A stop word that is part of a longer word (公司 in 公司法) stays, for the sake of that word.
        """
        if not self.words or not any(token.term in self._terms for token in analysis.words):
            return analysis
        within = _Within(token for token in analysis.words if token.term not in self._terms)
        dropped = {
            position
            for token in analysis.words
            if token.term in self._terms and not within(token)
            for position in range(token.start, token.end)
        }
        words = _outside(analysis.words, dropped)
        if not words:
            return analysis
        return Analysis(words, _outside(analysis.bigrams, dropped))


NO_STOP_WORDS = StopWords()


class _Within:
    """Whether a token lies within one of others; a few comparisons, however many there are."""

    def __init__(self, others: Iterable[Token]) -> None:
        spans = sorted((token.start, token.end) for token in others)
        self._starts = [start for start, _ in spans]
        self._reach = list(accumulate((end for _, end in spans), max))

    def __call__(self, token: Token) -> bool:
        before = bisect_right(self._starts, token.start)
        return before > 0 and self._reach[before - 1] >= token.end


def _outside(tokens: tuple[Token, ...], dropped: set[int]) -> tuple[Token, ...]:
    """Those that are not made of dropped characters alone, so that bigrams of stop words go too."""
    return tuple(token for token in tokens if not dropped.issuperset(range(token.start, token.end)))
