"""Lexicons: each collection's phrases and asked queries, made and kept up in the background.

A lexicon is made from the chunks that the store has when somebody first types into a search box of the
collection, and made anew when the store's mark has changed. It is never waited for. A thread that makes
one rests as long as it works, and does not begin again before _REST times as long as it took has passed,
so that a collection that is always written to costs a few per cent of a core. Until then the phrases are
as they were; the caller checks each with the store before it is shown. One that took long is kept in the
store: other servers take it over instead of making their own, and a restart begins with it.
"""

import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from server.errors import CollectionNotFound, StoreUnavailable, TanyuanError
from server.live import LiveCollections
from server.retrieval.lexicon import Entry, Lexicon
from server.retrieval.lexicon_builder import MAX_PHRASE_CHARS, LexiconBuilder
from server.retrieval.lexicon_notes import LexiconNotes
from server.retrieval.query_log import MAX_QUERIES, QueryLog
from server.stores.contract import Store

MAX_LEXICONS = 16  # kept; one of 60,000 phrases takes some 60 MB
LEAST_ASKED = 2  # a query asked once may be anybody's slip, or a secret
LONG_SECONDS = 1.0  # what is made in less is not worth a write to the store

_WORKERS = 2
_LOOK_SECONDS = 2.0  # how often a collection is looked at for changes
_QUERY_SECONDS = 30.0  # how often its log is read
_RETRY_SECONDS = 10.0
_REST = 20
_LEAST_REST_SECONDS = 2.0
_SLICE_SECONDS = 0.05

