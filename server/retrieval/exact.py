"""Exact phrases: what a query wants as it is written, said by quotation marks or by being a code.

``"年假 结转"`` between blanks is asked for as a phrase; quotation marks within a sentence are not, since
Chinese questions are full of them (名为“合伙”实为借贷). A code (ERR-4012, GB/T 19001, an order's number) is
never meant as anything like it, which is all that a vector knows of it.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from server.analysis.contract import Analysis, Analyzer
from server.analysis.lexer import runs
from server.analysis.normalize import Normalizer
from server.retrieval.evidence import phrase_terms

_QUOTED = re.compile(
    r"(?<!\S)(?:\"([^\"]+)\"|＂([^＂]+)＂|“([^“”]+)”|「([^「」]+)」|『([^『』]+)』)(?!\S)"
)
# Begins with a letter, or has the digits of a number that was given out; no amount (15.4, 5000Hz, 101s).
_CODE = re.compile(r"(?=.*[0-9])[^\W\d_].{3,}|[0-9](?:[-/.]?[0-9]){5,}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ExactPhrases:
    """Phrases of a query, each by its terms side by side. ``quoted``: whether the user said so."""

    phrases: tuple[tuple[str, ...], ...] = ()
    quoted: bool = False

    @classmethod
    def of(cls, query: str, analyzer: Analyzer, normalizer: Normalizer) -> "ExactPhrases":
        """Those in quotation marks, else the codes; one without terms of two characters is none."""
        quoted = [next(filter(None, found.groups())) for found in _QUOTED.finditer(query)]
        wanted = quoted or list(_codes(query, normalizer))
        phrases = tuple(dict.fromkeys(phrase_terms(analyzer.analyze(each)) for each in wanted))
        return cls(tuple(filter(None, phrases)), bool(quoted))

    def __bool__(self) -> bool:
        return bool(self.phrases)

    @property
    def terms(self) -> tuple[str, ...]:
        """What a passage that holds all of them has, in any order."""
        return tuple(dict.fromkeys(term for phrase in self.phrases for term in phrase))

    def held_by(self, passage: Analysis) -> bool:
        """Whether a passage has every phrase, its terms side by side."""
        terms = phrase_terms(passage)
        return all(_contains(terms, phrase) for phrase in self.phrases)


def first(order: Sequence[str], held: Collection[str]) -> list[str]:
    """Those that are held before the others, both in their order."""
    return [each for each in order if each in held] + [each for each in order if each not in held]


def _codes(query: str, normalizer: Normalizer) -> Iterator[str]:
    normalized = normalizer.normalize(query)
    for run in runs(normalized.text):
        if run.kind == "code" and _CODE.fullmatch(run.text):
            start, end = normalized.span(run.start, run.start + len(run.text))
            name, blank, _ = query[start:end].partition(" ")
            if not blank or name.isupper():  # GB/T 19001, not "in 2015"
                yield query[start:end]


def _contains(terms: Sequence[str], phrase: Sequence[str]) -> bool:
    size = len(phrase)
    return any(
        tuple(terms[start : start + size]) == tuple(phrase)
        for start, term in enumerate(terms)
        if term == phrase[0]
    )
