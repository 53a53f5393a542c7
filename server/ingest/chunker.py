"""Chunker: documents to chunks that keep to the text's own structure and to the embedder's size."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile, zip_longest

from server.analysis.sentences import split_sentences
from server.documents import MAX_PATH_CHARS, Chunk, Document
from server.ingest.blocks import Block, read_blocks
from server.models.contract import Embedder
from server.models.estimates import estimate_tokens

CHUNKER_VERSION = 1  # raise when the same document and sizes would give other chunks
LEAST_TOKENS = 32  # of a chunk's limit
MAX_TOKENS = 400  # embedders read 512, special tokens included; the rest is for what counts badly
_RESERVE = 32  # of an embedder's tokens: special ones, and a prefix such as "passage: "
_FINGERPRINT = re.compile(r"chunker-(\d+)/(\d+)")
_CHARS_PER_TOKEN = 8  # a text of more characters a token than this is never counted as a whole
_LIKELY_CHARS_PER_TOKEN = (
    4  # a text within it may well fit as a whole, which saves counting its parts
)
_LINE_BREAKS = str.maketrans("\r\n", "  ")
_CLAUSE_END = re.compile(r"[，；：、]|[,;:](?=\s)")
_JOINERS = frozenset("\u200d\ufe0e\ufe0f")


@dataclass(frozen=True, slots=True)
class _Atom:
    """The smallest part that is not split: a block, or a sentence, line or row of one."""

    start: int
    end: int
    tokens: int
    headings: tuple[str, ...]


Range = tuple[int, int]  # of atoms, or of units


def chunker_for(embedder: Embedder | None, max_tokens: int = 0) -> "Chunker":
    """The chunker that suits an embedder, or full-text search alone.

    ``max_tokens``: of a chunk, as far as the embedder reads; 0: as many as suit.
    """
    wanted = max_tokens or MAX_TOKENS
    if embedder is None:
        return Chunker(estimate_tokens, max(LEAST_TOKENS, wanted))
    read = max(LEAST_TOKENS, embedder.max_tokens - _RESERVE)
    return Chunker(embedder.count_tokens, max(LEAST_TOKENS, min(wanted, read)))


def chunker_of(fingerprint: str, embedder: Embedder | None) -> "Chunker | None":
    """The chunker with a recipe's fingerprint, or None where this program has it no more."""
    named = _FINGERPRINT.fullmatch(fingerprint)
    if named is None or int(named[1]) != CHUNKER_VERSION or int(named[2]) < LEAST_TOKENS:
        return None
    return Chunker(embedder.count_tokens if embedder else estimate_tokens, int(named[2]))


class Chunker:
    """Cuts documents into chunks of at most ``max_tokens`` tokens, heading path included.

    ``count_tokens`` is the embedder's. A chunk ends at the end of a section, paragraph, list item or
    table row; within one only where it alone is too long, and then at the end of a sentence (or line
    of code). What is longer than a chunk even so is cut at a line, a clause, a word, at last between
    characters. Small sections under one heading share a chunk. Time is linear in the text.
    """

    def __init__(self, count_tokens: Callable[[str], int], max_tokens: int = MAX_TOKENS) -> None:
        if max_tokens < LEAST_TOKENS:
            raise ValueError(f"max_tokens must be at least {LEAST_TOKENS}")
        self._count = count_tokens
        self.max_tokens = max_tokens
        self.fingerprint = f"chunker-{CHUNKER_VERSION}/{max_tokens}"

    def chunk(self, document: Document) -> tuple[Chunk, ...]:
        """The chunks in order. Together they hold every character of the text that is not blank,
        each once. A document without text has one empty chunk, so that its title is found."""
        blocks = read_blocks(document.text)
        spans: Iterable[tuple[int, int, tuple[str, ...]]]
        if blocks:
            spans = _Cutter(self._count, self.max_tokens, document).cut(blocks)
        else:
            spans = [(0, 0, ())] if document.title else []
        return tuple(
            Chunk(
                document_id=document.id,
                position=position,
                text=document.text[start:end],
                start=start,
                end=end,
                headings=headings,
            )
            for position, (start, end, headings) in enumerate(spans)
        )


