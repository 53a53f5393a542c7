"""Small judged sets and runs."""

from collections.abc import Mapping, Sequence

from server.evaluation.dataset import Dataset, Qrels
from server.evaluation.runs import Ranking


def dataset(qrels: Qrels, texts: Mapping[str, str] | None = None) -> Dataset:
    """Without a corpus; a query whose text is not given has its id for it."""
    queries = {query_id: (texts or {}).get(query_id, query_id) for query_id in qrels}
    return Dataset(folder=None, queries=queries, qrels=qrels)


def run(**documents: Sequence[str]) -> dict[str, Ranking]:
    """Query id → documents in order, scored 10, 9, 8 …"""
    return {
        query_id: Ranking(tuple(ranked), tuple(10.0 - at for at in range(len(ranked))))
        for query_id, ranked in documents.items()
    }
