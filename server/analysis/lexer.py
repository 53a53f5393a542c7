"""Lexing of normalised text: runs of one script, and the parts of codes and numbers."""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from server.analysis.normalize import MARKS

# han: segmented by jieba · syllables: Kana and others without blanks and without a dictionary here ·
# hangul: Korean, written with blanks · word: letters only · code: anything with digits or connectors
Kind = Literal["han", "syllables", "hangul", "word", "code"]

_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_SYLLABLES = (  # Kana, Bopomofo, Thai, Lao, Tibetan, Myanmar, Khmer
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff"
)
_HANGUL = "\u1100-\u11ff\u3131-\u318e\uac00-\ud7af"
_OTHERS = _HAN + _SYLLABLES + _HANGUL
_LETTERS = rf"(?:[^\W\d_{_OTHERS}]++[{MARKS}]*+)++"
_ALNUMS = rf"(?:[^\W_{_OTHERS}]++[{MARKS}]*+)++"

_WORD = rf"{_LETTERS}(?:['’]{_LETTERS})*+"
# "GB/T 5972" is "GB/T5972": a short name may stand apart from its number.
_NAME = r"(?:[a-z]{1,6}+(?:/[a-z]{1,4}+)?+ (?=[0-9]{2}))?+"
_CODE = (
    rf"{_NAME}(?:(?<!\.)\.(?=[a-z]))?+{_ALNUMS}"
    rf"(?:(?:[./@:&+\-]|_++|['’](?=[^\W\d])){_ALNUMS}|,(?<=[0-9],)[0-9]{{3}}(?![0-9]))*+"
    rf"(?:(?<=[a-z])(?:\+\+|\#)(?!\w)|(?<=[0-9])%)?+"
)
_RUN = re.compile(
    rf"(?P<han>[{_HAN}]++)|(?P<syllables>[{_SYLLABLES}]++)|(?P<hangul>[{_HANGUL}]++)"
    rf"|(?P<code>{_CODE})"
)
_IS_WORD = re.compile(_WORD)
_ATOM = re.compile(_ALNUMS)
_DOTTED_NUMBER = re.compile(r"(?<![0-9])[0-9]++(?:\.[0-9]++)++")
_SUBATOM = re.compile(rf"[0-9]++|{_LETTERS}")
_DATE = re.compile(
    r"(?<![0-9.,/\-])((?:19|20)[0-9]{2})"
    r"(?:([-/.])(0?[1-9]|1[0-2])\2(0?[1-9]|[12][0-9]|3[01])(?![0-9\-/])"
    r"|年 ?(0?[1-9]|1[0-2])月(?: ?(0?[1-9]|[12][0-9]|3[01])[日号])?)"
)
_WITHIN = re.compile(rf"(?<=[^\W_{_OTHERS}])[^\W_{_OTHERS}]")
_DROPPED = str.maketrans("", "", " ,")
# What is also written as one word: iso-9001, node_modules, r&d; with more atoms it is a path.
_SQUEEZABLE = re.compile(r"[^.@:+#%]+")
_MAX_SQUEEZED = 5
_JOINED_WORDS = re.compile(r"[^\W\d_]{2,}+(?:[-/][^\W\d_]{2,}+)++")


class Run(NamedTuple):
    """A stretch of normalised text, all of one kind."""

    kind: Kind
    text: str
    start: int


class Part(NamedTuple):
    """A term of a code or date with its place; ``is_word``: to be treated as any other word."""

    term: str
    start: int
    end: int
    is_word: bool = False


def runs(text: str) -> Iterator[Run]:
    """The runs of normalised text, in order; blanks, punctuation and symbols are left out."""
    for match in _RUN.finditer(text):
        kind: Kind = match.lastgroup  # type: ignore[assignment]
        found = match.group()
        if kind == "code" and _IS_WORD.fullmatch(found):
            kind = "word"
        yield Run(kind, found, match.start())


def parts_word(text: str, position: int) -> bool:
    """Whether ``position`` parts letters or digits of scripts that are written with blanks."""
    return _WITHIN.match(text, position) is not None


def code_parts(code: str) -> Iterator[Part]:
    """A code whole and in parts, without its blank and thousands separators; offsets into ``code``.

    GB/T 5972-2016 → gb/t5972-2016, gbt59722016, gb, t5972, 5972, 2016. Ordinary words joined by
    hyphens or slashes (well-known, and/or) are in parts only: measured, their wholes are noise.
    """
    kept = [place for place, char in enumerate(code) if char not in " ,"]
    joined = code.translate(_DROPPED)

    def part(start: int, end: int) -> Part:
        term = joined[start:end]
        is_word = _IS_WORD.fullmatch(term) is not None
        return Part(term, kept[start], kept[end - 1] + 1, is_word)

    atoms = [match.span() for match in _ATOM.finditer(joined)]
    if atoms != [(0, len(joined))] and not _JOINED_WORDS.fullmatch(joined):
        yield part(0, len(joined))
        squeezed = "".join(joined[start:end] for start, end in atoms)
        if len(atoms) <= _MAX_SQUEEZED and _SQUEEZABLE.fullmatch(joined) and not squeezed.isdigit():
            yield Part(squeezed, 0, len(code))
    for match in _DOTTED_NUMBER.finditer(joined):
        yield part(*match.span())
    for start, end in atoms:
        atom = part(start, end)
        yield atom
        if not atom.is_word:
            for match in _SUBATOM.finditer(joined, start, end):
                if match.group().isdigit() or len(match.group()) > 1:
                    yield part(*match.span())


def dates(text: str) -> Iterator[Part]:
    """Calendar dates in one form, 2024-06-01 and 2024-06, however they are written."""
    for match in _DATE.finditer(text):
        year, _, month, day, month_cjk, day_cjk = match.groups()
        year_month = f"{year}-{int(month or month_cjk):02}"
        yield Part(year_month, *match.span())
        if day or day_cjk:
            yield Part(f"{year_month}-{int(day or day_cjk):02}", *match.span())
