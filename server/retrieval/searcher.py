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
from server.errors import EmbedderUnavailable, GenerationChanged, TanyuanError
from server.hits import Degraded, Hit, Ranker, Retrieval, Stage
from server.live import Live, LiveCollections
from server.models.contract import Reranker
from server.retrieval.fusion import Fusion, Ranked, fuse
from server.retrieval.highlight import highlight
from server.retrieval.query import (
    Profile,
    SearchQuery,
    additions,
    text_clauses,
    with_additions,
)
from server.retrieval.query_words import QueryVocabulary
from server.retrieval.ranking import Ranking
from server.retrieval.rerank import rerank
from server.stores import contract
from server.stores.contract import Legs, LegsRequest, Store, TextClause
from server.stores.filters import All, Filter, Terms
from server.vocabulary import Vocabulary

Leg = Literal["bm25", "vector"]

_ATTEMPTS = 4  # of a search that promotions keep overtaking


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A search with the whole list that each ranker made of its chunks, in the order of the pipeline.

    That of "rerank" ends where the reranker did; the others follow as they were.
    """

    retrieval: Retrieval
    lists: Mapping[Ranker, Ranked]


class Searcher:
    """Answers searches over one store; thread-safe.

    ``rerank_seconds`` is the reranker's share of ``seconds``, the deadline of a request. ``reranker``
    None: there is none, and ``missing`` says why, by stage.
    """

    def __init__(
        self,
        *,
        store: Store,
        live: LiveCollections,
        reranker: Reranker | None,
        profile: Profile | None = None,
        missing: Mapping[str, str] | None = None,
        seconds: float = 5.0,
        rerank_seconds: float = 2.0,
        rerank_top_n: int = 50,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._store = store
        self._live = live
        self._vocabulary = QueryVocabulary(Vocabulary(store.notes), seconds=store.follow_seconds)
        self._reranker = reranker
        self._profile = profile or Profile()
        self._missing = missing or {}
        self._seconds = seconds
        self._rerank_seconds = rerank_seconds
        self._rerank_top_n = rerank_top_n
        self._clock = clock

    def search(self, query: SearchQuery, *, groups: frozenset[str] | None) -> Retrieval:
        """Retrieve for a caller who belongs to ``groups`` (None: may see everything).

        A stage that fails is named in ``degraded`` as long as another still finds something to show.
        A search that a promotion overtakes is made again, so that no two recipes are ever mixed.
        Raises CollectionNotFound, and what the only retriever asked for raises.
        """
        return self.trace(query, groups=groups).retrieval

    def trace(self, query: SearchQuery, *, groups: frozenset[str] | None) -> Trace:
        """Search, and keep the lists that led to the hits. Raises as ``search`` does."""
        began = self._clock()
        for _ in range(_ATTEMPTS - 1):
            live = self._live.open(query.collection)
            try:
                return self._search(query, live, groups, began)
            except GenerationChanged:
                self._live.open(query.collection, fresh=True)
        return self._search(query, self._live.open(query.collection, fresh=True), groups, began)

    def _search(
        self, query: SearchQuery, live: Live, groups: frozenset[str] | None, began: float
    ) -> Trace:
        clock = _Clock(self._clock)
        profile = query.profile or self._profile
        fusion = query.fusion or profile.fusion
        fusion = replace(fusion, window=max(fusion.window, query.offset + query.size))
        with clock.stage("analyze"):
            analysis = live.analyzer.analyze(query.query)
            words = self._vocabulary.of(query.collection)
            added = additions(query.query, live.analyzer, words.synonyms)
            clauses = text_clauses(analysis, profile, added=added, stop_words=words.stop_words)
            shown = with_additions(analysis, added)
        condition = visible(query.filter, groups)
        legs = self._retrieve(query, live, clauses, fusion, condition, clock, began)
        lists: dict[Ranker, Ranked] = {name: leg.hits for name, leg in _named(legs)}
        if len(lists) == 1:
            (ranked,) = lists.values()
        else:
            with clock.stage("fuse"):
                ranked = lists["fused"] = fuse(lists, fusion)
        order = [chunk_id for chunk_id, _ in ranked]
        passages: dict[str, Passage] = {}
        if query.rerank:
            lists["rerank"] = self._rerank(query, legs, order, passages, clock, began)
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
            passages.update(self._passages(query, legs, wanted))
        ranking = Ranking(lists)
        with clock.stage("highlight"):
            hits = tuple(
                self._hit(
                    passages[chunk_id],
                    shown if query.highlight else None,
                    live.analyzer,
                    ranking,
                    more[chunk_id],
                )
                for chunk_id in page
                if chunk_id in passages  # deleted since the retrievers saw it
            )
        retrieval = Retrieval(
            query=query.query,
            mode=query.mode,
            total=max(legs.bm25.total if legs.bm25 else 0, len(ranked)),
            hits=hits,
            stages=tuple(clock.stages),
            degraded=tuple(clock.degraded),
        )
        return Trace(retrieval=retrieval, lists=lists)

    def _retrieve(
        self,
        query: SearchQuery,
        live: Live,
        clauses: tuple[TextClause, ...],
        fusion: Fusion,
        filter_: Filter | None,
        clock: _Clock,
        began: float,
    ) -> Legs:
        """Both lists, or the one that can be had; raises when none can."""
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
                    k=fusion.window,
                    seconds=max(0.0, self._seconds - (self._clock() - began)),
                    generation=live.generation.id,
                )
                legs = self._store.search(query.collection, request)
            clock.stages.extend(Stage(name, leg.took_ms) for name, leg in _named(legs))
        failures.update(legs.errors)
        if len(failures) == len(asked):
            raise failures[asked[0]]
        clock.degraded.extend(Degraded(leg, error.message) for leg, error in failures.items())
        return legs

    def _passages(
        self, query: SearchQuery, legs: Legs, chunk_ids: Sequence[str]
    ) -> Mapping[str, Passage]:
        """Passages of the generation that was searched; ids of another may mean other chunks."""
        if not chunk_ids:
            return {}
        return self._store.passages(query.collection, chunk_ids, generation=legs.generation)

    def _rerank(
        self,
        query: SearchQuery,
        legs: Legs,
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
            passages.update(self._passages(query, legs, top))
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

    @staticmethod
    def _hit(
        passage: Passage, query: Analysis | None, analyzer: Analyzer, ranking: Ranking, more: int
    ) -> Hit:
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
        )


def visible(filter_: Filter | None, groups: frozenset[str] | None) -> Filter | None:
    """The filter that also keeps a caller to documents of his groups and public ones."""
    if groups is None:
        return filter_
    allowed = Terms("acl", tuple(sorted(groups | {PUBLIC})))
    return All((allowed, filter_)) if filter_ else allowed


def _embed(query: SearchQuery, live: Live) -> Vector:
    if live.embedder is None:
        raise EmbedderUnavailable(
            f"Collection {query.collection!r} was indexed without an embedder, so words alone decide; "
            f"to search by meaning: scripts/rebuild --collection {query.collection}"
        )
    return live.embedder.embed_query(query.query)


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
