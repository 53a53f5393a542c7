"""Runs: query id → document id → score, kept by TREC's format."""

from collections.abc import Iterable
from pathlib import Path

from server.errors import InvalidInput
from server.hits import Mode
from server.retrieval.query import SearchQuery
from server.retrieval.searcher import Searcher

Run = dict[str, dict[str, float]]

DEPTH = 100  # Recall@100


def search_run(
    searcher: Searcher,
    queries: Iterable[tuple[str, str]],
    *,
    collection: str,
    mode: Mode,
    rerank: bool,
) -> Run:
    """Search every (query id, text) for its best DEPTH documents.

    Scores fall with the rank: what orders a list may change within it (reranked, then fused), so
    the scores of hits can't be compared along a whole list.
    """
    run: Run = {}
    for query_id, text in queries:
        query = SearchQuery(
            query=text,
            collection=collection,
            mode=mode,
            size=DEPTH,
            rerank=rerank,
            group=True,
            highlight=False,
        )
        hits = searcher.search(query, groups=None).hits
        run[query_id] = {hit.document_id: 1 / rank for rank, hit in enumerate(hits, 1)}
    return run


def write_trec(run: Run, path: Path, *, tag: str) -> None:
    """Write ``query Q0 document rank score tag`` lines. Raises InvalidInput for an id with
    white space, which the format can't hold."""
    lines: list[str] = []
    for query_id, scores in run.items():
        ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
        for rank, (document_id, score) in enumerate(ranked, 1):
            if len(document_id.split()) != 1 or len(query_id.split()) != 1:
                raise InvalidInput(
                    f"TREC's format can't hold {document_id!r} of query {query_id!r}: white space."
                )
            lines.append(f"{query_id} Q0 {document_id} {rank} {score:.9f} {tag}\n")
    path.write_text("".join(lines), encoding="utf-8")
