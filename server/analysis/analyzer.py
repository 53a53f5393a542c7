"""The analyzer: text to terms with offsets, one function for index and query."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from itertools import count
from pathlib import Path

import rjieba

from server.analysis.contract import Analysis, Token
from server.analysis.dictionary import MixedWords, UserDictionary
from server.analysis.english import EnglishWords
from server.analysis.lexer import Run, code_parts, dates, runs
from server.analysis.normalize import Normalized, Normalizer

PIPELINE_VERSION = 1  # raise when any text's terms change
MAX_TERM_CHARS = 100
_LIBRARIES = ("opencc", "rjieba", "snowballstemmer")  # their data decides about terms

_Term = tuple[str, int, int]  # term, start and end in the normalised text
_as_token: Callable[[_Term], Token] = partial(tuple.__new__, Token)  # thrice as fast as Token(…)


class JiebaAnalyzer:
    """Analyzer of Chinese and English. Thread-safe; a few milliseconds a page."""

    def __init__(self, dictionary: UserDictionary | Path | None = None) -> None:
        """``dictionary``: the user dictionary, or its file.

        Raises ConfigurationError for a file that can't be read or has a wrong line.
        """
        if isinstance(dictionary, Path):
            dictionary = UserDictionary.load(dictionary)
        dictionary = dictionary or UserDictionary()
        self.fingerprint = " ".join(
            [f"jieba-search:{PIPELINE_VERSION}"]
            + [f"{name}:{version(name)}" for name in _LIBRARIES]
            + [f"dictionary:{dictionary.hash[:16] or 'none'}"]
        )
        # An instance of its own: the library's process-wide default stays untouched.
        segmenter = rjieba.Jieba()
        # What jieba makes of a word without one depends on the words before it.
        self.frequencies: Mapping[str, int] = {
            entry.word: segmenter.add_word(entry.word, entry.frequency, None)
            for entry in dictionary.words
        }
        self.dictionary = dictionary
        self._segment = segmenter.tokenize
        self.is_listed: Callable[[str], bool] = segmenter.has_word
        self._mixed = MixedWords(entry.word for entry in dictionary.words)
        self._normalizer = Normalizer()
        self._english = EnglishWords()

    def analyze(self, text: str) -> Analysis:
        """Words and bigrams of any string; stop words stay only where there is nothing else."""
        normalized = self._normalizer.normalize(text)
        words, bigrams = self._terms(normalized.text, self._english.stop_words)
        if not words:
            words, bigrams = self._terms(normalized.text, frozenset())
        return Analysis(_placed(words, normalized), _placed(bigrams, normalized))

    def _terms(self, text: str, stop_words: frozenset[str]) -> tuple[list[_Term], list[_Term]]:
        words: list[_Term] = []
        bigrams: list[_Term] = []
        for run in runs(text):
            start = run.start
            if run.kind == "han":
                words += [
                    (term, start + first, start + last)
                    for term, first, last in self._segment(run.text, "search")
                ]
                bigrams += _grams(run, 2)
                if len(run.text) > 1:
                    bigrams += _grams(run, 1)
            elif run.kind in {"word", "code"}:
                found = self._latin(run, stop_words)
                words += found
                bigrams += found
            else:
                grams = _grams(run, 2)
                bigrams += grams
                words += _grams(run, len(run.text)) if run.kind == "hangul" else grams
        extra: list[_Term] = [date[:3] for date in dates(text)]
        extra += self._mixed.find(text)
        if extra:
            words = list(dict.fromkeys(words + extra))
            bigrams = list(dict.fromkeys(bigrams + extra))
        return words, bigrams

    def _latin(self, run: Run, stop_words: frozenset[str]) -> list[_Term]:
        start, end = run.start, run.start + len(run.text)
        if run.kind == "word":
            word = run.text.replace("’", "'")
            return [] if word in stop_words else [(self._english.stem(word), start, end)]
        found: dict[_Term, None] = {}
        for part in code_parts(run.text):
            if part.is_word and part.term in stop_words:
                continue
            term = self._english.stem(part.term) if part.is_word else part.term
            found[(term, start + part.start, start + part.end)] = None
        return list(found) or [(run.text.replace(" ", ""), start, end)]  # to-do


def _grams(run: Run, length: int) -> list[_Term]:
    """The run's n-grams; the run itself where it is shorter."""
    length = min(length, len(run.text))
    grams = (run.text[place : place + length] for place in range(len(run.text) - length + 1))
    return list(zip(grams, count(run.start), count(run.start + length), strict=False))


def _placed(terms: list[_Term], normalized: Normalized) -> tuple[Token, ...]:
    """Tokens with offsets into the original text; terms cut to their greatest length."""
    if normalized.starts is not None or any(len(term) > MAX_TERM_CHARS for term, _, _ in terms):
        terms = [
            (term[:MAX_TERM_CHARS], *normalized.span(start, end)) for term, start, end in terms
        ]
    return tuple(map(_as_token, terms))
