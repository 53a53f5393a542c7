"""Sparse weights as bytes: near what they were, the same in every store, and never trusted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.sparse import (
    DAMAGED,
    EMPTY,
    MAX_WEIGHT,
    MIN_WEIGHT,
    SparseWeights,
    as_json,
    pack,
    unpack,
    unpack_many,
    unpack_sound,
)

weights = st.dictionaries(
    st.integers(0, 2**31 - 1),
    st.floats(np.float32(MIN_WEIGHT), MAX_WEIGHT, width=32, exclude_min=True),
    max_size=60,
).map(SparseWeights.of)


@given(weights)
def test_they_stay_near_and_pack_to_the_same_bytes_again(given: SparseWeights) -> None:
    assert given.sound
    packed = pack(given)
    kept = unpack(packed)
    assert kept.sound
    assert kept.ids.tolist() == given.ids.tolist()
    assert kept.weights == pytest.approx(given.weights, rel=1 / 512)
    assert pack(kept) == packed
    assert len(packed) == 4 + 6 * len(given.ids)
    assert as_json(given) == {str(each): weight for each, weight in kept.as_dict().items()}


@given(weights, st.data())
def test_damage_is_seen(given: SparseWeights, data: st.DataObject) -> None:
    packed = pack(given)
    broken = bytearray(packed)
    at = data.draw(st.integers(0, len(packed) - 1))
    broken[at] ^= data.draw(st.integers(1, 255))
    cut = packed[: data.draw(st.integers(0, len(packed) - 1))]
    for bad in (bytes(broken), cut):
        assert not unpack(bad).sound
        assert unpack_sound(bad) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_sound_or_damaged(packed: bytes) -> None:
    found = unpack(packed)
    assert found.sound or found is DAMAGED


@given(st.lists(weights | st.binary(max_size=20), max_size=8))
def test_many_are_read_as_each_is(given: list[SparseWeights | bytes]) -> None:
    packed = [each if isinstance(each, bytes) else pack(each) for each in given]
    counts, ids, found, sound = unpack_many(packed)
    assert counts.sum() == len(ids) == len(found)
    ends = np.cumsum(counts)
    for one, count, end, whole in zip(packed, counts, ends, sound, strict=True):
        wanted = unpack_sound(one)
        assert whole == (wanted is not None)
        read = dict(
            zip(ids[end - count : end].tolist(), found[end - count : end].tolist(), strict=True)
        )
        assert read == ({} if wanted is None else wanted.as_dict())


def test_none_is_not_damage() -> None:
    assert unpack_sound(None) is None
    assert unpack(pack(EMPTY)).as_dict() == {}
