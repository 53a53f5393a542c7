"""QueryLog: which queries were asked of each collection, for previews of changes and for suggestions.

A small SQLite file in the data folder, shared by all processes. It never slows or fails a search: what is
noted waits in memory for a thread that writes it once a second, and what can't be written is dropped and
counted. It holds no names of users.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from server.analysis.normalize import Normalizer

FILE_NAME = "queries.sqlite"
MAX_QUERIES = 10_000  # of a collection; those not seen for longest go
MAX_QUERY_CHARS = 200  # longer ones are pasted texts, not queries that somebody types again

_FLUSH_SECONDS = 1.0
_WAITING = 10_000  # different queries that wait for a disk that is slow or broken
_BUSY_SECONDS = 5.0
_SCHEMA = """
create table if not exists queries (
    collection text not null, query text not null, count integer not null, last_seen text not null,
    total integer not null, primary key (collection, query)
) strict, without rowid;
create index if not exists queries_by_age on queries (collection, last_seen);
"""
_COUNT = """
insert into queries values (?, ?, ?, ?, ?) on conflict do update set
    count = count + excluded.count,
    total = case when excluded.last_seen >= last_seen then excluded.total else total end,
    last_seen = max(last_seen, excluded.last_seen)
"""
_FORGET_OLDEST = """
delete from queries where collection = ?1 and query in (
    select query from queries where collection = ?1 order by last_seen desc limit -1 offset ?2
)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedQuery:
    """``query`` as normalised text has it; ``total``: the hits that it had when it was last seen."""

    query: str
    count: int
    last_seen: str  # ISO 8601, UTC
    total: int


@dataclass(slots=True)
class _Seen:
    count: int
    last_seen: str
    total: int


class QueryLog:
    """Thread-safe, and safe with other processes. No method raises for a file that can't be used.

    ``dropped``: how many queries could not be kept since the start.
    """

    def __init__(self, path: Path, *, flush_seconds: float = _FLUSH_SECONDS) -> None:
        self.dropped = 0
        self._path = path
        self._flush_seconds = flush_seconds
        self._normalizer = Normalizer()
        self._waiting: dict[tuple[str, str], _Seen] = {}
        self._mutex = threading.Lock()  # of what waits
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    @classmethod
    def in_folder(cls, data: Path) -> "QueryLog":
        return cls(data / FILE_NAME)

    def note(self, collection: str, query: str, total: int) -> None:
        """Count a query that had ``total`` hits; blank and long ones are passed over."""
        if len(query) > MAX_QUERY_CHARS:
            return
        text = " ".join(self._normalizer.normalize(query).text.split())
        if not text or self._closed.is_set():
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._mutex:
            seen = self._waiting.get((collection, text))
            if seen is None and len(self._waiting) >= _WAITING:
                self.dropped += 1
                return
            count = seen.count if seen else 0
            self._waiting[collection, text] = _Seen(count + 1, now, total)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="query-log", daemon=True)
                self._thread.start()

    def recent(self, collection: str, limit: int) -> list[LoggedQuery]:
        """Those last seen, the latest first; none where the file can't be read."""
        self.flush()
        try:
            with self._connect() as connection:
                rows = connection.execute(
                    "select query, count, last_seen, total from queries where collection = ? "
                    "order by last_seen desc, query limit ?",
                    (collection, limit),
                ).fetchall()
        except (sqlite3.Error, OSError):
            return []
        return [
            LoggedQuery(query=query, count=count, last_seen=last_seen, total=total)
            for query, count, last_seen, total in rows
        ]

    def forget(self, collection: str) -> bool:
        """Remove a collection's queries; False where the file can't be written."""
        with self._writing:
            with self._mutex:
                for key in [key for key in self._waiting if key[0] == collection]:
                    del self._waiting[key]
            if not self._path.exists():
                return True
            try:
                with self._connect() as connection:
                    connection.execute("delete from queries where collection = ?", (collection,))
            except (sqlite3.Error, OSError):
                return False
            return True

    def flush(self) -> None:
        """Write what waits."""
        with self._writing:
            with self._mutex:
                waiting, self._waiting = self._waiting, {}
            if not waiting:
                return
            try:
                with self._connect() as connection:
                    connection.executemany(
                        _COUNT,
                        [
                            (*key, seen.count, seen.last_seen, seen.total)
                            for key, seen in waiting.items()
                        ],
                    )
                    for collection in {collection for collection, _ in waiting}:
                        connection.execute(_FORGET_OLDEST, (collection, MAX_QUERIES))
            except (sqlite3.Error, OSError):
                self.dropped += sum(seen.count for seen in waiting.values())

    def close(self) -> None:
        """Write what waits and end the thread; calling it again does nothing."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def _run(self) -> None:
        while not self._closed.wait(self._flush_seconds):
            self.flush()

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        if not self._path.exists():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch(mode=0o600)  # what people look for is nobody else's business
        with (
            closing(sqlite3.connect(self._path, timeout=_BUSY_SECONDS)) as connection,
            connection,
        ):
            connection.executescript(_SCHEMA)
            yield connection
