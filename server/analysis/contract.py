"""What analysis gives: terms with the places in the original text that they came from."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Token(NamedTuple):
    """A term and the code-point offsets of its source in the text as given (not as normalised).

    A tuple, since a text has more tokens than characters and a dataclass takes thrice the time.
    """

    term: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Analysis:
    """``words``: jieba's search-mode words, stemmed Latin words, codes whole and in parts.
    ``bigrams``: character bigrams of Han runs and their single characters, the safety field against
    unknown words; Latin words and codes stand in it as they do in ``words`` so that the field can be
    searched alone.
    """

    words: tuple[Token, ...]
    bigrams: tuple[Token, ...]


def is_character(term: str) -> bool:
    """Whether a term among an analysis's bigrams is one of the single characters that stand beside them.

    A Han character is; Latin words and digits of one character are words.
    """
    return len(term) == 1 and not term.isascii()


class Analyzer(Protocol):
    """Thread-safe. ``fingerprint`` covers the pipeline's version and the user dictionary's hash."""

    fingerprint: str

    def analyze(self, text: str) -> Analysis:
        """Terms have no white space and at most 100 characters; none is empty."""

    def is_listed(self, word: str) -> bool:
        """Whether a dictionary has this word of Chinese, Simplified as normalised text; others are
        guesses where words begin and end."""
