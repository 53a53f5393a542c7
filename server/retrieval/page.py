"""The page of a search: one chunk a document, and what a hit shows of each."""

from collections.abc import Sequence

from server.analysis.contract import Analysis, Analyzer
from server.documents import Passage, document_id_of
from server.hits import Hit
from server.retrieval.highlight import highlight
from server.retrieval.light import Evidence
from server.retrieval.ranking import Ranking


def grouped(order: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """The best chunk of each document in order, and how many others of it were found."""
    best: dict[str, str] = {}
    more: dict[str, int] = {}
    for chunk_id in order:
        first = best.setdefault(document_id_of(chunk_id), chunk_id)
        more[first] = more.get(first, -1) + 1
    return list(best.values()), more


def hit(
    passage: Passage,
    *,
    query: Analysis | None,
    analyzer: Analyzer,
    ranking: Ranking,
    more: int,
    evidence: Evidence | None,
) -> Hit:
    """A passage as it is shown, with the words of ``query`` highlighted where it is given."""
    chunk = passage.chunk
    scores = ranking.scores(chunk.id)
    return Hit(
        document_id=chunk.document_id,
        chunk_id=chunk.id,
        title=passage.title,
        text=chunk.text,
        start=chunk.start,
        end=chunk.end,
        headings=chunk.headings,
        source=passage.source,
        metadata=passage.metadata,
        score=[*scores.values()][-1],
        scores=scores,
        ranks=ranking.ranks(chunk.id),
        highlights=highlight(chunk.text, query, analyzer) if query else (),
        title_highlights=highlight(passage.title, query, analyzer) if query else (),
        more=more,
        evidence=evidence,
    )
