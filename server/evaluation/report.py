"""Report: all that an evaluation found, as a value that is shown as a table, as JSON or as a page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from server.errors import InvalidInput
from server.evaluation.comparison import Comparison, Pair, compare
from server.evaluation.dataset import Dataset
from server.evaluation.evidence import (
    Latency,
    Overlap,
    Scores,
    latencies,
    overlaps,
    score_distributions,
)
from server.evaluation.measures import NAMES, Values, means, measure_each
from server.evaluation.recording import FUSED, RERANKED
from server.evaluation.runs import Ranking, Rankings, as_run

_DIGITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """``about``: what was measured and how, by name. ``measure``: the one that queries are compared by.

    ``stages``: the runs that were measured, the last being the one that users get; ``baselines``: runs
    from elsewhere. ``values`` has both. ``comparisons``: of the last stage; the first of them is the one
    to show query by query.
    """

    about: Mapping[str, Any]
    dataset: Dataset
    measure: str
    stages: Mapping[str, Rankings]
    baselines: Mapping[str, Rankings]
    values: Mapping[str, Values]
    comparisons: Sequence[Comparison]
    overlaps: Sequence[Overlap] = ()
    scores: Sequence[Scores] = ()
    latencies: Sequence[Latency] = ()
    means: Mapping[str, Mapping[str, float]] = field(init=False)

    def __post_init__(self) -> None:
        found = {name: means(values) for name, values in self.values.items()}
        object.__setattr__(self, "means", found)

    @property
    def final(self) -> str:
        """The stage that users get."""
        return [*self.stages][-1]

    @property
    def rankings(self) -> Mapping[str, Rankings]:
        return {**self.stages, **self.baselines}

    def worst(self) -> list[str]:
        """Query ids by the last stage's value of the measure, the lowest first."""
        values = self.values[self.final][self.measure]
        return sorted(values, key=lambda query_id: (values[query_id], query_id))

    def places(self, query_id: str) -> dict[str, dict[str, int | None]]:
        """Relevant document → run → its rank there, from 1, or None; the best found first."""
        found = {
            document_id: {
                name: rankings[query_id].rank(document_id)
                for name, rankings in self.rankings.items()
            }
            for document_id in self.dataset.relevant(query_id)
        }
        return dict(
            sorted(found.items(), key=lambda each: (each[1][self.final] or float("inf"), each[0]))
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON: ``about`` and the last stage's means beside the rest."""
        return {
            **self.about,
            **_rounded(self.means[self.final]),
            "measure": self.measure,
            "stages": {name: _rounded(self.means[name]) for name in self.stages},
            "baselines": {name: _rounded(self.means[name]) for name in self.baselines},
            "comparisons": [comparison_as_dict(each) for each in self.comparisons],
            "overlaps": [asdict(each) for each in self.overlaps],
            "scores": [asdict(each) for each in self.scores],
            "latencies": [_rounded(asdict(each)) for each in self.latencies],
            "per_query": [self._query(query_id) for query_id in self.dataset.queries],
        }

    def _query(self, query_id: str) -> dict[str, Any]:
        return {
            "id": query_id,
            "text": self.dataset.queries[query_id],
            "values": _rounded(
                {name: values[self.measure][query_id] for name, values in self.values.items()}
            ),
            "deltas": _rounded({each.baseline: each.deltas[query_id] for each in self.comparisons}),
            "ranks": self.places(query_id),
        }


def comparison_as_dict(comparison: Comparison) -> dict[str, Any]:
    """Without the single queries."""
    return {
        "run": comparison.run,
        "baseline": comparison.baseline,
        "measure": comparison.measure,
        **_rounded(asdict(comparison.paired), digits=6),
        "p_adjusted": round(comparison.p_adjusted, 6),
        "better": comparison.better,
        "equal": len(comparison.deltas) - comparison.better - comparison.worse,
        "worse": comparison.worse,
    }


def make_report(
    dataset: Dataset,
    stages: Mapping[str, Rankings],
    *,
    about: Mapping[str, Any],
    measure: str = NAMES[0],
    baselines: Mapping[str, Rankings] | None = None,
    against: Sequence[str] = (),
    took: Mapping[str, Sequence[float]] | None = None,
) -> Report:
    """Measure the stages and the baselines, and compare the last stage.

    ``against``: the names of the runs to compare it with; none given: with each baseline, or else with
    each earlier stage, the best leg first. Raises InvalidInput for a name that is not among the runs,
    and for a run that has none of the queries.
    """
    stages, baselines = (
        {name: _of_queries(dataset, name, run) for name, run in given.items()}
        for given in (stages, baselines or {})
    )
    runs = {**stages, **baselines}
    values = {name: measure_each(dataset.qrels, as_run(run)) for name, run in runs.items()}
    final = [*stages][-1]
    chosen = against or [*baselines] or _earlier(stages, values, measure)
    for name in chosen:
        if name not in runs or name == final:
            others = ", ".join(each for each in runs if each != final) or "no other"
            raise InvalidInput(f"There is no run {name!r} to compare {final} with, but {others}.")
    pairs = [
        Pair(final, name, values[final][measure], values[name][measure])
        for name in dict.fromkeys(chosen)
    ]
    return Report(
        about=about,
        dataset=dataset,
        measure=measure,
        stages=stages,
        baselines=baselines,
        values=values,
        comparisons=compare(pairs, measure=measure),
        overlaps=overlaps(dataset, stages),
        scores=score_distributions(dataset, stages),
        latencies=latencies(took or {}),
    )


def _of_queries(dataset: Dataset, name: str, run: Rankings) -> Rankings:
    """A run of exactly the judged queries; one that it lacks found nothing."""
    if not dataset.queries.keys() & run.keys():
        raise InvalidInput(f"The run {name} has none of the judged queries; are the ids the same?")
    return {query_id: run.get(query_id, Ranking()) for query_id in dataset.queries}


def _earlier(
    stages: Mapping[str, Rankings], values: Mapping[str, Values], measure: str
) -> list[str]:
    """All stages but the last, the best leg first: it is what the others must not fall below."""
    earlier = [*stages][:-1]
    value = {name: means(values[name])[measure] for name in earlier}
    return sorted(earlier, key=lambda name: (name in {FUSED, RERANKED}, -value[name]))


def _rounded(figures: Mapping[str, Any], *, digits: int = _DIGITS) -> dict[str, Any]:
    return {
        name: round(value, digits) if isinstance(value, float) else value
        for name, value in figures.items()
    }
