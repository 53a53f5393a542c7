"""Recording: what each stage of the pipeline ranked for each query, from one search a query."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from server.documents import document_id_of
from server.evaluation.runs import DEPTH, Ranking, Rankings
from server.hits import Mode
from server.retrieval.profile import Profile
from server.retrieval.query import SearchQuery
from server.retrieval.searcher import Searcher, Trace

FUSED, RERANKED = "fused", "reranked"  # the other stages are legs, named as their rankers are
_LATE = (FUSED, RERANKED)
WHOLE = "search"  # among the timed parts: the whole search

_PAGE = 10  # hits of the page that is timed


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Searches of one set.

    ``stages``: by name, in the order of the pipeline, the last being what search answers; each to
    DEPTH documents. ``took``: milliseconds of each query, by part of a search and of the WHOLE.
    ``degraded``: how many queries lacked a stage, by stage and reason.
    """

    stages: Mapping[str, Rankings]
    took: Mapping[str, Sequence[float]]
    degraded: Mapping[tuple[str, str], int]


def record(
    searcher: Searcher,
    queries: Iterable[tuple[str, str]],
    *,
    collection: str,
    mode: Mode = "hybrid",
    rerank: bool = True,
    profile: Profile | None = None,
    highlight: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> Recording:
    """Search every (query id, text) as the search page does: one page of hits, one a document.

    ``profile`` None: the one in force. Without ``highlight`` the lists are the same and had sooner.
    Raises what Searcher.search raises.
    """
    ranked: dict[str, Mapping[str, Ranking]] = {}
    took: defaultdict[str, list[float]] = defaultdict(list)
    degraded: Counter[tuple[str, str]] = Counter()
    for query_id, text in queries:
        query = SearchQuery(
            query=text,
            collection=collection,
            mode=mode,
            size=_PAGE if highlight else 1,
            rerank=rerank,
            profile=profile,
            group=True,
            highlight=highlight,
        )
        began = clock()
        trace = searcher.trace(query, groups=None)
        whole = (clock() - began) * 1000
        for name, milliseconds in ({WHOLE: whole} | _parts(trace)).items():
            took[name].append(milliseconds)
        degraded.update((each.stage, each.reason) for each in trace.retrieval.degraded)
        ranked[query_id] = stages_of(trace)
    return Recording(stages=_by_stage(ranked), took=dict(took), degraded=dict(degraded))


def stages_of(trace: Trace) -> dict[str, Ranking]:
    """Best documents of each stage that a search had, in the order of the pipeline."""
    stages: dict[str, Ranking] = {}
    order: list[str] = []
    for name, ranked in trace.lists.items():
        scores = dict(ranked)
        if name != "rerank":
            order = [*scores]
        elif scores:
            order = [*scores, *(chunk_id for chunk_id in order if chunk_id not in scores)]
        else:
            continue  # no reranker, or nothing for it
        stages[RERANKED if name == "rerank" else name] = _documents(order, scores)
    return stages


def _documents(order: Sequence[str], scores: Mapping[str, float]) -> Ranking:
    """The first DEPTH documents of a list of chunks, each with its best chunk's score."""
    best: dict[str, str] = {}
    for chunk_id in order:
        best.setdefault(document_id_of(chunk_id), chunk_id)
        if len(best) == DEPTH:
            break
    scored = tuple(scores[chunk_id] for chunk_id in best.values() if chunk_id in scores)
    return Ranking(tuple(best), scored)


def _by_stage(ranked: Mapping[str, Mapping[str, Ranking]]) -> dict[str, Rankings]:
    """Query → stage → ranking turned round. A query that a leg failed has nothing there; one that was not
    fused or reranked stays as the stage before left it."""
    names = dict.fromkeys(name for stages in ranked.values() for name in stages)
    return {
        name: {
            query_id: stages.get(name) or (_before(stages, name) if name in _LATE else Ranking())
            for query_id, stages in ranked.items()
        }
        for name in sorted(names, key=_place)
    }


def _place(stage: str) -> int:
    return _LATE.index(stage) if stage in _LATE else -1


def _before(stages: Mapping[str, Ranking], name: str) -> Ranking:
    """What the last stage up to ``name`` ranked."""
    ranking = Ranking()
    for stage, found in stages.items():
        if _place(stage) <= _place(name):
            ranking = found
    return ranking


def _parts(trace: Trace) -> dict[str, float]:
    """Milliseconds by part; those of a part that had to be done again add up."""
    parts: defaultdict[str, float] = defaultdict(float)
    for stage in trace.retrieval.stages:
        parts[stage.name] += stage.took_ms
    return dict(parts)
