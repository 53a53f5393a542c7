"""Whether a difference between two runs is more than chance, paired by query.

The two-sided randomisation test (Fisher 1935) asks how often swapping the two runs at random, query by
query, makes as large a difference of means. Smucker, Allan and Carterette (CIKM 2007) found that it agrees
with Student's t test and, unlike that, assumes nothing of how measures are distributed; so it is the only
test here, in numpy. The interval is the percentile bootstrap's over queries (Efron 1979).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROUNDS = 20_000  # of each; the smallest p that can come out is 1 in as many
CONFIDENCE = 0.95
ALPHA = 0.05

_SEED = 2007
_CELLS = 4_000_000  # random numbers held at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """``difference``: mean of ours less theirs; ``low`` to ``high``: its interval; ``p``: two-sided."""

    difference: float
    low: float
    high: float
    p: float


def paired(ours: Sequence[float], theirs: Sequence[float], *, rounds: int = ROUNDS) -> Paired:
    """Compare two runs by their values of the same queries, in the same order; at least one query.

    Deterministic: the random numbers have a fixed seed.
    """
    deltas = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    low, high = _interval(deltas, rounds)
    return Paired(
        difference=float(deltas.mean()), low=low, high=high, p=_randomisation(deltas, rounds)
    )


def holm(ps: Sequence[float]) -> list[float]:
    """The p values of several comparisons, adjusted so that the chance of any false alarm among them
    stays at the level that each is held against (Holm 1979); in the same order."""
    adjusted = [1.0] * len(ps)
    floor = 0.0
    for place, at in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        floor = max(floor, min(1.0, ps[at] * (len(ps) - place)))
        adjusted[at] = floor
    return adjusted


def _randomisation(deltas: NDArray[np.float64], rounds: int) -> float:
    """Counts the observed assignment as one of the rounds, so that p is never 0 (Phipson and Smyth 2010)."""
    moved = deltas[deltas != 0]  # the others are the same either way
    if not moved.size:
        return 1.0
    seen = abs(moved.sum()) - 1e-9  # sums in another order differ in their last digits
    generator = np.random.default_rng(_SEED)
    as_large = 0
    for count in _batches(rounds, moved.size):
        swapped = generator.integers(0, 2, (count, moved.size), dtype=np.int8)
        sums = moved.sum() - 2 * (swapped.astype(np.float64) @ moved)
        as_large += int((np.abs(sums) >= seen).sum())
    return (as_large + 1) / (rounds + 1)


def _interval(deltas: NDArray[np.float64], rounds: int) -> tuple[float, float]:
    generator = np.random.default_rng(_SEED)
    means = [
        deltas[generator.integers(0, deltas.size, (count, deltas.size), dtype=np.int32)].mean(
            axis=1
        )
        for count in _batches(rounds, deltas.size)
    ]
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means), (outside, 1 - outside))
    return float(low), float(high)


def _batches(rounds: int, width: int) -> list[int]:
    whole = max(1, _CELLS // width)
    return [min(whole, rounds - at) for at in range(0, rounds, whole)]
