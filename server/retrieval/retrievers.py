"""The retrievers of a search, asked side by side, and what a score of each is worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from server.analysis.contract import Analysis
from server.documents import Vector
from server.errors import EmbedderUnavailable, GenerationChanged, TanyuanError
from server.hits import Degraded, Stage
from server.live import Live
from server.retrieval.clock import RequestClock
from server.retrieval.evidence import OtherWords, QueryTerms, query_terms
from server.retrieval.exact import ExactPhrases
from server.retrieval.fusion import Ranked, Worth
from server.retrieval.query import SearchQuery
from server.sparse import Embedded
from server.stores import contract
from server.stores.contract import Legs, LegsRequest, Store, TextClause
from server.stores.filters import Filter

Leg = Literal["bm25", "vector", "sparse"]

# The log-odds of a passage whose BM25 is all the idf that the query's words have together, beside those of
# a cosine (DECISIONS.md).
WHOLE_MATCH = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """``vector``: the query's, None where it was not asked for or nothing could be found by it."""

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
    sparse: bool = True,
) -> Retrieved:
    """The lists that can be had; raises what the first lacks when none can.

    ``sparse``: whether a hybrid search of a collection with sparse weights goes by these too. They come
    with the query's vector; where it can't be had, its reason stands for both.
    """
    asked: tuple[Leg, ...] = ("bm25", "vector") if query.mode == "hybrid" else (query.mode,)
    broken = {"bm25": live.words, "vector": live.vectors}
    failures: dict[str, TanyuanError] = {
        leg: error for leg in asked if (error := broken[leg]) is not None
    }
    made: Embedded | None = None
    if "vector" in asked and "vector" not in failures:
        with clock.stage("embed"):
            try:
                made = _embed(query, live, sparse=sparse and query.mode == "hybrid")
            except TanyuanError as error:
                failures["vector"] = error
    legs = Legs()
    if set(asked) - failures.keys():
        with clock.stage("retrieve"):
            request = LegsRequest(
                text=clauses if "bm25" in asked and "bm25" not in failures else None,
                vector=made.vector if made else None,
                sparse=made.sparse if made else None,
                filter=filter_,
                k=depth,
                seconds=clock.left,
                generation=live.generation.id,
            )
            legs = store.search(query.collection, request)
        clock.stages.extend(Stage(name, leg.took_ms) for name, leg in named(legs))
    failures.update(legs.errors)
    if failures.keys() >= set(asked) and legs.sparse is None:
        raise failures[asked[0]]
    if made and sparse and live.sparse and query.mode == "hybrid":
        failures["sparse"] = live.sparse
    clock.degraded.extend(Degraded(leg, error.message) for leg, error in failures.items())
    return Retrieved(legs=legs, vector=made.vector if made and legs.vector else None)


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
    said_otherwise: Sequence[OtherWords],
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
                query.collection,
                query_terms(analysis, said_otherwise),
                generation=legs.generation,
            )
        except GenerationChanged:
            raise
        except TanyuanError as error:
            clock.degraded.append(Degraded("weigh", error.message))
            return None
        terms = QueryTerms.of(analysis, frequencies, said_otherwise)
    return Weighed(
        terms=terms,
        worth=Worth(
            bm25=WHOLE_MATCH / terms.total if terms.total else 0.0,
            vector=1.0 / live.embedder.temperature,
            sparse=live.sparse_embedder.sparse_share / live.embedder.temperature
            if live.sparse_embedder
            else 0.0,
        ),
    )


def named(legs: Legs) -> list[tuple[Leg, contract.Leg]]:
    """The lists that there are."""
    every: tuple[tuple[Leg, contract.Leg | None], ...] = (
        ("bm25", legs.bm25),
        ("vector", legs.vector),
        ("sparse", legs.sparse),
    )
    return [(name, leg) for name, leg in every if leg is not None]


def _embed(query: SearchQuery, live: Live, *, sparse: bool) -> Embedded:
    if live.embedder is None:
        raise EmbedderUnavailable(
            f"Collection {query.collection!r} was indexed without an embedder, so words alone decide; "
            f"to search by meaning: scripts/rebuild --collection {query.collection}"
        )
    if sparse and live.sparse_embedder is not None:
        return live.sparse_embedder.encode_query(query.query)
    return Embedded(live.embedder.embed_query(query.query))
