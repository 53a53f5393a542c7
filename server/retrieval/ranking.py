"""Where each chunk stands in each list; the scales of scores are never mixed."""

from collections.abc import Mapping

from server.hits import Ranker
from server.retrieval.fusion import Ranked

# The last of these that has a chunk is the one that placed it.
_ORDER: tuple[Ranker, ...] = ("vector", "sparse", "bm25", "fused", "rerank")


class Ranking:
    """Score and rank (from 1) of each chunk in each list. Immutable."""

    def __init__(self, lists: Mapping[Ranker, Ranked]) -> None:
        self._places = {
            name: {chunk_id: (rank, score) for rank, (chunk_id, score) in enumerate(lists[name], 1)}
            for name in _ORDER
            if name in lists
        }

    def scores(self, chunk_id: str) -> dict[Ranker, float]:
        """Scores of the lists that have the chunk, the deciding one last."""
        return {name: at[chunk_id][1] for name, at in self._places.items() if chunk_id in at}

    def ranks(self, chunk_id: str) -> dict[Ranker, int]:
        """Ranks in the lists that have the chunk."""
        return {name: at[chunk_id][0] for name, at in self._places.items() if chunk_id in at}
