"""Comparison: two runs against each other, query by query."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.evaluation.significance import Paired, holm, paired


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What ``run`` gained over ``baseline`` by one measure.

    ``deltas``: by query id, above 0 where ``run`` is better. ``p_adjusted``: ``paired.p`` corrected for
    all comparisons that were made together.
    """

    run: str
    baseline: str
    measure: str
    deltas: Mapping[str, float]
    paired: Paired
    p_adjusted: float

    @property
    def better(self) -> int:
        return sum(delta > 0 for delta in self.deltas.values())

    @property
    def worse(self) -> int:
        return sum(delta < 0 for delta in self.deltas.values())

    def losses(self) -> list[str]:
        """Ids of the queries that lost, the largest loss first."""
        lost = [query_id for query_id, delta in self.deltas.items() if delta < 0]
        return sorted(lost, key=lambda query_id: (self.deltas[query_id], query_id))

    def gains(self) -> list[str]:
        """Ids of the queries that gained, the largest gain first."""
        won = [query_id for query_id, delta in self.deltas.items() if delta > 0]
        return sorted(won, key=lambda query_id: (-self.deltas[query_id], query_id))


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs by their names and their values of a measure, by query id; the same queries in both."""

    run: str
    baseline: str
    ours: Mapping[str, float]
    theirs: Mapping[str, float]


def compare(pairs: Sequence[Pair], *, measure: str) -> list[Comparison]:
    """Compare each pair; their p values are adjusted together."""
    tests = [
        paired([*pair.ours.values()], [pair.theirs[query_id] for query_id in pair.ours])
        for pair in pairs
    ]
    adjusted = holm([test.p for test in tests])
    return [
        Comparison(
            run=pair.run,
            baseline=pair.baseline,
            measure=measure,
            deltas={
                query_id: value - pair.theirs[query_id] for query_id, value in pair.ours.items()
            },
            paired=test,
            p_adjusted=p,
        )
        for pair, test, p in zip(pairs, tests, adjusted, strict=True)
    ]
