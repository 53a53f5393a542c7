"""Fusion of ranked lists: pure and deterministic, ties broken by chunk id.

Weighted reciprocal rank fusion after Cormack, Clarke and Büttcher (SIGIR 2009); the convex combination
of min-max-normalised scores after Bruch, Gai and Ingber (ACM TOIS 42, 2023).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from server.errors import InvalidInput
from server.hits import Ranker
from server.stores.contract import MAX_DEPTH

Method = Literal["rrf", "convex"]
Ranked = Sequence[tuple[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """How two lists become one.

    ``bm25`` and ``vector`` weigh the lists. ``window`` is the depth of each list that enters
    (rank_window_size). ``rank_constant`` is RRF's k. Raises InvalidInput.
    """

    method: Method = "convex"
    bm25: float = 1.0
    vector: float = 1.0
    rank_constant: int = 60
    window: int = 200

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise InvalidInput(f"fusion is one of {', '.join(get_args(Method))}.", field="fusion")
        weights = (self.bm25, self.vector)
        if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
            raise InvalidInput(
                "The weights of fusion are at least 0 and not both 0.", field="fusion"
            )
        if self.rank_constant < 1 or not 1 <= self.window <= MAX_DEPTH:
            raise InvalidInput(
                f"rank_constant is at least 1 and window from 1 to {MAX_DEPTH:,}.", field="fusion"
            )


def fuse(lists: Mapping[Ranker, Ranked], fusion: Fusion) -> list[tuple[str, float]]:
    """Merge lists of (chunk id, score), each by falling score, into one by falling fused score.

    ``lists`` may hold "bm25" and "vector". A chunk that a list lacks gets nothing from it. Fused
    scores lie in [0, 1] for the convex combination. Inputs are not changed.
    """
    score = _reciprocal_ranks if fusion.method == "rrf" else _normalised
    weights: dict[Ranker, float] = {"bm25": fusion.bm25, "vector": fusion.vector}
    whole = sum(weights[name] for name in lists) if fusion.method == "convex" else 1.0
    fused: dict[str, float] = {}
    for name, ranked in lists.items():
        share = weights[name] / whole if whole else 0.0
        for chunk_id, value in score(ranked[: fusion.window], fusion.rank_constant):
            fused[chunk_id] = fused.get(chunk_id, 0.0) + share * value
    return sorted(fused.items(), key=lambda item: (-item[1], item[0]))


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
