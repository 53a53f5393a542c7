"""Paired tests: what they say of differences that are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.evaluation.comparison import Pair, compare
from server.evaluation.significance import holm, paired

values = st.lists(
    st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)), min_size=1, max_size=30
)


@settings(max_examples=40)
@given(values)
def test_the_order_of_the_two_runs_only_turns_the_sign(pairs):
    ours, theirs = zip(*pairs, strict=True)

    one, other = (paired(*runs, rounds=300) for runs in ((ours, theirs), (theirs, ours)))

    assert one.p == other.p
    assert 0 < one.p <= 1
    assert one.difference == pytest.approx(-other.difference)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.low <= one.high


def test_equal_runs_do_not_differ():
    same = paired([0.5, 1.0, 0.0], [0.5, 1.0, 0.0])

    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)


@pytest.mark.parametrize(("gained", "p"), [(3, 2 / 8), (5, 2 / 32), (8, 2 / 256)])
def test_of_n_like_gains_all_signs_agree_in_two_of_2_to_the_n_swaps(gained, p):
    found = paired([0.7] * gained + [0.2] * 50, [0.4] * gained + [0.2] * 50)

    assert found.p == pytest.approx(p, rel=0.15)


def test_a_steady_gain_is_significant_and_a_mixed_one_is_not():
    base = np.linspace(0, 0.8, 100)
    noise = np.tile([0.1, -0.1], 50)

    steady, mixed = paired(base + 0.05, base), paired(base + noise, base)

    assert steady.p < 0.001
    assert steady.low <= 0.05 <= steady.high + 1e-9
    assert mixed.p > 0.9
    assert mixed.low < 0 < mixed.high


def test_false_alarms_are_as_frequent_as_the_level():
    generator = np.random.default_rng(1)
    alarms = [
        paired(generator.exponential(size=25), generator.exponential(size=25), rounds=300).p < 0.1
        for _ in range(300)
    ]

    assert sum(alarms) / 300 == pytest.approx(0.1, abs=0.05)


def test_the_interval_is_the_normal_one_where_there_are_many_queries():
    deltas = np.random.default_rng(2).normal(0.02, 0.1, 1000)

    found = paired(deltas, np.zeros(1000))

    half = 1.96 * deltas.std() / np.sqrt(1000)
    assert found.high - found.difference == pytest.approx(half, rel=0.1)
    assert found.difference - found.low == pytest.approx(half, rel=0.1)


def test_holms_correction_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=20))
def test_correction_never_makes_a_value_smaller_nor_turns_their_order(ps):
    adjusted = holm(ps)

    assert all(p <= after <= 1 for p, after in zip(ps, adjusted, strict=True))
    order = sorted(range(len(ps)), key=ps.__getitem__)
    assert [adjusted[at] for at in order] == sorted(adjusted)


def test_queries_are_paired_by_their_ids_and_sorted_by_what_they_gained():
    ours = {"a": 1.0, "b": 0.0, "c": 0.5, "d": 0.5}
    theirs = {"d": 0.2, "c": 0.5, "b": 1.0, "a": 0.4}

    (found,) = compare([Pair("new", "old", ours, theirs)], measure="nDCG@10")

    assert found.deltas == pytest.approx({"a": 0.6, "b": -1.0, "c": 0.0, "d": 0.3})
    assert (found.better, found.worse) == (2, 1)
    assert (found.gains(), found.losses()) == (["a", "d"], ["b"])
    assert found.p_adjusted == found.paired.p
