"""Tuner: a collection's tuning from judged queries to a saved version of its profile."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from server.errors import InvalidInput
from server.evaluation.dataset import Qrels
from server.evaluation.measures import measure
from server.evaluation.replay import Recorder
from server.evaluation.tuning import (
    DEPTH,
    TUNABLE,
    Trials,
    Tunable,
    Tuning,
    largest_window,
    p_said,
    tune,
)
from server.retrieval.profile import Profile
from server.retrieval.profiles import Profiles, ProfileVersion
from server.retrieval.query import SearchQuery
from server.retrieval.searcher import Searcher
from server.stores.contract import Store

T = TypeVar("T")

_MEASURE = f"nDCG@{DEPTH}"
_IDS_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Judged queries. ``source``: where they come from, for the report."""

    source: str
    queries: Mapping[str, str]
    qrels: Qrels


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A tuning and what real searches say of it.

    ``version``: of the profile that it began with. ``unanswerable``: queries left out because none of
    the documents judged to suit them is in the collection. ``searched``: nDCG@10 by real searches with
    the profile in force and with the chosen one.
    """

    collection: str
    source: str
    embedder: str
    version: int
    tuning: Tuning
    tunables: tuple[Tunable, ...]
    unanswerable: int
    profiles_tried: int
    searched: tuple[float, float]

    @property
    def objection(self) -> str:
        """Why the chosen profile should not be put in force; empty where nothing speaks against it."""
        before, after = self.searched
        if not self.tuning.objection and after <= before:
            return "Real searches find no gain."
        return self.tuning.objection

    @property
    def figures(self) -> dict[str, Any]:
        """What is kept with the version."""
        held_out = self.tuning.held_out
        return {
            "source": self.source,
            "embedder": self.embedder,
            "measure": _MEASURE,
            "queries": self.tuning.queries,
            "folds": len(self.tuning.folds),
            "before": round(self.tuning.before, 4),
            "held_out": round(self.tuning.after, 4),
            "gain": round(held_out.difference, 4),
            "low": round(held_out.low, 4),
            "high": round(held_out.high, 4),
            "p": round(held_out.p, 5),
            "searched_before": round(self.searched[0], 4),
            "searched_after": round(self.searched[1], 4),
        }

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {
            "collection": self.collection,
            **self.figures,
            "in_force": self.version,
            "unanswerable": self.unanswerable,
            "profiles_tried": self.profiles_tried,
            "chosen": self.tuning.chosen.as_dict(),
            "values": self.tuning.values(self.tunables),
            "parts": [
                {
                    "queries": fold.queries,
                    "before": round(fold.before, 4),
                    "after": round(fold.after, 4),
                }
                for fold in self.tuning.folds
            ],
            "objection": self.objection or None,
        }


def _unwatched(items: Iterable[T], _: str) -> Iterable[T]:
    return items


class Tuner:
    """``watch`` wraps what is gone through, with its unit, and yields the same: for a progress bar."""

    def __init__(
        self,
        store: Store,
        searcher: Searcher,
        profiles: Profiles,
        *,
        watch: Callable[[Iterable[Any], str], Iterable[Any]] = _unwatched,
    ) -> None:
        self._store = store
        self._searcher = searcher
        self._profiles = profiles
        self._watch = watch

    def run(
        self,
        collection: str,
        judged: Judged,
        *,
        folds: int = 5,
        seed: int = 0,
        progress: Callable[[], None] = lambda: None,
    ) -> Report:
        """Choose a profile for these queries and measure it; nothing is changed. ``progress`` is called
        after each profile that was tried.

        Raises CollectionNotFound, StoreUnavailable, ModelUnavailable, RecipeMismatch, and InvalidInput
        where none of the documents that are judged to suit is in the collection.
        """
        version = self._profiles.latest(collection)
        start = self._profiles.profile(collection)
        queries = self._answerable(collection, judged)
        qrels = {query_id: judged.qrels[query_id] for query_id in queries}
        tunables = self._tunables(collection)
        recorder = Recorder(self._store, self._searcher, depth=largest_window(start, tunables))
        recordings = {
            query_id: recorder.record(collection, queries[query_id])
            for query_id in self._watch(list(queries), "query")
        }
        trials = Trials(recordings, qrels, progress=progress)
        tuning = tune(trials, start, fold_count=folds, seed=seed, tunables=tunables)
        before = self._search(collection, queries, qrels, start)
        chosen = tuning.chosen
        after = before if chosen == start else self._search(collection, queries, qrels, chosen)
        return Report(
            collection=collection,
            source=judged.source,
            embedder=self._store.live(collection).recipe.embedder,
            version=version,
            tuning=tuning,
            tunables=tunables,
            unanswerable=len(judged.queries) - len(queries),
            profiles_tried=trials.count,
            searched=(before, after),
        )

    def save(self, report: Report, *, author: str, comment: str = "") -> ProfileVersion | None:
        """Put the chosen profile in force; None where it is already.

        Raises NoteConflict where the profile was changed since the tuning began.
        """
        held_out = report.tuning.held_out
        return self._profiles.save(
            report.collection,
            report.tuning.chosen,
            author=author,
            comment=comment
            or f"tuned to {report.source}: {_MEASURE} {held_out.difference:+.3f} held out, "
            f"{p_said(held_out.p)}",
            report=report.figures,
            expected=report.version,
        )

    def _answerable(self, collection: str, judged: Judged) -> dict[str, str]:
        """The queries of which a document that suits is there."""
        relevant = {
            query_id: {document for document, grade in judged.qrels[query_id].items() if grade > 0}
            for query_id in judged.queries
        }
        ids = sorted(set().union(*relevant.values()))
        present: set[str] = set()
        for at in range(0, len(ids), _IDS_AT_ONCE):
            present |= self._store.states(collection, ids[at : at + _IDS_AT_ONCE]).keys()
        found = {
            query_id: text
            for query_id, text in judged.queries.items()
            if relevant[query_id] & present
        }
        if not found:
            raise InvalidInput(
                f"None of the documents that {judged.source} judges to suit a query is in collection "
                f"{collection!r}."
            )
        return found

    def _tunables(self, collection: str) -> tuple[Tunable, ...]:
        """Without vectors there is one list, and nothing to fuse."""
        if self._store.live(collection).recipe.embedder:
            return TUNABLE
        return tuple(each for each in TUNABLE if each.path.startswith("field_weights."))

    def _search(
        self, collection: str, queries: Mapping[str, str], qrels: Qrels, profile: Profile
    ) -> float:
        """nDCG@10 of the fused lists of real searches."""
        run = {}
        for query_id in self._watch(list(queries), "search"):
            query = SearchQuery(
                query=queries[query_id],
                collection=collection,
                size=DEPTH,
                profile=profile,
                rerank=False,
                group=True,
                highlight=False,
            )
            hits = self._searcher.search(query, groups=None).hits
            run[query_id] = {hit.document_id: 1 / rank for rank, hit in enumerate(hits, 1)}
        return measure(qrels, run)[_MEASURE]
