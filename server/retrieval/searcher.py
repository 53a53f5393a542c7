"""The retrieval pipeline: query → two retrievers side by side → fusion → reranker → hits."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

from server.analysis.contract import Analysis, Analyzer
from server.documents import (
    PUBLIC,
    Passage,
    Vector,
    document_id_of,
    passage_text,
)
from server.errors import (
    EmbedderUnavailable,
    RecipeMismatch,
    TanyuanError,
)
from server.hits import Degraded, Hit, Ranker, Retrieval, Stage
from server.models.contract import Embedder, Reranker
from server.recipes import VECTORS, WORDS, Recipe, mismatch
from server.retrieval.fusion import Fusion, Ranked, fuse
from server.retrieval.highlight import highlight
from server.retrieval.query import Profile, SearchQuery, text_clauses
from server.retrieval.ranking import Ranking
from server.retrieval.rerank import rerank
from server.stores import contract
from server.stores.contract import Legs, LegsRequest, Store
from server.stores.filters import All, Filter, Terms

Leg = Literal["bm25", "vector"]


@dataclass(frozen=True, slots=True)
class _Clock:
    """Collects stages and degradations of one request."""

    now: Callable[[], float]
    stages: list[Stage] = field(default_factory=list)
    degraded: list[Degraded] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = self.now()
        yield
        self.stages.append(Stage(name, round((self.now() - start) * 1000, 3)))


class Searcher:
    """Answers searches over one store; thread-safe.

    ``rerank_seconds`` is the reranker's share of ``seconds``, the deadline of a request. ``embedder``
    or ``reranker`` None: there is none, and ``missing`` says why, by stage.
    """

    def __init__(
        self,
        *,
        store: Store,
        analyzer: Analyzer,
        embedder: Embedder | None,
        reranker: Reranker | None,
        recipe: Recipe,
        profile: Profile | None = None,
        missing: Mapping[str, str] | None = None,
        seconds: float = 5.0,
        rerank_seconds: float = 2.0,
        rerank_top_n: int = 50,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._store = store
        self._analyzer = analyzer
        self._embedder = embedder
        self._reranker = reranker
        self._recipe = recipe
        self._profile = profile or Profile()
        self._missing = missing or {}
        self._seconds = seconds
        self._rerank_seconds = rerank_seconds
        self._rerank_top_n = rerank_top_n
        self._clock = clock

    def search(self, query: SearchQuery, *, groups: frozenset[str] | None) -> Retrieval:
        """Retrieve for a caller who belongs to ``groups`` (None: may see everything).

        A stage that fails is named in ``degraded`` as long as another still finds something to show.
        Raises CollectionNotFound, and what the only retriever asked for raises.
        """
        began = self._clock()
        clock = _Clock(self._clock)
        fusion = query.fusion or self._profile.fusion
        fusion = replace(fusion, window=max(fusion.window, query.offset + query.size))
        with clock.stage("analyze"):
            analysis = self._analyzer.analyze(query.query)
        legs = self._retrieve(query, analysis, fusion, visible(query.filter, groups), clock, began)
        lists: dict[Ranker, Ranked] = {name: leg.hits for name, leg in _named(legs)}
        if len(lists) == 1:
            (ranked,) = lists.values()
        else:
            with clock.stage("fuse"):
                ranked = lists["fused"] = fuse(lists, fusion)
        order = [chunk_id for chunk_id, _ in ranked]
        passages: dict[str, Passage] = {}
        if query.rerank:
            lists["rerank"] = self._rerank(query, order, passages, clock, began)
            reranked = {chunk_id for chunk_id, _ in lists["rerank"]}
            order = [chunk_id for chunk_id, _ in lists["rerank"]] + [
                chunk_id for chunk_id in order if chunk_id not in reranked
            ]
        more = dict.fromkeys(order, 0)
        if query.group:
            order, more = _group(order)
        page = order[query.offset : query.offset + query.size]
        with clock.stage("passages"):
            wanted = [chunk_id for chunk_id in page if chunk_id not in passages]
            passages.update(self._store.passages(query.collection, wanted) if wanted else {})
        ranking = Ranking(lists)
        with clock.stage("highlight"):
            hits = tuple(
                self._hit(
                    passages[chunk_id],
                    analysis if query.highlight else None,
                    ranking,
                    more[chunk_id],
                )
                for chunk_id in page
                if chunk_id in passages  # deleted since the retrievers saw it
            )
        return Retrieval(
            query=query.query,
            mode=query.mode,
            total=max(legs.bm25.total if legs.bm25 else 0, len(ranked)),
            hits=hits,
            stages=tuple(clock.stages),
            degraded=tuple(clock.degraded),
        )

    def _retrieve(
        self,
        query: SearchQuery,
        analysis: Analysis,
        fusion: Fusion,
        filter_: Filter | None,
        clock: _Clock,
        began: float,
    ) -> Legs:
        """Both lists, or the one that can be had; raises when none can."""
        asked: tuple[Leg, ...] = ("bm25", "vector") if query.mode == "hybrid" else (query.mode,)
        stamped = self._store.recipe(query.collection)
        failures: dict[str, TanyuanError] = {
            leg: error for leg in asked if (error := _mismatch(query, stamped, self._recipe, leg))
        }
        vector: Vector | None = None
        if "vector" in asked and "vector" not in failures:
            with clock.stage("embed"):
                try:
                    vector = self._embed(query.query)
                except EmbedderUnavailable as error:
                    failures["vector"] = error
        legs = Legs()
        if set(asked) - failures.keys():
            with clock.stage("retrieve"):
                request = LegsRequest(
                    text=text_clauses(analysis, self._profile)
                    if "bm25" in asked and "bm25" not in failures
                    else None,
                    vector=vector,
                    filter=filter_,
                    k=fusion.window,
                    seconds=max(0.0, self._seconds - (self._clock() - began)),
                )
                legs = self._store.search(query.collection, request)
            clock.stages.extend(Stage(name, leg.took_ms) for name, leg in _named(legs))
        failures.update(legs.errors)
        if len(failures) == len(asked):
            raise failures[asked[0]]
        clock.degraded.extend(Degraded(leg, error.message) for leg, error in failures.items())
        return legs

    def _embed(self, text: str) -> Vector:
        if self._embedder is None:
            raise EmbedderUnavailable(
                self._missing.get("embedder", "No embedder is configured, so words alone decide.")
            )
        return self._embedder.embed_query(text)

    def _rerank(
        self,
        query: SearchQuery,
        order: list[str],
        passages: dict[str, Passage],
        clock: _Clock,
        began: float,
    ) -> Ranked:
        """The first ``rerank_top_n`` as the reranker orders them; fills ``passages`` with them."""
        if self._reranker is None:
            reason = self._missing.get("reranker", "No reranker is configured.")
            clock.degraded.append(Degraded("rerank", reason))
            return ()
        top = order[: self._rerank_top_n]
        with clock.stage("rerank_passages"):
            passages.update(self._store.passages(query.collection, top) if top else {})
        with clock.stage("rerank"):
            left = self._seconds - (self._clock() - began)
            result = rerank(
                query.query,
                [(chunk_id, _read(passages[chunk_id])) for chunk_id in top if chunk_id in passages],
                self._reranker,
                seconds=max(0.0, min(self._rerank_seconds, left)),
                clock=self._clock,
            )
        clock.degraded.extend(result.degraded)
        return sorted(result.scores.items(), key=lambda item: (-item[1], item[0]))

    def _hit(self, passage: Passage, query: Analysis | None, ranking: Ranking, more: int) -> Hit:
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
            highlights=highlight(chunk.text, query, self._analyzer) if query else (),
            title_highlights=highlight(passage.title, query, self._analyzer) if query else (),
            more=more,
        )


def visible(filter_: Filter | None, groups: frozenset[str] | None) -> Filter | None:
    """The filter that also keeps a caller to documents of his groups and public ones."""
    if groups is None:
        return filter_
    allowed = Terms("acl", tuple(sorted(groups | {PUBLIC})))
    return All((allowed, filter_)) if filter_ else allowed


def _mismatch(query: SearchQuery, stamped: Recipe, own: Recipe, leg: Leg) -> RecipeMismatch | None:
    if leg == "vector" and not own.embedder:
        return None  # there is no embedder here at all, which is said as such
    return mismatch(query.collection, stamped, own, WORDS if leg == "bm25" else VECTORS)


def _named(legs: Legs) -> list[tuple[Leg, contract.Leg]]:
    named: tuple[tuple[Leg, contract.Leg | None], ...] = (
        ("bm25", legs.bm25),
        ("vector", legs.vector),
    )
    return [(name, leg) for name, leg in named if leg is not None]


def _read(passage: Passage) -> str:
    return passage_text(passage.title, passage.chunk.headings, passage.chunk.text)


def _group(order: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """The best chunk of each document in order, and how many others of it were found."""
    best: dict[str, str] = {}
    more: dict[str, int] = {}
    for chunk_id in order:
        first = best.setdefault(document_id_of(chunk_id), chunk_id)
        more[first] = more.get(first, -1) + 1
    return list(best.values()), more
