"""The two retrievers of a search, asked side by side, and what a score of each is worth."""

from dataclasses import dataclass
from typing import Literal

from server.analysis.contract import Analysis
from server.documents import Vector
from server.errors import EmbedderUnavailable, GenerationChanged, TanyuanError
from server.hits import Degraded, Stage
from server.live import Live
from server.retrieval.clock import RequestClock
from server.retrieval.evidence import QueryTerms, query_terms
from server.retrieval.exact import ExactPhrases
from server.retrieval.fusion import Ranked, Worth
from server.retrieval.query import SearchQuery
from server.stores import contract
from server.stores.contract import Legs, LegsRequest, Store, TextClause
from server.stores.filters import Filter

Leg = Literal["bm25", "vector"]

# The log-odds of a passage whose BM25 is all the idf that the query's words have together, beside those of
# a cosine (DECISIONS.md).
WHOLE_MATCH = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """``vector``: the query's, None where it was not asked for or can't be had."""

    legs: Legs
    vector: Vector | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """What the query's terms tell, and so what the retrievers' scores are worth."""

    terms: QueryTerms
    worth: Worth


def retrieve(
    store: Store,
    query: SearchQuery,
    live: Live,
    clauses: tuple[TextClause, ...],
    *,
    depth: int,
    filter_: Filter | None,
    clock: RequestClock,
) -> Retrieved:
    """Both lists, or the one that can be had; raises what the first lacks when none can."""
    asked: tuple[Leg, ...] = ("bm25", "vector") if query.mode == "hybrid" else (query.mode,)
    broken = {"bm25": live.words, "vector": live.vectors}
    failures: dict[str, TanyuanError] = {
        leg: error for leg in asked if (error := broken[leg]) is not None
    }
    vector: Vector | None = None
    if "vector" in asked and "vector" not in failures:
        with clock.stage("embed"):
            try:
                vector = _embed(query, live)
            except TanyuanError as error:
                failures["vector"] = error
    legs = Legs()
    if set(asked) - failures.keys():
        with clock.stage("retrieve"):
            request = LegsRequest(
                text=clauses if "bm25" in asked and "bm25" not in failures else None,
                vector=vector,
                filter=filter_,
                k=depth,
                seconds=clock.left,
                generation=live.generation.id,
            )
            legs = store.search(query.collection, request)
        clock.stages.extend(Stage(name, leg.took_ms) for name, leg in named(legs))
    failures.update(legs.errors)
    if len(failures) == len(asked):
        raise failures[asked[0]]
    clock.degraded.extend(Degraded(leg, error.message) for leg, error in failures.items())
    return Retrieved(legs=legs, vector=vector)


def holding(
    store: Store,
    query: SearchQuery,
    clauses: tuple[TextClause, ...],
    exact: ExactPhrases,
    legs: Legs,
    *,
    depth: int,
    filter_: Filter | None,
    clock: RequestClock,
) -> Ranked:
    """Chunks that have all terms of the exact phrases, by BM25; none where a code that nobody quoted
    stands in more of them than can be read, since it tells little then. Raises GenerationChanged."""
    request = LegsRequest(
        text=clauses,
        holding=exact.terms,
        filter=filter_,
        k=depth,
        seconds=clock.left,
        generation=legs.generation,
    )
    found = store.search(query.collection, request)
    clock.degraded.extend(Degraded("exact", error.message) for error in found.errors.values())
    if found.bm25 is None or (found.bm25.total > depth and not exact.quoted):
        return ()
    return found.bm25.hits


def weigh(
    store: Store,
    query: SearchQuery,
    live: Live,
    legs: Legs,
    analysis: Analysis,
    *,
    clock: RequestClock,
) -> Weighed | None:
    """What the terms tell in the generation that was searched; None, and named, where the store does
    not say. Raises GenerationChanged."""
    if live.embedder is None:
        return None
    with clock.stage("weigh"):
        try:
            frequencies = store.frequencies(
                query.collection, query_terms(analysis), generation=legs.generation
            )
        except GenerationChanged:
            raise
        except TanyuanError as error:
            clock.degraded.append(Degraded("weigh", error.message))
            return None
        terms = QueryTerms.of(analysis, frequencies)
    return Weighed(
        terms=terms,
        worth=Worth(
            bm25=WHOLE_MATCH / terms.total if terms.total else 0.0,
            vector=1.0 / live.embedder.temperature,
        ),
    )


def named(legs: Legs) -> list[tuple[Leg, contract.Leg]]:
    """The lists that there are."""
    both: tuple[tuple[Leg, contract.Leg | None], ...] = (
        ("bm25", legs.bm25),
        ("vector", legs.vector),
    )
    return [(name, leg) for name, leg in both if leg is not None]


def _embed(query: SearchQuery, live: Live) -> Vector:
    if live.embedder is None:
        raise EmbedderUnavailable(
            f"Collection {query.collection!r} was indexed without an embedder, so words alone decide; "
            f"to search by meaning: scripts/rebuild --collection {query.collection}"
        )
    return live.embedder.embed_query(query.query)
