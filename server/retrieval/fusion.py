"""Fusion of ranked lists: pure and deterministic, ties broken by chunk id.

Log-odds: each list's scores are turned into log-odds of relevance and summed, so that the weight of a list
follows the query. A cosine over the temperature that its model was trained with is one up to a constant
(InfoNCE; van den Oord, Li and Vinyals, arXiv:1807.03748), and so is a product of sparse weights at the
share that it had beside the cosine in that training; BM25 is one by derivation (Robertson and
Zaragoza, Foundations and Trends in IR 3, 2009), as a share of all that the query's words could give.
Weighted reciprocal rank fusion after Cormack, Clarke and Büttcher (SIGIR 2009); the convex combination
of min-max-normalised scores after Bruch, Gai and Ingber (ACM TOIS 42, 2023). DECISIONS.md says why the
first is the default.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from server.errors import InvalidInput
from server.hits import Ranker
from server.stores.contract import MAX_DEPTH

Method = Literal["log_odds", "rrf", "convex"]
Ranked = Sequence[tuple[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """How the retrievers' lists become one.

    ``bm25``, ``vector`` and ``sparse`` weigh the lists; of collections without sparse weights there is no
    list of these. ``window`` is the depth of each list that enters
    (rank_window_size). ``rank_constant`` is RRF's k. Raises InvalidInput.
    """

    method: Method = "log_odds"
    bm25: float = 1.0
    vector: float = 1.0
    sparse: float = 1.0
    rank_constant: int = 60
    window: int = 200

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise InvalidInput(f"fusion is one of {', '.join(get_args(Method))}.", field="fusion")
        weights = (self.bm25, self.vector, self.sparse)
        finite = all(math.isfinite(weight) and weight >= 0 for weight in weights)
        if not finite or not (self.bm25 or self.vector):
            raise InvalidInput(
                "The weights of fusion are at least 0, and bm25 and vector not both 0.",
                field="fusion",
            )
        if self.rank_constant < 1 or not 1 <= self.window <= MAX_DEPTH:
            raise InvalidInput(
                f"rank_constant is at least 1 and window from 1 to {MAX_DEPTH:,}.", field="fusion"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """What one point of a list's score is worth for this query, in log-odds of relevance."""

    bm25: float = 1.0
    vector: float = 1.0
    sparse: float = 1.0


def fuse(
    lists: Mapping[Ranker, Ranked], fusion: Fusion, worth: Worth | None = None
) -> list[tuple[str, float]]:
    """Merge lists of (chunk id, score), each by falling score, into one by falling fused score.

    ``lists`` may hold "bm25", "vector" and "sparse". ``worth`` is for log-odds alone. A chunk that a
    list lacks gets nothing from it; by log-odds, what the last of a list that was cut has. Fused scores
    lie in [0, 1] for the convex combination. Inputs are not changed.
    """
    weights: dict[Ranker, float] = {
        "bm25": fusion.bm25,
        "vector": fusion.vector,
        "sparse": fusion.sparse,
    }
    fused: dict[str, float] = {}
    if fusion.method == "log_odds":
        fused = log_odds(lists, fusion, worth or Worth())
    else:
        score = _reciprocal_ranks if fusion.method == "rrf" else _normalised
        order = _in_order(lists, weights)
        whole = sum(weights[name] for name in order) if fusion.method == "convex" else 1.0
        for name in order:
            share = weights[name] / whole if whole else 0.0
            for chunk_id, value in score(lists[name][: fusion.window], fusion.rank_constant):
                fused[chunk_id] = fused.get(chunk_id, 0.0) + share * value
    return sorted(fused.items(), key=lambda item: (-item[1], item[0]))


def log_odds(lists: Mapping[Ranker, Ranked], fusion: Fusion, worth: Worth) -> dict[str, float]:
    """Chunk id → the sum of what each list says of it."""
    parts = contributions(lists, fusion, worth)
    return {
        chunk_id: sum(own.get(chunk_id, floor) for own, floor in parts.values())
        for own, _ in parts.values()
        for chunk_id in own
    }


def contributions(
    lists: Mapping[Ranker, Ranked], fusion: Fusion, worth: Worth
) -> dict[Ranker, tuple[dict[str, float], float]]:
    """By list: chunk id → its log-odds, and those of a chunk that the list lacks.

    A list that was cut could have given as much as it gave its last; one of all matches gives others
    nothing. The kNN list leaves out none but for its length.
    """
    points: dict[Ranker, float] = {
        "bm25": fusion.bm25 * worth.bm25,
        "vector": fusion.vector * worth.vector,
        "sparse": fusion.sparse * worth.sparse,
    }
    parts: dict[Ranker, tuple[dict[str, float], float]] = {}
    for name in _in_order(lists, points):
        entering = lists[name][: fusion.window]
        cut = name == "vector" or len(entering) == fusion.window
        floor = min((score for _, score in entering), default=0.0) if cut else 0.0
        each = points[name]
        parts[name] = ({chunk_id: each * score for chunk_id, score in entering}, each * floor)
    return parts


def _in_order(lists: Mapping[Ranker, Ranked], order: Mapping[Ranker, float]) -> list[Ranker]:
    """So that sums of three are the same in every process."""
    return [name for name in order if name in lists]


def _reciprocal_ranks(ranked: Ranked, rank_constant: int) -> list[tuple[str, float]]:
    return [(chunk_id, 1 / (rank_constant + rank)) for rank, (chunk_id, _) in enumerate(ranked, 1)]


def _normalised(ranked: Ranked, _rank_constant: int) -> list[tuple[str, float]]:
    if not ranked:
        return []
    high = max(score for _, score in ranked)
    low = min(score for _, score in ranked)
    if high == low:  # one hit, or all alike: each is as good as the best
        return [(chunk_id, 1.0) for chunk_id, _ in ranked]
    return [(chunk_id, (score - low) / (high - low)) for chunk_id, score in ranked]
