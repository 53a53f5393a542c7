"""Evidence about a recording: where the legs agree, how scores part relevant from other documents, and
how long each part of a search takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from server.evaluation.dataset import Dataset
from server.evaluation.recording import FUSED, RERANKED
from server.evaluation.runs import DEPTH, Rankings

DEPTHS = (10, DEPTH)
BINS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Two legs' first ``depth`` documents.

    ``shared``: mean share of the longer list that both hold. ``both``, ``only_first``, ``only_second``
    and ``neither``: where the relevant documents of all queries are, counted.
    """

    first: str
    second: str
    depth: int
    shared: float
    both: int
    only_first: int
    only_second: int
    neither: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores that a stage gave to relevant documents and to others, counted in bins of equal width from
    ``low`` to ``high``; the medians are None where there are none."""

    stage: str
    low: float
    high: float
    relevant: tuple[int, ...]
    others: tuple[int, ...]
    relevant_median: float | None
    others_median: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds of one part of a search, over the queries that had it."""

    part: str
    median: float
    p95: float
    longest: float


def overlaps(dataset: Dataset, stages: Mapping[str, Rankings]) -> list[Overlap]:
    """Of each two legs, at each of DEPTHS."""
    legs = [name for name in stages if name not in {FUSED, RERANKED}]
    return [
        _overlap(dataset, first, second, stages, depth)
        for first, second in combinations(legs, 2)
        for depth in DEPTHS
    ]


def _overlap(
    dataset: Dataset, first: str, second: str, stages: Mapping[str, Rankings], depth: int
) -> Overlap:
    shares: list[float] = []
    places = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    for query_id in dataset.queries:
        one = set(stages[first][query_id].documents[:depth])
        other = set(stages[second][query_id].documents[:depth])
        shares.append(len(one & other) / max(1, len(one), len(other)))
        for document_id in dataset.relevant(query_id):
            places[document_id in one, document_id in other] += 1
    return Overlap(
        first=first,
        second=second,
        depth=depth,
        shared=sum(shares) / len(shares),
        both=places[True, True],
        only_first=places[True, False],
        only_second=places[False, True],
        neither=places[False, False],
    )


def score_distributions(dataset: Dataset, stages: Mapping[str, Rankings]) -> list[Scores]:
    """Of each stage that scored anything."""
    found = [_scores(dataset, name, rankings) for name, rankings in stages.items()]
    return [scores for scores in found if scores is not None]


def _scores(dataset: Dataset, stage: str, rankings: Rankings) -> Scores | None:
    relevant: list[float] = []
    others: list[float] = []
    for query_id in dataset.queries:
        ranking, wanted = rankings[query_id], dataset.relevant(query_id)
        for document_id, score in zip(ranking.documents, ranking.scores, strict=False):
            (relevant if document_id in wanted else others).append(score)
    every = relevant + others
    if not every:
        return None
    low, high = min(every), max(every)
    return Scores(
        stage=stage,
        low=low,
        high=high,
        relevant=_histogram(relevant, low, high),
        others=_histogram(others, low, high),
        relevant_median=float(np.median(relevant)) if relevant else None,
        others_median=float(np.median(others)) if others else None,
    )


def _histogram(values: Sequence[float], low: float, high: float) -> tuple[int, ...]:
    counts, _ = np.histogram(values, bins=BINS, range=(low, high))
    return tuple(int(count) for count in counts)


def latencies(took: Mapping[str, Sequence[float]]) -> list[Latency]:
    """By part, as they stand in ``took``."""
    return [
        Latency(
            part=part,
            median=float(np.median(values)),
            p95=float(np.quantile(values, 0.95)),
            longest=max(values),
        )
        for part, values in took.items()
    ]
