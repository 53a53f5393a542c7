"""The retrieval pipeline: query → retrievers side by side → fusion → reranker → hits."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from server.analysis.contract import Analysis
from server.analysis.normalize import Normalizer
from server.documents import PUBLIC, Passage
from server.errors import GenerationChanged
from server.hits import Degraded, Ranker, Retrieval
from server.live import Live, LiveCollections
from server.models.contract import Reranker
from server.retrieval.clock import RequestClock
from server.retrieval.exact import ExactPhrases, first
from server.retrieval.fusion import Fusion, Ranked, Worth, contributions, fuse
from server.retrieval.light import Candidate, Evidence, LightRanker
from server.retrieval.page import grouped, hit
from server.retrieval.profile import Profile
from server.retrieval.profiles import QueryProfiles
from server.retrieval.query import (
    Addition,
    SearchQuery,
    additions,
    said_otherwise,
    text_clauses,
    with_additions,
)
from server.retrieval.query_words import QueryVocabulary
from server.retrieval.ranking import Ranking
from server.retrieval.rerank import rerank
from server.retrieval.retrievers import Weighed, holding, named, retrieve, weigh
from server.stores.contract import Legs, Store, TextClause
from server.stores.filters import All, Filter, Terms
from server.vocabulary import Vocabulary

_ATTEMPTS = 4  # of a search that promotions keep overtaking


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A search with the whole list that each ranker made of its chunks, in the order of the pipeline.

    That of "rerank" ends where the reranker did; the others follow as they were. ``worth``: of the
    retrievers' scores, None where they were not fused by it. ``evidence``: what the light ranker found,
    by chunk id.
    """

    retrieval: Retrieval
    lists: Mapping[Ranker, Ranked]
    worth: Worth | None = None
    evidence: Mapping[str, Evidence] = field(default_factory=dict)