_log = logging.getLogger(__name__)
_EMPTY = Lexicon((), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrases:
    """``documents``: what stands in the collection's documents. ``queries``: what was asked with a
    result, LEAST_ASKED times or more, whoever asked."""

    documents: Lexicon
    queries: Lexicon = _EMPTY


@dataclass(slots=True)
class _Kept:
    """``version``: of the note that the phrases come from or were kept in."""

    phrases: Phrases | None = None
    mark: str = ""
    version: int = 0
    next_look: float = 0.0
    next_make: float = 0.0
    next_queries: float = 0.0
    waiting: bool = False
    making: threading.Lock = field(default_factory=threading.Lock)


class Lexicons:
    """Thread-safe. Nothing is read and no thread started before the first use. What took
    ``long_seconds`` or more to make is kept in the store."""

    def __init__(
        self,
        store: Store,
        live: LiveCollections,
        query_log: QueryLog | None,
        *,
        long_seconds: float = LONG_SECONDS,
    ) -> None:
        self._store = store
        self._live = live
        self._query_log = query_log
        self._long_seconds = long_seconds
        self._notes = LexiconNotes(store.notes)
        self._kept: dict[str, _Kept] = {}
        self._mutex = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._closed = threading.Event()

    def of(self, collection: str) -> Phrases | None:
        """What is known now, or None while it is being made. Does not wait; has it looked at again
        where that was not done lately."""
        kept = self._keep(collection)
        known = kept.phrases
        with self._mutex:
            if (
                time.monotonic() >= kept.next_look
                and not kept.waiting
                and not self._closed.is_set()
            ):
                kept.waiting = True
                self._pool = self._pool or ThreadPoolExecutor(_WORKERS, "lexicons")
                self._pool.submit(self._look, collection, kept).add_done_callback(_report)
        return known

    def make(self, collection: str) -> Phrases:
        """What is in the store now, made by this thread at once.

        Raises CollectionNotFound, StoreUnavailable.
        """
        kept = self._keep(collection)
        with kept.making:
            made = self._make(collection, kept, rest=False)
            return self._read_queries(collection, kept, made)

    def close(self) -> None:
        """End what is being made; calling it again does nothing."""
        with self._mutex:
            self._closed.set()
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    def _keep(self, collection: str) -> _Kept:
        with self._mutex:
            kept = self._kept.pop(collection, None) or _Kept()
            self._kept[collection] = kept  # the last used is the last
            if len(self._kept) > MAX_LEXICONS:
                del self._kept[next(iter(self._kept))]
            return kept

    def _look(self, collection: str, kept: _Kept) -> None:
        """Bring up what has changed, unless another thread is at it."""
        try:
            kept.next_look = time.monotonic() + _LOOK_SECONDS
            with kept.making:
                if time.monotonic() >= kept.next_make and (
                    kept.phrases is None or self._store.mark(collection) != kept.mark
                ):
                    self._bring_up(collection, kept)
                phrases = kept.phrases
                if phrases is not None and time.monotonic() >= kept.next_queries:
                    self._read_queries(collection, kept, phrases)
        except CollectionNotFound:
            with self._mutex:
                self._kept.pop(collection, None)
        except TanyuanError as error:
            kept.next_look = time.monotonic() + _RETRY_SECONDS
            if not self._closed.is_set():
                _log.warning("suggestions of %s: %s", collection, error.message)
        finally:
            kept.waiting = False

    def _bring_up(self, collection: str, kept: _Kept) -> None:
        """Take over what is kept in the store, and make what that is too old for."""
        found = self._notes.newer(collection, kept.version)
        if found is not None:
            kept.version, kept.mark = found.version, found.mark
            _show(kept, found.lexicon)
            passed = time.time() - found.made
            if 0 <= passed < _rest(found.took):
                kept.next_make = time.monotonic() + _rest(found.took) - passed
                return
            if self._store.mark(collection) == found.mark:
                return
        self._make(collection, kept, rest=True)

    def _make(self, collection: str, kept: _Kept, *, rest: bool) -> Phrases:
        began = time.monotonic()
        mark = self._store.mark(collection)
        builder = LexiconBuilder(self._live.open(collection).analyzer)
        pause = began
        for owned in self._store.owned_chunks(collection):
            builder.add(owned)
            worked = time.monotonic() - pause
            if worked >= _SLICE_SECONDS:
                if rest and self._closed.wait(worked):
                    raise StoreUnavailable("The server is stopping.")
                pause = time.monotonic()
        lexicon = builder.finish()
        phrases = _show(kept, lexicon)
        kept.mark = mark
        took = time.monotonic() - began
        kept.next_make = time.monotonic() + _rest(took)
        if took >= self._long_seconds:
            try:
                kept.version = self._notes.put(
                    collection, lexicon, mark=mark, made=time.time(), took=took
                )
            except TanyuanError as error:
                _log.warning("suggestions of %s are not kept: %s", collection, error.message)
        return phrases

    def _read_queries(self, collection: str, kept: _Kept, phrases: Phrases) -> Phrases:
        kept.next_queries = time.monotonic() + _QUERY_SECONDS
        if self._query_log is None:
            return phrases
        entries = [
            Entry(text=logged.query, kind="query", counts=((0, logged.count),))
            for logged in self._query_log.recent(collection, MAX_QUERIES)
            if logged.count >= LEAST_ASKED
            and logged.total > 0
            and 2 <= len(logged.query) <= MAX_PHRASE_CHARS
        ]
        kept.phrases = Phrases(documents=phrases.documents, queries=Lexicon(entries, [None]))
        return kept.phrases


def _show(kept: _Kept, lexicon: Lexicon) -> Phrases:
    queries = kept.phrases.queries if kept.phrases else _EMPTY
    kept.phrases = Phrases(documents=lexicon, queries=queries)
    return kept.phrases


def _rest(took: float) -> float:
    """Seconds before a lexicon that took this long is made anew."""
    return max(_LEAST_REST_SECONDS, _REST * took)


def _report(done: "Future[None]") -> None:
    """What nobody expected must not vanish with its thread."""
    if not done.cancelled() and (error := done.exception()) is not None:
        _log.error("suggestions could not be made", exc_info=error)
