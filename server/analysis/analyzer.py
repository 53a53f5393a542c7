"""The analyzer: text to terms with offsets, one function for index and query."""

import re
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import rjieba
import snowballstemmer

from server.analysis.contract import Analysis, Token
from server.analysis.dictionary import UserDictionary
from server.analysis.lexer import Part, code_parts, dates, runs
from server.analysis.normalize import Normalized, Normalizer

PIPELINE_VERSION = 1  # raise when any text's terms change
MAX_TERM_CHARS = 100
_STEM_CACHE = 100_000  # words


class JiebaAnalyzer:
    """Analyzer of Chinese and English. Thread-safe."""

    def __init__(self, dictionary: UserDictionary | Path | None = None) -> None:
        """``dictionary``: the user dictionary or its file. Raises ConfigurationError for a bad file."""
        if dictionary is None:
            dictionary = UserDictionary()
        elif isinstance(dictionary, Path):
            dictionary = UserDictionary.load(dictionary)
        self.fingerprint = _fingerprint(dictionary)
        self._normalizer = Normalizer()
        # An instance of its own: jieba's process-wide default dictionary stays untouched.
        segmenter = rjieba.Jieba()
        for entry in dictionary.words:
            segmenter.add_word(entry.word, entry.frequency, None)
        self._segment = segmenter.tokenize
        self._mixed = MixedWords(entry.word for entry in dictionary.words)
        self._stop_words = frozenset(
            (files("server.analysis") / "data/stopwords_en.txt").read_text("utf-8").split()
        )
        self._stem = _stemmer()

    def analyze(self, text: str) -> Analysis:
        normalized = self._normalizer.normalize(text)
        words: list[Token] = []
        bigrams: list[Token] = []
        for kind, run, start in runs(normalized.text):
            if kind == "han":
                words += [
                    Token(term, start + first, start + last)
                    for term, first, last in self._segment(run, "search")
                ]
                bigrams += _bigrams(run, start)
            elif kind == "word":
                found = self._word(Part(run, 0, len(run)), start)
                words += found
                bigrams += found
            elif kind == "code":
                found = self._code(run, start)
                words += found
                bigrams += found
            else:
                found = _bigrams(run, start)
                words += [Token(run, start, start + len(run))] if kind == "hangul" else found
                bigrams += found
        extra = [Token(*part[:3]) for part in dates(normalized.text)]
        extra += self._mixed.find(normalized.text)
        if extra:
            words = list(dict.fromkeys([*words, *extra]))
            bigrams = list(dict.fromkeys([*bigrams, *extra]))
        return Analysis(_placed(words, normalized), _placed(bigrams, normalized))

    def _word(self, part: Part, offset: int) -> list[Token]:
        word = part.term.replace("’", "'")
        if word in self._stop_words:
            return []
        return [Token(self._stem(word), offset + part.start, offset + part.end)]

    def _code(self, code: str, offset: int) -> list[Token]:
        found: dict[Token, None] = {}
        for part in code_parts(code):
            if part.is_word:
                found.update(dict.fromkeys(self._word(part, offset)))
            else:
                found[Token(part.term, offset + part.start, offset + part.end)] = None
        return list(found)


class MixedWords:
    """The user dictionary's words that are not Han alone, found as they stand in normalised text."""

    def __init__(self, words: Iterable[str]) -> None:
        self._lengths: dict[str, list[int]] = {}
        self._words = frozenset(word for word in words if {r.kind for r in runs(word)} != {"han"})
        for length, first in sorted({(len(word), word[0]) for word in self._words}, reverse=True):
            self._lengths.setdefault(first, []).append(length)
        firsts = "".join(map(re.escape, self._lengths))
        self._first = re.compile(f"[{firsts}]") if firsts else None

    def find(self, text: str) -> Iterator[Token]:
        """The longest word at each place; none begins or ends within a Latin word or number."""
        if self._first is None:
            return
        for match in self._first.finditer(text):
            start = match.start()
            for length in self._lengths[match.group()]:
                end = start + length
                if text[start:end] in self._words and not (
                    _is_inside(text, start) or _is_inside(text, end)
                ):
                    yield Token(text[start:end], start, end)
                    break


def _is_inside(text: str, position: int) -> bool:
    """Whether both sides of ``position`` are ASCII letters or both digits."""
    before, after = text[max(0, position - 1) : position], text[position : position + 1]
    if not (before.isascii() and after.isascii()):
        return False
    return (before.isalpha() and after.isalpha()) or (before.isdigit() and after.isdigit())


def _bigrams(run: str, start: int) -> list[Token]:
    if len(run) == 1:
        return [Token(run, start, start + 1)]
    return [Token(run[i : i + 2], start + i, start + i + 2) for i in range(len(run) - 1)]


def _placed(tokens: list[Token], normalized: Normalized) -> tuple[Token, ...]:
    """Tokens with offsets into the original text, terms cut to their greatest length."""
    cut = MAX_TERM_CHARS
    if normalized.starts is None and all(len(token.term) <= cut for token in tokens):
        return tuple(tokens)
    span = normalized.span
    return tuple(
        Token(term[:cut], *span(start, min(end, start + cut) if len(term) > cut else end))
        for term, start, end in tokens
    )


def _stemmer() -> Callable[[str], str]:
    stemmer = snowballstemmer.stemmer("english")  # Porter2
    lock = threading.Lock()  # a stemmer keeps the word that it works on

    @lru_cache(_STEM_CACHE)
    def stem(word: str) -> str:
        if not word.isascii():  # café is cafe
            word = "".join(
                char
                for char in unicodedata.normalize("NFD", word)
                if not "\u0300" <= char <= "\u036f"
            )
        word = word[:MAX_TERM_CHARS]
        with lock:
            return stemmer.stemWord(word) or word

    return stem


def _fingerprint(dictionary: UserDictionary) -> str:
    libraries = " ".join(
        f"{name}-{version(name)}" for name in ("rjieba", "opencc", "snowballstemmer")
    )
    return f"jieba:{PIPELINE_VERSION} {libraries} dictionary:{dictionary.hash[:16] or 'none'}"
