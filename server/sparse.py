"""Sparse weights: how much each token of a text says of it, as a model learned (BGE-M3's lexical weights).

Stores keep a weight in the 16 bits that Lucene's feature fields have for it, a float32 without its sign
and its last 15 bits. It is rounded to them once, before it is stored (by less than 1/500 of itself), so
that every store has the same numbers, and what was kept is kept as it is.

The bytes of ``pack``, little-endian: uint32 CRC-32 of what follows, int32 (n) ids, uint16 (n) weights.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_TOKENS = 65_536  # that a text has weights of; models read fewer
MAX_WEIGHT = 65_536.0
MIN_WEIGHT = float(np.finfo(np.float32).tiny)  # feature fields take no smaller one
_SHIFT = 15
_HEADER = 4
_ENTRY = 6


@dataclass(frozen=True, slots=True, eq=False)
class SparseWeights:
    """``ids``: the tokens' numbers in the model's vocabulary, int32 (n,), ascending, each once.
    ``weights``: float32 (n,), above 0. Of a text that says nothing there are none.
    """

    ids: NDArray[np.int32]
    weights: NDArray[np.float32]

    @classmethod
    def of(cls, weights: Mapping[int, float]) -> "SparseWeights":
        ids = np.array(sorted(weights), dtype=np.int32)
        return cls(ids, np.array([weights[int(each)] for each in ids], dtype=np.float32))

    def as_dict(self) -> dict[int, float]:
        return dict(zip(self.ids.tolist(), self.weights.tolist(), strict=True))

    @property
    def sound(self) -> bool:
        """Whether they are as the class says, and a store can keep them."""
        ids, weights = self.ids, self.weights
        if ids.ndim != 1 or ids.shape != weights.shape or len(ids) > MAX_TOKENS:
            return False
        if ids.dtype != np.int32 or weights.dtype != np.float32:
            return False
        rising = bool((ids[:1] >= 0).all() and (ids[1:] > ids[:-1]).all())
        # False for NaN too.
        return rising and bool(((weights >= MIN_WEIGHT) & (weights <= MAX_WEIGHT)).all())

    def rounded(self) -> "SparseWeights":
        """As stores keep them: to the nearest number that 16 bits hold, ties to the even one."""
        bits = self.weights.view(np.uint32)
        half = np.uint32((1 << (_SHIFT - 1)) - 1) + ((bits >> _SHIFT) & np.uint32(1))
        kept = (bits + half) >> _SHIFT << _SHIFT
        return SparseWeights(self.ids, kept.astype(np.uint32).view(np.float32))


_NONE = np.array([], dtype=np.int32), np.array([], dtype=np.float32)
EMPTY = SparseWeights(*_NONE)
# What an audit shows of weights that can't be read: never sound.
DAMAGED = SparseWeights(np.array([-1], dtype=np.int32), np.array([np.nan], dtype=np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """What an embedder made of a text. ``vector``: float32 (dimensions,), of length 1. ``sparse``: None
    where the embedder, or the recipe, has no sparse weights."""

    vector: NDArray[np.float32]
    sparse: SparseWeights | None = None


def pack(weights: SparseWeights) -> bytes:
    """The bytes of sound weights, rounded."""
    bits = weights.rounded().weights.view(np.uint32) >> _SHIFT
    body = weights.ids.astype("<i4").tobytes() + bits.astype("<u2").tobytes()
    return zlib.crc32(body).to_bytes(_HEADER, "little") + body


def unpack(packed: bytes) -> SparseWeights:
    """What ``pack`` packed, or DAMAGED."""
    if not _is_whole(packed):
        return DAMAGED
    body = packed[_HEADER:]
    count = len(body) // _ENTRY
    ids = np.frombuffer(body, "<i4", count).astype(np.int32)
    found = SparseWeights(ids, _floats(body[4 * count :]))
    return found if found.sound else DAMAGED


def unpack_sound(packed: bytes | None) -> SparseWeights | None:
    """The weights, or None where there are none or damaged ones, which an audit shows."""
    found = None if packed is None else unpack(packed)
    return found if found is not None and found.sound else None


def as_json(weights: SparseWeights) -> dict[str, float]:
    """Token's number → weight, rounded."""
    kept = weights.rounded()
    return dict(zip(map(str, kept.ids.tolist()), kept.weights.tolist(), strict=True))


def unpack_many(
    packed: Sequence[bytes],
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32], NDArray[np.bool_]]:
    """How many entries each has, all their ids and weights in turn, and which can be read; the others
    have no entries."""
    sound = np.array([_is_whole(each) for each in packed], dtype=np.bool_)
    bodies = [each[_HEADER:] for each, whole in zip(packed, sound, strict=True) if whole]
    counts = np.zeros(len(packed), dtype=np.int64)
    counts[sound] = [len(body) // _ENTRY for body in bodies]
    ids = b"".join(body[: len(body) // _ENTRY * 4] for body in bodies)
    bits = b"".join(body[len(body) // _ENTRY * 4 :] for body in bodies)
    return counts, np.frombuffer(ids, "<i4").astype(np.int32), _floats(bits), sound


def _is_whole(packed: bytes) -> bool:
    body = packed[_HEADER:]
    whole = len(packed) >= _HEADER and len(body) % _ENTRY == 0
    return whole and zlib.crc32(body) == int.from_bytes(packed[:_HEADER], "little")


def _floats(bits: bytes) -> NDArray[np.float32]:
    found = np.frombuffer(bits, "<u2").astype(np.uint32) << _SHIFT
    weights: NDArray[np.float32] = found.astype(np.uint32).view(np.float32)
    return weights
