"""Measures of a run against judgements, by trec_eval's own code through ir_measures."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from server.evaluation.dataset import Qrels
from server.evaluation.runs import Run

if TYPE_CHECKING:
    from ir_measures.measures import Measure

NAMES = ("nDCG@10", "MRR@10", "Recall@10", "Recall@100")

Values = dict[str, dict[str, float]]  # measure → query id → value


def measure(qrels: Qrels, run: Run) -> dict[str, float]:
    """Means over all judged queries; one that the run lacks counts as 0. nDCG's gain is linear."""
    return means(measure_each(qrels, run))


def means(values: Values) -> dict[str, float]:
    """Over the queries, of each measure."""
    return {name: sum(each.values()) / len(each) for name, each in values.items()}


def measure_each(qrels: Qrels, run: Run) -> Values:
    """Measure → query id → value, for every judged query."""
    import ir_measures  # noqa: PLC0415 - takes .4 s, and only evaluation needs it
    from ir_measures import RR, R, nDCG  # noqa: PLC0415

    measures: Mapping[str, Measure] = dict(
        zip(NAMES, (nDCG @ 10, RR @ 10, R @ 10, R @ 100), strict=True)
    )
    names = {str(value): name for name, value in measures.items()}
    values = {name: dict.fromkeys(qrels, 0.0) for name in NAMES}
    for metric in ir_measures.iter_calc(list(measures.values()), qrels, run):
        values[names[str(metric.measure)]][metric.query_id] = metric.value
    return values
