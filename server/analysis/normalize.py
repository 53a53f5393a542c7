"""Normalisation: one form for all ways to write the same text, with a map back to the original.

Per text: NFKC with full case folding and without default-ignorable characters (Unicode's
NFKC_Casefold, so ＧＢ／Ｔ, ㎏ and a zero-width space inside a word don't matter), white space and
controls as blanks, then Traditional to Simplified Chinese (OpenCC's t2s with its phrases).
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import opencc

# Characters that Unicode says to ignore unless a renderer needs them (Default_Ignorable_Code_Point).
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_YPOGEGRAMMENI = 0x345  # the one combining mark that case folding turns into a letter


def _marks() -> str:
    """A regular expression's class, without brackets, of what may join the character before it."""
    points = [
        point
        for point in range(0x300, 0x20000)
        if unicodedata.category(chr(point))[0] == "M"
        or 0x1160 <= point <= 0x11FF  # Hangul vowels and finals
        or 0xFF9E <= point <= 0xFFDC  # half-width voiced marks and Hangul
    ]
    ranges: list[list[int]] = []
    for point in points:
        if ranges and point == ranges[-1][1] + 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


MARKS = _marks()
_CLUSTER = re.compile(f"(?s:.)[{MARKS}]*")


@dataclass(frozen=True, slots=True)
class Normalized:
    """``text`` and, for each of its code points, the span of the original that it came from.

    ``starts`` and ``ends`` are None where every code point stands at its original place.
    """

    text: str
    starts: Sequence[int] | None = None
    ends: Sequence[int] | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The original's span of the non-empty ``text[start:end]``."""
        if self.starts is None or self.ends is None:
            return start, end
        return self.starts[start], self.ends[end - 1]


def _fold(cluster: str) -> str:
    """NFKC_Casefold of a base character with its marks; blanks for white space and controls."""
    kept = _IGNORABLE.sub("", cluster)
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", kept).casefold())
    return "".join(
        " " if unicodedata.category(char) in {"Cc", "Cs", "Zs", "Zl", "Zp"} else char
        for char in folded
    )


class _CharacterTable(dict[int, str]):
    """str.translate's table, filled as characters are met; '' for those not folded one to one."""

    def __missing__(self, point: int) -> str:
        folded = _fold(chr(point))
        value = folded if len(folded) == 1 and point != _YPOGEGRAMMENI else ""
        self[point] = value
        return value


class Normalizer:
    """Thread-safe."""

    def __init__(self) -> None:
        self._simplify = opencc.OpenCC("t2s").convert
        self._characters = _CharacterTable()

    def normalize(self, text: str) -> Normalized:
        """Never fails, whatever the string holds."""
        if text.isascii():
            return Normalized(text.lower().translate(self._characters))
        folded = self._folded(text)
        return Normalized(self._simplified(folded.text), folded.starts, folded.ends)

    def _folded(self, text: str) -> Normalized:
        # Nearly all texts fold character by character; that is so when no character vanishes or
        # expands and nothing is left to compose or reorder.
        direct = text.translate(self._characters)
        if len(direct) == len(text) and unicodedata.is_normalized("NFKC", direct):
            return Normalized(direct)
        pieces: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        for match in _CLUSTER.finditer(text):
            start, end = match.span()
            piece = self._characters[ord(text[start])] if end == start + 1 else ""
            piece = piece or _fold(match.group())
            pieces.append(piece)
            if len(piece) == end - start == 1:
                starts.append(start)
                ends.append(end)
            else:
                starts.extend([start] * len(piece))
                ends.extend([end] * len(piece))
        return Normalized("".join(pieces), starts, ends)

    def _simplified(self, text: str) -> str:
        simplified: str = self._simplify(text)
        if len(simplified) == len(text):
            return simplified
        # No entry of the dictionary changes the length today; should one, offsets matter more.
        return "".join(
            single if len(single := self._simplify(char)) == 1 else char for char in text
        )
