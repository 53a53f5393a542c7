"""Folds: every query in one of them, and the same ones each time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidInput
from server.evaluation.folds import folds


@given(st.sets(st.text(max_size=4), min_size=2, max_size=40), st.integers(2, 8), st.integers())
def test_queries_are_dealt_out_evenly_whatever_their_order(
    ids: set[str], count: int, seed: int
) -> None:
    count = min(count, len(ids))
    made = folds(ids, count, seed=seed)
    assert sorted(each for part in made for each in part) == sorted(ids)
    assert max(map(len, made)) - min(map(len, made)) <= 1
    assert made == folds(sorted(ids, reverse=True), count, seed=seed)


def test_another_seed_deals_otherwise() -> None:
    ids = [str(number) for number in range(50)]
    assert folds(ids, 5, seed=1) != folds(ids, 5, seed=2)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_folds_that_cannot_be_are_refused(count: int) -> None:
    with pytest.raises(InvalidInput, match="from 2 to the number of judged queries, 3"):
        folds(["a", "b", "c"], count, seed=0)
