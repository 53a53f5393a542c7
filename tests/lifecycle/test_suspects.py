"""Suspects become certain only if the same stands, look after look, at one revision."""

from itertools import accumulate, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.lifecycle.findings import Finding, Kind
from server.lifecycle.suspects import Patience, Suspect

PATIENCE = Patience(looks=3, seconds=2.0, unfinished=30.0, busy=10.0)


def finding(kind: Kind) -> tuple[Finding, ...]:
    return (Finding(kind=kind, document_id="a", detail=""),)


STALE, UNFINISHED = finding(Kind.STALE_CHUNK), finding(Kind.INCOMPLETE_WRITE)
LOOKS = st.tuples(
    st.sampled_from([0.0, 0.5, 1.0, 4.0, 20.0]),  # seconds after the look before
    st.sampled_from([1, 1, 1, 2]),
    st.sampled_from([STALE, STALE, UNFINISHED]),
)


@given(st.lists(LOOKS, min_size=1, max_size=12))
def test_it_stands_when_the_last_looks_were_the_same_for_long_enough(
    looks: list[tuple[float, int, tuple[Finding, ...]]],
) -> None:
    times = list(accumulate(after for after, _, _ in looks))
    seen = [look[1:] for look in looks]
    suspect = Suspect.new("a", *seen[0], times[0])
    for now, (revision, findings) in zip(times[1:], seen[1:], strict=True):
        suspect = suspect.seen(revision, findings, now, PATIENCE)
        assert suspect.due > now
    same = list(takewhile(lambda each: each == seen[-1], reversed(seen)))
    stood = times[-1] - times[-len(same)]
    needed = 30.0 if seen[-1][1] == UNFINISHED else 2.0
    assert suspect.stands(times[-1], PATIENCE) is (len(same) >= 3 and stood >= needed)


def test_a_document_that_changes_all_the_time_is_left_to_its_writers() -> None:
    suspect = Suspect.new("a", 1, STALE, 0.0)
    for now in range(1, 12):
        suspect = suspect.seen(now + 1, STALE, float(now), PATIENCE)
        assert not suspect.is_busy(float(now), PATIENCE)
    suspect = suspect.seen(20, STALE, 13.0, PATIENCE)
    assert suspect.is_busy(13.0, PATIENCE)


def test_one_that_nobody_changes_is_never_busy() -> None:
    suspect = Suspect.new("a", 1, UNFINISHED, 0.0)
    suspect = suspect.seen(1, UNFINISHED, 1000.0, PATIENCE)
    assert not suspect.is_busy(1000.0, PATIENCE)


def test_looks_at_what_stands_for_long_grow_rarer() -> None:
    suspect, now, count = Suspect.new("a", 1, UNFINISHED, 0.0), 0.0, 1
    while not suspect.stands(now, Patience(unfinished=300.0)):
        suspect, count = suspect.seen(1, UNFINISHED, now, Patience()), count + 1
        assert suspect.due - now <= 10.0
        now = suspect.due
    assert count < 60


def test_after_mending_it_has_to_be_certain_again() -> None:
    suspect = Suspect.new("a", 1, STALE, 0.0)
    for now in (1.0, 2.0):
        suspect = suspect.seen(1, STALE, now, PATIENCE)
    assert suspect.stands(2.0, PATIENCE)
    suspect = suspect.mended("The embedder is gone.", 3.0)
    assert (suspect.certain, suspect.attempts) == (STALE, 1)
    for now, stands in ((3.0, False), (4.0, False), (5.0, True)):
        suspect = suspect.seen(1, STALE, now, PATIENCE)
        assert suspect.stands(now, PATIENCE) is stands
    assert suspect.reason == "The embedder is gone."


@pytest.mark.parametrize("looks", [1, 2])
def test_fewer_looks_may_be_asked_for(looks: int) -> None:
    patience = Patience(looks=looks, seconds=0.0)
    suspect = Suspect.new("a", 1, STALE, 0.0).seen(1, STALE, 0.0, patience)
    assert suspect.stands(0.0, patience)
