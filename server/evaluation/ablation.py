"""Ablation: what each variant of the profile gains or costs on each set."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.evaluation.comparison import Comparison, Pair, compare
from server.evaluation.measures import measure_each
from server.evaluation.recording import record
from server.evaluation.report import comparison_as_dict
from server.evaluation.runs import Ranking, as_run
from server.evaluation.significance import ALPHA
from server.evaluation.variants import DEFAULT, JudgedSet
from server.hits import Mode
from server.retrieval.profile import Profile
from server.retrieval.searcher import Searcher

Query = tuple[str, str]  # id and text


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A set's values by variant and query id, of one measure. ``degraded``: searches that lacked a
    stage, by stage and reason."""

    name: str
    values: Mapping[str, Mapping[str, Mapping[str, float]]]
    degraded: Mapping[tuple[str, str], int]


def measure_set(
    searcher: Searcher,
    judged: JudgedSet,
    variants: Mapping[str, Profile],
    *,
    measures: Sequence[str],
    queries: Iterable[Query],
    mode: Mode = "hybrid",
    rerank: bool = True,
) -> Measured:
    """Search every query by every variant in turn, so that its vector is made once.

    Raises what Searcher.search raises.
    """
    runs: dict[str, dict[str, Ranking]] = {name: {} for name in variants}
    degraded: dict[tuple[str, str], int] = {}
    for query in queries:
        for name, profile in variants.items():
            recording = record(
                searcher,
                [query],
                collection=judged.collection,
                mode=mode,
                rerank=rerank,
                profile=profile,
                highlight=False,
            )
            *_, final = recording.stages.values()
            runs[name].update(final)
            for lacking, count in recording.degraded.items():
                degraded[lacking] = degraded.get(lacking, 0) + count
    each = {name: measure_each(judged.dataset.qrels, as_run(run)) for name, run in runs.items()}
    return Measured(
        name=judged.name,
        values={
            measure: {name: values[measure] for name, values in each.items()}
            for measure in measures
        },
        degraded=degraded,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """Every variant against the defaults on every set, by one measure. ``compared``: set → variant →
    comparison; all p values are adjusted together. ``means``: set → variant → mean."""

    measure: str
    means: Mapping[str, Mapping[str, float]]
    compared: Mapping[str, Mapping[str, Comparison]]

    def as_dict(self) -> dict[str, Any]:
        return {
            "measure": self.measure,
            "means": {
                name: {variant: round(mean, 4) for variant, mean in row.items()}
                for name, row in self.means.items()
            },
            "compared": {
                name: {variant: comparison_as_dict(each) for variant, each in row.items()}
                for name, row in self.compared.items()
            },
        }

    def as_markdown(self) -> str:
        """Sets as columns, variants as rows: the mean of the defaults, and the difference of the others,
        bold where it is significant."""
        sets = [*self.means]
        variants = [*self.means[sets[0]]]
        lines = [
            f"| {self.measure} | {' | '.join(sets)} |",
            f"|{' --- |' * (len(sets) + 1)}",
        ]
        for variant in variants:
            cells = " | ".join(self._cell(name, variant) for name in sets)
            lines.append(f"| {_escaped(variant)} | {cells} |")
        return "\n".join(lines)

    def _cell(self, name: str, variant: str) -> str:
        mean = self.means[name][variant]
        if variant == DEFAULT:
            return _short(mean)
        comparison = self.compared[name][variant]
        difference = comparison.paired.difference
        sign = "+" if difference > 0 else "−" if difference < 0 else "±"
        cell = f"{_short(mean)} ({sign}{_short(abs(difference))})"
        return f"**{cell}**" if comparison.p_adjusted < ALPHA else cell


def ablation(sets: Sequence[Measured], *, measure: str) -> Ablation:
    """Compare what was measured; at least one set."""
    pairs = [
        (each.name, Pair(variant, DEFAULT, values, each.values[measure][DEFAULT]))
        for each in sets
        for variant, values in each.values[measure].items()
        if variant != DEFAULT
    ]
    comparisons = compare([pair for _, pair in pairs], measure=measure)
    compared: dict[str, dict[str, Comparison]] = {each.name: {} for each in sets}
    for (name, pair), comparison in zip(pairs, comparisons, strict=True):
        compared[name][pair.run] = comparison
    means = {
        each.name: {
            variant: sum(values.values()) / len(values)
            for variant, values in each.values[measure].items()
        }
        for each in sets
    }
    return Ablation(measure=measure, means=means, compared=compared)


def _short(value: float) -> str:
    """Three digits without the 0 before the point, as the README has them."""
    return f"{value:.3f}".removeprefix("0")


def _escaped(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
