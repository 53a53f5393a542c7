"""Vectors of windows as bytes: small, near what they were, and never trusted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.documents import Vectors
from server.errors import InvalidInput
from server.stores.windows import are_sound, pack, unpack, unpack_sound


def directions(count: int, dimensions: int, seed: int, spread: float = 1.0) -> Vectors:
    """Rows of length 1; with a larger ``spread`` a few numbers of a row outweigh the others."""
    rows = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    rows = np.sign(rows) * np.abs(rows) ** spread
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


sizes = st.tuples(st.integers(2, 64), st.integers(1, 1_100), st.integers(0, 2**32))


@given(sizes, st.sampled_from((0.3, 1.0, 2.0)))
def test_a_cosine_stays_what_it_was(size: tuple[int, int, int], spread: float) -> None:
    count, dimensions, seed = size
    rows = directions(count, dimensions, seed, spread)
    kept = unpack(pack(rows))
    assert (kept.dtype, kept.shape) == (np.float32, rows.shape)
    assert (kept * rows).sum(axis=1) == pytest.approx(1, abs=0.003)
    if dimensions >= 128:
        query = directions(1, dimensions, seed + 1)[0]
        assert kept @ query == pytest.approx(rows @ query, abs=0.003 * max(1.0, spread))


@given(sizes)
def test_what_was_unpacked_packs_to_the_same_bytes(size: tuple[int, int, int]) -> None:
    packed = pack(directions(*size))
    assert pack(unpack(packed)) == packed
    assert len(packed) == 4 + size[0] * (4 + size[1])


def test_rows_of_one_number_and_of_equal_ones() -> None:
    for rows in (np.eye(3, 5), np.full((2, 16), -0.25)):
        assert unpack(pack(rows.astype(np.float32))) == pytest.approx(rows, abs=1e-6)


@pytest.mark.parametrize(
    "rows",
    [np.zeros((0, 4)), np.eye(1), np.zeros((2, 4)), np.ones((2, 4)), np.full((2, 2), np.nan), np.eye(4)[0]],
    ids=["none", "one", "zero", "long", "nan", "vector"],
)  # fmt: skip
def test_what_is_no_windows_is_not_packed(rows: Vectors) -> None:
    with pytest.raises(InvalidInput):
        pack(rows.astype(np.float32))


@given(st.binary(max_size=200))
def test_any_bytes_are_sound_rows_or_none(packed: bytes) -> None:
    assert unpack(packed).ndim == 2
    found = unpack_sound(packed)
    assert found is None or are_sound(found)


@given(sizes, st.data())
def test_damage_is_seen(size: tuple[int, int, int], data: st.DataObject) -> None:
    packed = pack(directions(*size))
    cut = data.draw(st.integers(0, size[0] * 4))  # within the count and the scales
    assert unpack_sound(packed[:cut]) is None
    scaled = bytearray(packed)
    row = data.draw(st.integers(0, size[0] - 1))
    scale = data.draw(st.sampled_from((0.0, float("nan"), float("inf"), -1.0, 1e30)))
    scaled[4 + 4 * row : 8 + 4 * row] = np.float32(scale).tobytes()
    if abs(scale) != 1 or size[1] > 1:
        assert unpack_sound(bytes(scaled)) is None
    assert unpack_sound(None) is None
