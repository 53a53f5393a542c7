"""Sentence windows: the parts of a chunk that have vectors of their own.

A chunk's one vector says what all of it is about; whether one of its sentences answers a query shows
in the vector of a few sentences alone.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from server.analysis.sentences import split_sentences
from server.documents import Chunk, passage_text

WINDOWS_VERSION = 1  # raise when windows change
WINDOW = (
    40  # units: a CJK character is one, any other a quarter, so that both are about as much said
)
MAX_WINDOWS = 64  # of a chunk
FINGERPRINT = f"windows-{WINDOWS_VERSION}/{WINDOW}"
_SHORT = 20  # characters; a sentence of no more joins the next, since it says little by itself
_FIRST_CJK = "\u2e80"
_LONG = 2  # windows that a sentence may fill before it is cut
# Where a long one is cut: at stops that a small letter follows; failing them, at commas.
_BREAKS = (re.compile(r"[.!?:：;]+\s+"), re.compile(r"[，、]|,\s+"))

Span = tuple[int, int]


def windows(text: str) -> tuple[str, ...]:
    """The windows of a chunk's text, in order, each once; none where there would be but one.

    Sentences are joined as far as WINDOW allows; a longer one stands alone, up to _LONG times as long,
    and is cut beyond that where it can be. Past MAX_WINDOWS neighbours
    are joined, evenly.
    """
    spans = _bounded(list(_joined(text, _sentences(text))))
    found = tuple(dict.fromkeys(text[start:end].strip() for start, end in spans))
    return found if len(found) > 1 else ()


def passages_of(title: str, chunk: Chunk, *, windowed: bool) -> dict[str, str]:
    """Key → passage of all that is embedded of a chunk: its own first, whose key it is itself, then,
    if ``windowed``, those of its windows.

    A window's key is never a chunk's: stores keep vectors of windows rounded, so that none of them
    may become a chunk's where documents are cut otherwise.
    """
    own = passage_text(title, chunk.headings, chunk.text)
    passages = {own: own}
    for window in windows(chunk.text) if windowed else ():
        passage = passage_text(title, chunk.headings, window)
        passages[f"window\0{passage}"] = passage
    return passages


def _sentences(text: str) -> Iterator[Span]:
    start, end = -1, -1
    for begin, end in (
        part for span in split_sentences(text) for part in _parts(text, span, _BREAKS)
    ):
        start = begin if start < 0 else start
        if end - start > _SHORT:
            yield start, end
            start = -1
    if start >= 0:
        yield start, end


def _parts(text: str, span: Span, breaks: Sequence[re.Pattern[str]]) -> Iterator[Span]:
    """A sentence, or its parts where it is too long to be one: of a text without capitals, of a list."""
    start, end = span
    if not breaks or _units(text[start:end]) <= _LONG * WINDOW:
        yield span
        return
    first, *others = breaks
    for stop in (*(found.end() for found in first.finditer(text, start, end)), end):
        if text[start:stop].strip():
            yield from _parts(text, (start, stop), others)
        start = stop


def _joined(text: str, sentences: Iterable[Span]) -> Iterator[Span]:
    window: Span | None = None
    for start, end in sentences:
        if window is None:
            window = start, end
        elif _units(text[window[0] : end]) > WINDOW:
            yield window
            window = start, end
        else:
            window = window[0], end
    if window is not None:
        yield window


def _bounded(spans: list[Span]) -> list[Span]:
    count = len(spans)
    if count <= MAX_WINDOWS:
        return spans
    ends = [part * count // MAX_WINDOWS for part in range(MAX_WINDOWS + 1)]
    return [(spans[first][0], spans[after - 1][1]) for first, after in pairwise(ends)]


def _units(text: str) -> float:
    return sum(1.0 if character >= _FIRST_CJK else 0.25 for character in text)
