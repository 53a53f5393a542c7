"""Evidence: what tells, beyond the retrievers' scores, that a passage answers a query.

All of it is a share, so that it means the same for a short query and a long one: how much of the query's
information the passage has at all, and how much of it in one piece.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.analysis.contract import Analysis, is_character
from server.stores.contract import Frequencies


@dataclass(frozen=True, slots=True)
class OtherWords:
    """``others``, all together, say what ``own``, which are among the query's words, do."""

    own: frozenset[str]
    others: frozenset[str]


@dataclass(frozen=True, slots=True)
class QueryTerms:
    """The terms of a query with what each tells (idf).

    ``words``: distinct words. ``phrase``: bigrams and Latin words in their order, as they stand in the
    field of bigrams. ``total``: all that the words could tell together. ``said_otherwise``: what is as
    good as having words.
    """

    words: Mapping[str, float]
    phrase: tuple[str, ...]
    phrase_idf: Mapping[str, float]
    said_otherwise: tuple[OtherWords, ...] = ()

    @classmethod
    def of(
        cls,
        analysis: Analysis,
        frequencies: Frequencies,
        said_otherwise: Sequence[OtherWords] = (),
    ) -> "QueryTerms":
        words = {
            term: frequencies.idf("words", term)
            for term in dict.fromkeys(token.term for token in analysis.words)
        }
        for each in said_otherwise:
            # Words that nobody wrote have the highest idf of all: they tell no more than those which
            # the collection has in their place.
            lacking = [term for term in each.own if not frequencies.of["words"].get(term)]
            most = sum(words[term] for term in lacking)
            there = sum(frequencies.idf("words", term) for term in each.others)
            if there < most:
                words |= {term: words[term] * there / most for term in lacking}
        phrase = phrase_terms(analysis)
        return cls(
            words,
            phrase,
            {term: frequencies.idf("bigrams", term) for term in dict.fromkeys(phrase)},
            tuple(said_otherwise),
        )

    @property
    def total(self) -> float:
        return sum(self.words.values())

    def coverage(self, passage: Analysis) -> float:
        """The share of the words' idf that the passage has, in these or other words, from 0 to 1."""
        if not self.total:
            return 0.0
        has = {token.term for token in passage.words}
        found = has & self.words.keys()
        for each in self.said_otherwise:
            if each.others <= has:
                found |= each.own
        return sum(self.words[term] for term in found) / self.total

    def longest_phrase(self, passage: Analysis) -> float:
        """The share of the phrase's idf in the longest run of its terms that the passage has side by
        side in the same order, from 0 to 1."""
        whole = sum(self.phrase_idf[term] for term in self.phrase)
        if not whole:
            return 0.0
        places: dict[str, list[int]] = {}
        for place, term in enumerate(phrase_terms(passage)):
            if term in self.phrase_idf:
                places.setdefault(term, []).append(place)
        longest = 0.0
        runs: dict[int, float] = {}  # by where they end
        for term in self.phrase:
            idf = self.phrase_idf[term]
            runs = {place: runs.get(place - 1, 0.0) + idf for place in places.get(term, ())}
            longest = max(longest, max(runs.values(), default=0.0))
        return longest / whole


def query_terms(
    analysis: Analysis, said_otherwise: Sequence[OtherWords] = ()
) -> dict[str, Sequence[str]]:
    """The terms of a query whose frequencies QueryTerms needs, by text field."""
    words = dict.fromkeys(token.term for token in analysis.words)
    for each in said_otherwise:
        words |= dict.fromkeys(sorted(each.others))
    return {
        "words": tuple(words),
        "bigrams": tuple(dict.fromkeys(phrase_terms(analysis))),
    }


def phrase_terms(analysis: Analysis) -> tuple[str, ...]:
    """Terms that follow each other as the text does: single characters repeat what bigrams say."""
    return tuple(
        token.term
        for token in sorted(analysis.bigrams, key=lambda token: token.start)
        if not is_character(token.term)
    )
