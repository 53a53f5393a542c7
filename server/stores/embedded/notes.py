"""EmbeddedNotes: the notes of the store's collections, a table in each database."""

import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from server.errors import NoteConflict
from server.stores.embedded.collection import OpenCollection
from server.stores.note_checks import check_key, encoded
from server.stores.notes import Note


class EmbeddedNotes:
    """``server.stores.notes`` over the open collections."""

    def __init__(self, opened: Callable[[str], AbstractContextManager[OpenCollection]]) -> None:
        self._opened = opened

    def get(self, collection: str, key: str) -> Note | None:
        with self._opened(collection) as opened, opened.database.reading() as connection:
            row = connection.execute(
                "SELECT version, value FROM notes WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else Note(version=row[0], value=json.loads(row[1]))

    def under(self, collection: str, prefix: str) -> dict[str, Note]:
        with self._opened(collection) as opened, opened.database.reading() as connection:
            rows = connection.execute(
                "SELECT key, version, value FROM notes "
                "WHERE key >= :prefix AND substr(key, 1, length(:prefix)) = :prefix ORDER BY key",
                {"prefix": prefix},
            ).fetchall()
        return {key: Note(version=version, value=json.loads(value)) for key, version, value in rows}

    def put(
        self, collection: str, key: str, value: Mapping[str, Any], *, expected: int | None = None
    ) -> Note:
        check_key(key)
        stored = encoded(value)
        with self._opened(collection) as opened, opened.changing() as connection:
            version = _version(connection, key, expected) + 1
            connection.execute(
                "INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", (key, version, stored)
            )
        return Note(version=version, value=json.loads(stored))

    def delete(self, collection: str, key: str, *, expected: int | None = None) -> bool:
        with self._opened(collection) as opened, opened.changing() as connection:
            version = _version(connection, key, expected)
            connection.execute("DELETE FROM notes WHERE key = ?", (key,))
        return version > 0


def _version(connection: sqlite3.Connection, key: str, expected: int | None) -> int:
    """The version that is there, 0 for none. Raises NoteConflict."""
    row = connection.execute("SELECT version FROM notes WHERE key = ?", (key,)).fetchone()
    version = 0 if row is None else int(row[0])
    if expected not in {None, version}:
        raise NoteConflict(
            f"Note {key} was changed by another process: it has version {version} by now, "
            f"not {expected}."
        )
    return version
