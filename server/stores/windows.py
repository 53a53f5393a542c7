"""Vectors of a chunk's windows as stores keep them: int8, with one float32 scale a row.

The bytes, little-endian: uint32 n, float32 (n) scales, int8 (n, dimensions). The largest number of a row
is ±127 and its scale is one by its length, so a row that was unpacked packs to the same bytes, and a
scale that doesn't give the length 1 shows damage. A cosine is off by less than .003 (384 dimensions:
.0004 by standard deviation), at a quarter of float32's size.
"""

import numpy as np

from server.documents import Vectors
from server.errors import InvalidInput

_HEADER = 4
_SCALE = 4
_PEAK = 127
_LENGTH_TOLERANCE = 1e-3


def pack(rows: Vectors) -> bytes:
    """Bytes of rows of shape (n ≥ 2, dimensions), each of length 1. Raises InvalidInput."""
    if not are_sound(rows):
        raise InvalidInput(
            f"Vectors of windows have the shape {rows.shape}; they must be two or more, finite and "
            "of length 1.",
            field="windows",
        )
    peaks = np.abs(rows).max(axis=1, keepdims=True)
    levels = np.rint(rows * (_PEAK / peaks)).astype(np.int8)
    scales = 1 / np.linalg.norm(levels.astype(np.float32), axis=1)
    return b"".join(
        (
            len(rows).to_bytes(_HEADER, "little"),
            scales.astype("<f4").tobytes(),
            levels.tobytes(),
        )
    )


def unpack(packed: bytes) -> Vectors:
    """Rows as they lie there, whatever is wrong with them; (0, 0) of bytes that hold no rows."""
    count = int.from_bytes(packed[:_HEADER], "little")
    start = _HEADER + count * _SCALE
    size = len(packed) - start
    if count == 0 or size <= 0 or size % count:
        return np.zeros((0, 0), np.float32)
    scales = np.frombuffer(packed, "<f4", count, _HEADER).astype(np.float32)
    levels = np.frombuffer(packed, np.int8, size, start).reshape(count, -1)
    with np.errstate(invalid="ignore", over="ignore"):  # of scales that are damaged
        return levels.astype(np.float32) * scales[:, np.newaxis]


def unpack_sound(packed: bytes | None) -> Vectors | None:
    """The rows, or None where there are none or damaged ones, which an audit shows."""
    rows = None if packed is None else unpack(packed)
    return rows if rows is not None and are_sound(rows) else None


def are_sound(rows: Vectors) -> bool:
    """Whether they are two or more rows, finite and of length 1."""
    if rows.ndim != 2 or len(rows) < 2 or not np.isfinite(rows).all():
        return False
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    return bool((np.abs(lengths - 1) <= _LENGTH_TOLERANCE).all())
