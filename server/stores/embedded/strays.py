"""Strays: rows of the database that others should go with, and don't.

SQLite's foreign keys let none come about; a file that was changed by other programs, or that a disk
gave back wrong, may have them.
"""

import sqlite3
from collections.abc import Iterator

from server.stores.audit import Drift

_NO_CHUNK = "chunk NOT IN (SELECT id FROM chunks)"
_NO_DOCUMENT = "version NOT IN (SELECT version FROM documents)"
# Table → which of its rows belong to none. The labels of chunks without a document still name it.
_STRAY = {
    "terms": _NO_CHUNK,
    "vectors": _NO_CHUNK,
    "windows": _NO_CHUNK,
    "sparse": _NO_CHUNK,
    "texts": _NO_DOCUMENT,
    "derivations": _NO_DOCUMENT,
    "labels": "version NOT IN (SELECT version FROM documents UNION SELECT version FROM chunks)",
}
_TERMLESS = "id NOT IN (SELECT chunk FROM terms) AND version IN (SELECT version FROM documents)"


class Strays:
    """Of one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def drift(self) -> Iterator[Drift]:
        for part, stray in _STRAY.items():
            count = self._count(part, stray)
            if count:
                yield Drift(part, "surplus", "", f"{count} rows belong to no document or chunk")
        for chunk_id in self._connection.execute(
            "SELECT d.document_id || ':' || c.position FROM chunks c "
            "JOIN documents d ON d.version = c.version "
            "WHERE c.id NOT IN (SELECT chunk FROM terms) LIMIT 1000"
        ):
            yield Drift("terms", "missing", chunk_id[0], "the chunk has no terms")

    def remove(self) -> bool:
        """Remove strays; whether there were any.

        A document with a chunk that lacks its terms is level no more, so that it is derived again.
        """
        before = self._connection.total_changes
        self._delete(
            "derivations",
            "EXISTS (SELECT 1 FROM chunks c WHERE c.version = derivations.version "
            "AND c.generation = derivations.generation AND c.id NOT IN (SELECT chunk FROM terms))",
        )
        self._delete("chunks", _TERMLESS)
        for part, stray in _STRAY.items():
            self._delete(part, stray)
        if self._connection.total_changes == before:
            return False
        # No removals are on record, so whoever has the vectors in memory loads them anew.
        self._connection.execute("UPDATE state SET sequence = sequence + 1, pruned = sequence + 1")
        return True

    def _count(self, table: str, condition: str) -> int:
        [count] = self._connection.execute(
            f"SELECT count(*) FROM {table} WHERE {condition}"  # noqa: S608
        ).fetchone()
        return int(count)

    def _delete(self, table: str, condition: str) -> None:
        self._connection.execute(f"DELETE FROM {table} WHERE {condition}")  # noqa: S608
