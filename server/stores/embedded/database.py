"""SQLite: the truth of one collection, and the errors that its files can give."""

import contextlib
import errno
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from server.errors import InvalidInput, StoreFull, StoreTimeout, StoreUnavailable, TanyuanError
from server.stores.embedded.schema import SCHEMA, SCHEMA_VERSION, migrate

_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# A quota or a file size limit shows as an I/O error of a write, not as SQLITE_FULL.
_FULL_CODES = frozenset({"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE"})
_BUSY_CODES = frozenset({"SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_BUSY_TIMEOUT"})
_DAMAGED_CODES = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB"})


def translated(error: Exception, place: Path) -> TanyuanError:
    """The store's error for one of SQLite, of the file system or of text that is no Unicode."""
    code = getattr(error, "sqlite_errorname", "") or ""
    if code in _FULL_CODES or (isinstance(error, OSError) and error.errno in _FULL_ERRNOS):
        return StoreFull(f"The disk took no more of {place} ({error}). Free space and try again.")
    if code.startswith("SQLITE_BUSY") or code in _BUSY_CODES:
        return StoreTimeout(f"{place} is locked by another program; try again.")
    if code in _DAMAGED_CODES or code.startswith("SQLITE_CORRUPT"):
        return StoreUnavailable(
            f"{place} is damaged ({error}). Restore it from a backup, or delete the collection's "
            "folder and index its documents again."
        )
    if isinstance(error, UnicodeEncodeError):
        return InvalidInput("A text holds a lone surrogate; remove it and send the text again.")
    return StoreUnavailable(f"{place} can't be used: {error}.")


@contextlib.contextmanager
def vendor_errors(place: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the file system into the store's own."""
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeEncodeError) as error:
        raise translated(error, place) from error


class Database:
    """A pool of connections to one collection's file. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._idle: list[sqlite3.Connection] = []
        self._mutex = threading.Lock()
        self._closed = False

    @classmethod
    def create(cls, path: Path) -> "Database":
        """Make the file with its empty tables."""
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(f"BEGIN; {SCHEMA} COMMIT;")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        return cls(path)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one unchanging state."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            try:
                connection.execute("SELECT sequence FROM state")  # the state is taken here
                yield connection
            finally:
                connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction: committed, and on the disk if ``durable``, or rolled back on an error.

        The caller holds the write lock.
        """
        with self._connection() as connection:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def copy(self, file: Path) -> None:
        """Write the database as it is now to a new file, while others write."""
        with self._connection() as connection, contextlib.closing(sqlite3.connect(file)) as target:
            connection.backup(target)  # in one step, so that no writer makes it begin again

    def close(self) -> None:
        with self._mutex:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._mutex:
            if self._closed:
                raise StoreUnavailable("The store is closed.")
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._connect()
        healthy = False  # a connection that saw an error is not used again
        try:
            yield connection
            healthy = True
        finally:
            with self._mutex:
                keep = healthy and not self._closed
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()

    def _connect(self) -> sqlite3.Connection:
        # mode=rw: never make a new file where a collection was deleted.
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=10.0,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA journal_size_limit = 67108864")
            self._check_schema(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        if not migrate(connection):
            [found] = connection.execute("PRAGMA user_version").fetchone()
            raise StoreUnavailable(
                f"{self.path} has the schema version {found}, this program reads {SCHEMA_VERSION}. "
                "Export the collection with the version that wrote it and import it here."
            )
