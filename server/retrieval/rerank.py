"""Reranking within a time budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.errors import RerankerUnavailable
from server.hits import Degraded
from server.models.contract import Reranker

BATCH = 8  # passages between two looks at the clock


@dataclass(frozen=True, slots=True)
class Reranked:
    """Scores by chunk id, of the passages that were reached, and what was left out."""

    scores: dict[str, float]
    degraded: tuple[Degraded, ...]


def rerank(
    query: str,
    passages: Sequence[tuple[str, str]],
    reranker: Reranker,
    *,
    seconds: float,
    clock: Callable[[], float],
) -> Reranked:
    """Score (chunk id, passage) pairs in their order, until done or the time is spent.

    A batch is started only if one as long as the longest so far would still end in time, so the
    budget is passed by the first batch at most. ``clock`` gives seconds, rising.
    """
    start = clock()
    longest = 0.0
    scores: dict[str, float] = {}
    for at in range(0, len(passages), BATCH):
        began = clock()
        if at and began - start + longest > seconds:
            return Reranked(
                scores,
                (
                    Degraded(
                        "rerank",
                        f"{len(scores)} of {len(passages)} passages were reranked within "
                        f"{seconds:.1f} s; the others follow in fused order.",
                    ),
                ),
            )
        batch = passages[at : at + BATCH]
        try:
            values = reranker.score(query, [text for _, text in batch])
        except RerankerUnavailable as error:
            # Scores of some passages only would mix two orders, so none is used.
            return Reranked({}, (Degraded("rerank", error.message),))
        scores.update(zip((chunk_id for chunk_id, _ in batch), values, strict=True))
        longest = max(longest, clock() - began)
    return Reranked(scores, ())