class Searcher:
    """Answers searches over one store; thread-safe.

    ``rerank_seconds`` is the reranker's share of ``seconds``, the deadline of a request. ``reranker``
    None: there is none, and ``missing`` says why, by stage; ``light``: then the light ranker stands in
    its place. ``profile``: that of collections which have none of their own.
    """

    def __init__(
        self,
        *,
        store: Store,
        live: LiveCollections,
        reranker: Reranker | None,
        light: bool = False,
        profile: Profile | None = None,
        missing: Mapping[str, str] | None = None,
        seconds: float = 5.0,
        rerank_seconds: float = 2.0,
        rerank_top_n: int = 50,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._store = store
        self._live = live
        self._normalizer = Normalizer()
        self._vocabulary = QueryVocabulary(Vocabulary(store.notes), seconds=store.follow_seconds)
        self._reranker = reranker
        self._light = light
        self._light_alone = light and "reranker" not in (missing or {})
        self._profiles = QueryProfiles(store.notes, default=profile, seconds=store.follow_seconds)
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
        clock = RequestClock(self._clock, began, self._seconds)
        profile = self._profile(query, clock)
        fusion = query.fusion or profile.fusion
        fusion = replace(fusion, window=max(fusion.window, query.offset + query.size))
        with clock.stage("analyze"):
            analysis, added, clauses = self._analyze(query, live, profile)
        filter_ = visible(query.filter, groups)
        retrieved = retrieve(
            self._store,
            query,
            live,
            clauses,
            depth=fusion.window,
            filter_=filter_,
            clock=clock,
            sparse=fusion.sparse > 0,
        )
        legs = retrieved.legs
        lists: dict[Ranker, Ranked] = {name: leg.hits for name, leg in named(legs)}
        weighed: Weighed | None = None
        if len(lists) == 1:
            (ranked,) = lists.values()
        else:
            otherwise = said_otherwise(analysis, added)
            weighed = weigh(self._store, query, live, legs, analysis, otherwise, clock=clock)
            if weighed is None and fusion.method == "log_odds":
                fusion = replace(fusion, method="convex")
            with clock.stage("fuse"):
                ranked = lists["fused"] = fuse(lists, fusion, weighed.worth if weighed else None)
        passages: dict[str, Passage] = {}
        held = self._held(query, live, clauses, legs, filter_, clock)
        if legs.bm25 is not None and held:
            lists["bm25"] = tuple((dict(legs.bm25.hits) | held).items())
        order = first([*dict.fromkeys([*(chunk_id for chunk_id, _ in ranked), *held])], held)
        said: Mapping[str, Evidence] = {}
        if query.rerank and self._reranker is None and not self._light_alone:
            reason = self._missing.get("reranker", "No reranker is configured.")
            clock.degraded.append(Degraded("rerank", reason))
        if query.rerank and self._reranker is not None:
            lists["rerank"] = self._rerank(query, self._reranker, legs, order, passages, clock)
        elif (
            query.rerank and self._light and weighed and legs.bm25 and retrieved.vector is not None
        ):
            ranker = LightRanker(
                weights=profile.light,
                terms=weighed.terms,
                worth=weighed.worth,
                vector=retrieved.vector,
                analyzer=live.analyzer,
            )
            said = self._rank(query, ranker, legs, lists, fusion, order, passages, clock)
            lists["rerank"] = _by_score({each: sum(kinds.values()) for each, kinds in said.items()})
        reranked = {chunk_id for chunk_id, _ in lists.get("rerank", ())}
        order = [chunk_id for chunk_id, _ in lists.get("rerank", ())] + [
            chunk_id for chunk_id in order if chunk_id not in reranked
        ]
        order = first(order, held)
        more = dict.fromkeys(order, 0)
        if query.group:
            order, more = grouped(order)
        page = order[query.offset : query.offset + query.size]
        with clock.stage("passages"):
            wanted = [chunk_id for chunk_id in page if chunk_id not in passages]
            passages.update(self._passages(query, legs, wanted))
        ranking = Ranking(lists)
        with clock.stage("highlight"):
            shown = with_additions(analysis, added) if query.highlight else None
            hits = tuple(
                hit(
                    passages[chunk_id],
                    query=shown,
                    analyzer=live.analyzer,
                    ranking=ranking,
                    more=more[chunk_id],
                    evidence=said.get(chunk_id) if query.explain else None,
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
        return Trace(
            retrieval=retrieval,
            lists=lists,
            worth=weighed.worth if weighed else None,
            evidence=said,
        )

    def _analyze(
        self, query: SearchQuery, live: Live, profile: Profile
    ) -> tuple[Analysis, tuple[Addition, ...], tuple[TextClause, ...]]:
        """The query's own terms, what is looked for beside them, and what is searched."""
        analysis = live.analyzer.analyze(query.query)
        words = self._vocabulary.of(query.collection)
        added = additions(query.query, live.analyzer, self._normalizer, words.synonyms)
        clauses = text_clauses(analysis, profile, added=added, stop_words=words.stop_words)
        return analysis, added, clauses

    def _profile(self, query: SearchQuery, clock: RequestClock) -> Profile:
        if query.profile is not None:
            return query.profile
        in_force = self._profiles.of(query.collection)
        if in_force.problem:
            clock.degraded.append(Degraded("profile", in_force.problem))
        return in_force.profile

    def _held(
        self,
        query: SearchQuery,
        live: Live,
        clauses: tuple[TextClause, ...],
        legs: Legs,
        filter_: Filter | None,
        clock: RequestClock,
    ) -> dict[str, float]:
        """Chunks that hold the query's exact phrases, with their BM25, as far as passages are read."""
        exact = ExactPhrases.of(query.query, live.analyzer, self._normalizer)
        if not exact or legs.bm25 is None:
            return {}
        with clock.stage("exact"):
            depth = self._rerank_top_n
            found = holding(
                self._store, query, clauses, exact, legs, depth=depth, filter_=filter_, clock=clock
            )
            passages = self._passages(query, legs, [chunk_id for chunk_id, _ in found])
            return {
                chunk_id: score
                for chunk_id, score in found
                if chunk_id in passages
                and exact.held_by(live.analyzer.analyze(passages[chunk_id].full_text))
            }

    def _passages(
        self, query: SearchQuery, legs: Legs, chunk_ids: Sequence[str], *, windows: bool = False
    ) -> Mapping[str, Passage]:
        """Passages of the generation that was searched; ids of another may mean other chunks."""
        if not chunk_ids:
            return {}
        return self._store.passages(
            query.collection, chunk_ids, generation=legs.generation, windows=windows
        )

    def _rank(
        self,
        query: SearchQuery,
        ranker: LightRanker,
        legs: Legs,
        lists: Mapping[Ranker, Ranked],
        fusion: Fusion,
        order: Sequence[str],
        passages: dict[str, Passage],
        clock: RequestClock,
    ) -> Mapping[str, Evidence]:
        """What speaks for the first ``rerank_top_n``; fills ``passages`` with them."""
        top = order[: self._rerank_top_n]
        with clock.stage("rerank_passages"):
            passages.update(self._passages(query, legs, top, windows=True))
        with clock.stage("rerank"):
            parts = contributions(lists, fusion, ranker.worth)
            return ranker.rank(
                [
                    Candidate(
                        passage=passages[chunk_id],
                        fused={
                            name: own.get(chunk_id, floor) for name, (own, floor) in parts.items()
                        },
                    )
                    for chunk_id in top
                    if chunk_id in passages
                ]
            )

    def _rerank(
        self,
        query: SearchQuery,
        reranker: Reranker,
        legs: Legs,
        order: Sequence[str],
        passages: dict[str, Passage],
        clock: RequestClock,
    ) -> Ranked:
        """The first ``rerank_top_n`` as the reranker orders them; fills ``passages`` with them."""
        top = order[: self._rerank_top_n]
        with clock.stage("rerank_passages"):
            passages.update(self._passages(query, legs, top))
        with clock.stage("rerank"):
            result = rerank(
                query.query,
                [
                    (chunk_id, passages[chunk_id].full_text)
                    for chunk_id in top
                    if chunk_id in passages
                ],
                reranker,
                seconds=min(self._rerank_seconds, clock.left),
                clock=self._clock,
            )
        clock.degraded.extend(result.degraded)
        return _by_score(result.scores)


def visible(filter_: Filter | None, groups: frozenset[str] | None) -> Filter | None:
    """The filter that also keeps a caller to documents of his groups and public ones."""
    if groups is None:
        return filter_
    allowed = Terms("acl", tuple(sorted(groups | {PUBLIC})))
    return All((allowed, filter_)) if filter_ else allowed


def _by_score(scores: Mapping[str, float]) -> Ranked:
    """By falling score, ties by chunk id."""
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