class _Cutter:
    """Cuts one document: blocks → atoms → units that stay together → ranges of units, the chunks."""

    def __init__(self, count: Callable[[str], int], max_tokens: int, document: Document) -> None:
        self._count = count
        self._max = max_tokens
        self._small = max_tokens // 4
        self._text = document.text
        self._title_tokens = count(document.title[:MAX_PATH_CHARS]) if document.title else 0
        self._heading_tokens: dict[str, int] = {}
        self._atoms: list[_Atom] = []
        self._units: list[int] = []  # the first atom of each
        self._sums: list[int] = []  # tokens of the atoms before each

    def cut(self, blocks: Sequence[Block]) -> Iterator[tuple[int, int, tuple[str, ...]]]:
        """Start, end and headings of each chunk."""
        whole = Block("paragraph", blocks[0].start, blocks[-1].end, _shared(blocks))
        room = self._room(whole.headings)
        short = whole.end - whole.start <= room * _LIKELY_CHARS_PER_TOKEN
        if short and self._count_within(whole.start, whole.end, room) is not None:
            yield whole.start, whole.end, whole.headings
            return
        self._make_units(blocks)
        self._sums = [0, *accumulate(atom.tokens for atom in self._atoms)]
        self._units.append(len(self._atoms))
        for first, last in self._pack(0, len(self._units) - 1, 0):
            for range_ in self._verified(self._units[first], self._units[last]):
                start, end = self._atoms[range_[0]].start, self._atoms[range_[1] - 1].end
                yield start, end, self._path(*range_)

    # Sizes

    def _room(self, headings: tuple[str, ...]) -> int:
        """Tokens that a chunk's text may have beside the title and the heading path."""
        path = self._title_tokens
        for heading in headings:
            if heading not in self._heading_tokens:
                self._heading_tokens[heading] = self._count(heading) + 1
            path += self._heading_tokens[heading]
        return max(self._max - path, self._max // 2)

    def _tokens(self, first: int, last: int) -> int:
        return self._sums[self._units[last]] - self._sums[self._units[first]]

    def _path(self, first: int, last: int) -> tuple[str, ...]:
        return _shared(self._atoms[first:last])

    def _unit_path(self, first: int, last: int) -> tuple[str, ...]:
        return self._path(self._units[first], self._units[last])

    # Blocks to units

    def _make_units(self, blocks: Sequence[Block]) -> None:
        """A heading, and a line such as "as follows:" before a list, goes with what it announces."""
        held: list[_Atom] = []  # such lines that wait for what follows them
        used = 0
        for block, following in zip_longest(blocks, blocks[1:]):
            room = self._room(block.headings)
            if used > room // 2:
                self._add_unit(held, held[-1].headings)
                held, used = [], 0
            pieces = self._pieces(block, room - used)
            if len(pieces) == 1 and following and _announces(self._text, block, following):
                held.append(pieces[0])
                used += pieces[0].tokens
                continue
            self._add_unit([*held, pieces[0]], block.headings)
            held, used = [], 0
            for piece in pieces[1:]:
                self._add_unit([piece], block.headings)

    def _add_unit(self, atoms: Sequence[_Atom], headings: tuple[str, ...]) -> None:
        self._units.append(len(self._atoms))
        self._atoms.extend(_Atom(a.start, a.end, a.tokens, headings) for a in atoms)

    def _pieces(self, block: Block, limit: int) -> list[_Atom]:
        """The block as one atom, or in several where it has more than ``limit`` tokens."""
        tokens = self._count_within(block.start, block.end, limit)
        if tokens is not None:
            return [_Atom(block.start, block.end, tokens, block.headings)]
        pieces: list[_Atom] = []
        for start, end in self._parts(block):
            tokens = self._count_within(start, end, limit)
            if tokens is not None:
                pieces.append(_Atom(start, end, tokens, block.headings))
            else:
                pieces.extend(
                    _Atom(*cut, block.headings) for cut in self._hard_cuts(start, end, limit)
                )
        return pieces

    def _count_within(self, start: int, end: int, limit: int) -> int | None:
        """The tokens of a part, or None where it has more than ``limit``."""
        if end - start > limit * _CHARS_PER_TOKEN:
            return None
        tokens = self._count(self._text[start:end])
        return tokens if tokens <= limit else None

    def _parts(self, block: Block) -> Iterator[Range]:
        text = self._text[block.start : block.end]
        if block.kind in {"code", "table"}:
            start = 0
            for line in text.split("\n"):
                stripped = line.strip()
                if stripped:
                    at = block.start + start + line.index(stripped[0])
                    yield at, at + len(stripped)
                start += len(line) + 1
        else:
            # A line break within a block ends no sentence.
            for start, end in split_sentences(text.translate(_LINE_BREAKS)):
                yield block.start + start, block.start + end

    def _hard_cuts(self, start: int, end: int, limit: int) -> Iterator[tuple[int, int, int]]:
        """Start, end and tokens of parts within the limit; the guess of a part's length follows how
        many characters a token had before, so that each part is counted about once."""
        size = limit
        while start < end:
            stop = min(end, start + size)
            if stop < end:
                stop = self._cut_place(start, stop)
            tokens = self._count(self._text[start:stop])
            guess = (stop - start) * limit * 9 // (max(tokens, 1) * 10)
            if tokens > limit and stop - start > 1:
                size = max(1, min(guess, stop - start - 1))
                continue
            yield start, stop, tokens
            size = max(1, min(guess, limit * _CHARS_PER_TOKEN))
            start = stop
            while start < end and self._text[start].isspace():
                start += 1

    def _cut_place(self, start: int, stop: int) -> int:
        """Where to cut before ``stop``: after a line, a clause, a word; else between characters."""
        middle = start + (stop - start + 1) // 2
        window = self._text[middle:stop]
        at = window.rstrip().rfind("\n")
        if at >= 0:
            return middle + at
        clauses = [found.end() for found in _CLAUSE_END.finditer(self._text, middle, stop)]
        if clauses:
            return clauses[-1]
        words = re.findall(r"\s+\S*", window)
        if words:
            return stop - len(words[-1])
        least = max(start + 1, stop - 16)
        while stop > least and (
            unicodedata.combining(self._text[stop])
            or self._text[stop] in _JOINERS
            or self._text[stop - 1] == "\u200d"
        ):
            stop -= 1
        return stop

    # Units to chunks

    def _pack(self, first: int, last: int, depth: int) -> list[Range]:
        """Ranges of units that make a chunk each, for units that share ``depth`` headings."""
        if self._fits(first, last):
            return [(first, last)]
        packed: list[Range] = []
        may_share = False  # a section of several chunks keeps them; whole small ones share theirs
        start = first
        while start < last:
            heading = self._heading_at(start, depth)
            stop = start + 1
            while stop < last and self._heading_at(stop, depth) == heading:
                stop += 1
            run = self._fill(start, stop) if heading is None else self._pack(start, stop, depth + 1)
            if len(run) == 1 and may_share and self._share(packed[-1], run[0]):
                packed[-1] = (packed[-1][0], run[0][1])
            else:
                packed.extend(run)
                may_share = len(run) == 1
            start = stop
        return packed

    def _fill(self, first: int, last: int) -> list[Range]:
        """Ranges of about equal size for units of one section."""
        room = self._room(self._unit_path(first, last))
        total = self._tokens(first, last)
        target = total / max(1, -(-total // room))
        ranges = []
        start = first
        for unit in range(first + 1, last):
            tokens, more = self._tokens(start, unit), self._tokens(unit, unit + 1)
            if tokens + more > room or tokens + more / 2 > target:
                ranges.append((start, unit))
                start = unit
        if ranges and self._share(ranges[-1], (start, last)):
            start = ranges.pop()[0]
        ranges.append((start, last))
        return ranges

    def _fits(self, first: int, last: int) -> bool:
        return self._tokens(first, last) <= self._room(self._unit_path(first, last))

    def _share(self, one: Range, other: Range) -> bool:
        least = min(self._tokens(*one), self._tokens(*other))
        return least < self._small and self._fits(one[0], other[1])

    def _heading_at(self, unit: int, depth: int) -> str | None:
        headings = self._atoms[self._units[unit]].headings
        return headings[depth] if len(headings) > depth else None

    def _verified(self, first: int, last: int) -> Iterator[Range]:
        """The atoms as one chunk, or halved where together they have more tokens than summed up.

        Tokenizers add up but for a token a seam and for what stands there, so few chunks need it.
        """
        atoms = self._atoms[first:last]
        start, end = atoms[0].start, atoms[-1].end
        between = end - start - sum(atom.end - atom.start for atom in atoms)
        room = self._room(self._path(first, last))
        most = sum(atom.tokens for atom in atoms) + between + len(atoms) - 1
        fits = len(atoms) == 1 or most <= room
        if fits or self._count(self._text[start:end]) <= room:
            yield first, last
        else:
            middle = (first + last) // 2
            yield from self._verified(first, middle)
            yield from self._verified(middle, last)


def _shared(parts: Sequence[Block] | Sequence[_Atom]) -> tuple[str, ...]:
    """The headings that blocks or atoms have in common."""
    shared = parts[0].headings
    for part in parts:
        if part.headings is not shared:
            pairs = zip(shared, part.headings, strict=False)
            same = takewhile(lambda pair: pair[0] == pair[1], pairs)
            shared = tuple(heading for heading, _ in same)
    return shared


def _announces(text: str, block: Block, following: Block) -> bool:
    """Whether a block says what the next one is."""
    if block.kind == "heading":
        depth = len(block.headings)
        deeper = following.kind != "heading" or len(following.headings) > depth
        return deeper and following.headings[:depth] == block.headings
    return text[block.end - 1] in ":：" and following.kind in {"item", "table", "code"}
