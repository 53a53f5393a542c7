"""The user dictionary: words that segmentation shall know, in jieba's format.

One entry a line, ``word [frequency] [tag]``, UTF-8; blank lines and lines that start with ``#`` are
skipped. A word may mix scripts (5G核心网). Without a frequency jieba's own rule gives one.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from server.analysis.contract import Token
from server.analysis.entries import entries, refusal
from server.analysis.lexer import runs
from server.analysis.normalize import Normalizer
from server.errors import ConfigurationError, InvalidInput

MAX_WORD_CHARS = 100
MAX_FREQUENCY = 2**31 - 1
_ENTRY = re.compile(r"(\S+)(?:\s+(\d+))?(?:\s+([a-z]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class UserWord:
    """``word`` as normalised text has it."""

    word: str
    frequency: int | None = None


@dataclass(frozen=True, slots=True)
class UserDictionary:
    """Words in order of the file, each once."""

    words: tuple[UserWord, ...] = ()

    @classmethod
    def parse(cls, lines: Iterable[str]) -> "UserDictionary":
        """Raises InvalidInput, naming the line."""
        normalizer = Normalizer()
        words: dict[str, UserWord] = {}
        for number, entry in entries(lines):
            match = _ENTRY.fullmatch(entry)
            if match is None:
                raise _refusal(number, entry, 'write "word", "word 100" or "word 100 n"')
            word = normalizer.normalize(match[1]).text
            if len(word) > MAX_WORD_CHARS:
                raise _refusal(number, entry, f"a word has at most {MAX_WORD_CHARS} characters")
            if " " in word or not any(char.isalnum() for char in word):
                raise _refusal(number, entry, "a word has a letter or digit and no white space")
            frequency = int(match[2]) if match[2] else None
            if frequency is not None and not 1 <= frequency <= MAX_FREQUENCY:
                raise _refusal(number, entry, f"a frequency is from 1 to {MAX_FREQUENCY:,}")
            words[word] = UserWord(word, frequency)  # the last line of a word counts
        return cls(tuple(words.values()))

    @classmethod
    def load(cls, path: Path) -> "UserDictionary":
        """Raises ConfigurationError, naming the file and the line."""
        try:
            return cls.parse(path.read_text("utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"The user dictionary {path} can't be read as UTF-8 text: {error}"
            ) from error
        except InvalidInput as error:
            raise ConfigurationError(f"The user dictionary {path}: {error.message}") from error

    def lines(self) -> list[str]:
        """The entries as ``parse`` takes them, without tags."""
        return [
            entry.word if entry.frequency is None else f"{entry.word} {entry.frequency}"
            for entry in self.words
        ]

    @property
    def hash(self) -> str:
        """SHA-256, as hex; empty without words."""
        if not self.words:
            return ""
        lines = (f"{entry.word} {entry.frequency or ''}\n" for entry in self.words)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def _refusal(number: int, entry: str, rule: str) -> InvalidInput:
    return refusal(number, entry, rule, field="dictionary")


class MixedWords:
    """The words that are not Han alone, found as they stand in normalised text.

    The segmenter sees Han runs only, so 5G核心网 has to be found beside it.
    """

    def __init__(self, words: Iterable[str]) -> None:
        mixed = (word for word in words if {run.kind for run in runs(word)} != {"han"})
        self._words = frozenset(mixed)
        self._lengths: dict[str, list[int]] = {}
        for length, first in sorted({(len(word), word[0]) for word in self._words}, reverse=True):
            self._lengths.setdefault(first, []).append(length)
        firsts = "".join(map(re.escape, self._lengths))
        self._first = re.compile(f"[{firsts}]") if firsts else None

    def find(self, text: str) -> Iterator[Token]:
        """The longest word at each place; none begins or ends within a Latin word or a number."""
        if self._first is None:
            return
        for match in self._first.finditer(text):
            start = match.start()
            if _is_inside(text, start):
                continue
            for length in self._lengths[match.group()]:
                word = text[start : start + length]
                if word in self._words and not _is_inside(text, start + length):
                    yield Token(word, start, start + length)
                    break


def _is_inside(text: str, position: int) -> bool:
    """Whether ``position`` parts two ASCII letters or two digits."""
    sides = text[max(0, position - 1) : position + 1]
    if len(sides) < 2 or not sides.isascii():
        return False
    return sides.isalpha() or sides.isdigit()
