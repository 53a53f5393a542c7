"""PassageVectors: what embedders made of passages, in one SQLite file that all processes share.

A rebuild takes vectors from the collection itself (server/lifecycle/vectors.py). This file serves what no
collection can: a document whose text changed in places, or that comes back under another id or in another
collection. It holds no texts, and nothing is lost with it: what can't be read, or is not what was written, is
embedded again.
"""

import hashlib
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.documents import Vector

FILE_NAME = "vectors.sqlite"
_BUSY_SECONDS = 1.0
_SEEN_SECONDS = 3_600  # until the use of a vector is noted again
_PAGE_BYTES = 16_384  # holds 10 vectors of 384 numbers, 3 of 1,024
_PART = 8  # an eighth goes where there is no more room
_MANY = 500  # keys in a statement
_CHECK_BYTES = 4
_LENGTH_TOLERANCE = 1e-3
# Not synchronous: what a loss of power damages is found and thrown away.
_PRAGMAS = f"""
pragma page_size = {_PAGE_BYTES};
pragma journal_mode = wal;
pragma synchronous = off;
pragma wal_autocheckpoint = 256;
"""
_SCHEMA = """
create table if not exists vectors (
    key blob primary key, vector blob not null, used integer not null
) strict;
create index if not exists vectors_by_use on vectors (used);
"""


class PassageVectors:
    """Thread-safe, and safe with other processes. No method raises for a file that can't be used.

    ``most``: bytes of the file; those not used for longest go.
    """

    def __init__(self, path: Path, most: int) -> None:
        self._path = path
        self._most = most

    @classmethod
    def in_folder(cls, data: Path, most: int) -> "PassageVectors":
        return cls(data / FILE_NAME, most)

    def get(self, fingerprint: str, dimensions: int, texts: Iterable[str]) -> dict[str, Vector]:
        """Text → vector, of those texts that an embedder with this fingerprint has read before."""
        keys = {_key(fingerprint, text): text for text in texts}
        found: dict[str, Vector] = {}

        def read(connection: sqlite3.Connection) -> None:
            now, touched = int(time.time()), []
            for key, packed, used in _rows(connection, list(keys)):
                vector = _unpacked(key, packed, dimensions)
                if vector is not None:
                    found[keys[key]] = vector
                    if used < now - _SEEN_SECONDS:
                        touched.append((now, key))
            if touched:
                connection.execute("begin immediate")
                connection.executemany("update vectors set used = ? where key = ?", touched)
                connection.execute("commit")

        if keys and self._path.exists():
            self._try(read)
        return found

    def put(self, fingerprint: str, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Keep vectors, one a text; what is not of length 1 is passed over."""
        now = int(time.time())
        sound = np.abs(np.linalg.norm(vectors, axis=1) - 1.0) <= _LENGTH_TOLERANCE  # NaN is not
        keys = [_key(fingerprint, text) for text in texts]
        rows = [
            (key, _packed(key, vector), now)
            for key, vector, good in zip(keys, vectors, sound, strict=True)
            if good
        ]

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("begin immediate")
            connection.executemany("insert or replace into vectors values (?, ?, ?)", rows)
            while _bytes(connection) > self._most and _forget_oldest(connection):
                pass
            connection.execute("commit")

        self._try(write)

    def _try(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Work on the file as far as it goes; one that is damaged is removed."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if not self._path.exists():
                self._path.touch(mode=0o600)  # vectors tell something of the texts
            with closing(self._connect()) as connection:
                work(connection)
        except (sqlite3.OperationalError, OSError):  # locked, full, read-only
            return
        except sqlite3.DatabaseError:
            # Others that have it open go on with what is gone, and find the new one next time.
            for suffix in ("", "-wal", "-shm"):
                with suppress(OSError):
                    self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            connection.executescript(_PRAGMAS + _SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def _rows(
    connection: sqlite3.Connection, keys: Sequence[bytes]
) -> Iterator[tuple[bytes, bytes, int]]:
    for start in range(0, len(keys), _MANY):
        some = keys[start : start + _MANY]
        marks = ",".join("?" * len(some))
        wanted = f"select key, vector, used from vectors where key in ({marks})"  # noqa: S608
        yield from connection.execute(wanted, some).fetchall()


def _bytes(connection: sqlite3.Connection) -> int:
    """Of pages that hold something."""
    pages, free, size = (
        connection.execute(f"pragma {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _forget_oldest(connection: sqlite3.Connection) -> bool:
    """Whether there was anything left to forget."""
    (count,) = connection.execute("select count(*) from vectors").fetchone()
    connection.execute(
        "delete from vectors where key in (select key from vectors order by used, rowid limit ?)",
        (count // _PART + 1,),
    )
    return bool(count)


def _key(fingerprint: str, text: str) -> bytes:
    return hashlib.sha256(f"{fingerprint}\0{text}".encode(errors="surrogatepass")).digest()


def _check(key: bytes, content: bytes) -> bytes:
    return zlib.crc32(key + content).to_bytes(_CHECK_BYTES, "little")


def _packed(key: bytes, vector: Vector) -> bytes:
    content = vector.astype("<f4").tobytes()
    return content + _check(key, content)


def _unpacked(key: bytes, packed: bytes, dimensions: int) -> Vector | None:
    """None where it is not what was written for this key: SQLite has no checks of its own."""
    content, check = packed[:-_CHECK_BYTES], packed[-_CHECK_BYTES:]
    if len(content) != 4 * dimensions or check != _check(key, content):
        return None
    return np.frombuffer(content, "<f4").astype(np.float32)
