"""Changes of documents and chunks within a transaction."""

import json
import sqlite3
from datetime import UTC, datetime

from server.documents import Document, IndexedChunk
from server.errors import DocumentNotFound, RevisionConflict
from server.stores.contract import Deleted, Write, Written
from server.stores.embedded.filters import labels_by_key
from server.stores.embedded.rows import State
from server.stores.filters import labels_of

_REMOVALS_KEPT = 100_000  # numbers of the counter for which a process can follow without reloading


class Change:
    """The changes of one transaction, each taking the next number of the collection's counter."""

    def __init__(self, connection: sqlite3.Connection, state: State) -> None:
        self._connection = connection
        self._generation = state.generation
        self._sequence = state.sequence
        self._text_sequence = state.text_sequence
        self._documents, self._chunks = state.documents, state.chunks
        self._now = datetime.now(UTC).isoformat(timespec="milliseconds")

    def put(self, write: Write) -> Written | RevisionConflict:
        """Store a document with its chunks in place of an older one, or say why not."""
        document = write.document
        version, revision = self._current(document.id)
        present = revision if version is not None else 0
        if write.if_revision is not None and write.if_revision != present:
            return _conflict(document.id, write.if_revision, present)
        if version is not None:
            self._remove(version, document.id)
        else:
            self._connection.execute("DELETE FROM tombstones WHERE document_id = ?", (document.id,))
        self._insert_document(document, revision + 1)
        version = self._sequence
        for indexed in write.chunks:
            self._insert_chunk(indexed, version)
        self._documents += 1
        self._chunks += len(write.chunks)
        return Written(
            document_id=document.id,
            revision=revision + 1,
            chunks=len(write.chunks),
            status="updated" if present else "created",
        )

    def delete(self, document_id: str, if_revision: int | None) -> Deleted:
        """Raises DocumentNotFound, RevisionConflict."""
        version, revision = self._current(document_id)
        if version is None:
            raise DocumentNotFound(f"There is no document {document_id}.")
        if if_revision is not None and if_revision != revision:
            raise _conflict(document_id, if_revision, revision)
        chunks = self._remove(version, document_id)
        self._connection.execute(
            "INSERT INTO tombstones VALUES (?, ?)", (document_id, revision + 1)
        )
        return Deleted(document_id=document_id, revision=revision + 1, chunks=chunks)

    def finish(self) -> None:
        """Record the counter and the counts, and forget removals that all indexes have long followed."""
        horizon = min(self._text_sequence, self._sequence - _REMOVALS_KEPT)
        self._connection.execute("DELETE FROM removals WHERE sequence <= ?", (horizon,))
        self._connection.execute(
            "UPDATE state SET sequence = ?, pruned = max(pruned, ?), documents = ?",
            (self._sequence, horizon, self._documents),
        )
        self._connection.execute(
            "UPDATE generations SET chunks = ? WHERE id = ?", (self._chunks, self._generation)
        )

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _current(self, document_id: str) -> tuple[int | None, int]:
        """(version or None, last revision)"""
        row = self._connection.execute(
            "SELECT version, revision FROM documents WHERE document_id = ? "
            "UNION ALL SELECT NULL, revision FROM tombstones WHERE document_id = ?",
            (document_id, document_id),
        ).fetchone()
        return row or (None, 0)

    def _remove(self, version: int, document_id: str) -> int:
        """Drop a version with all that hangs on it; returns its chunks in the live generation."""
        rows = self._connection.execute(
            "SELECT generation, id, position FROM chunks WHERE version = ?", (version,)
        ).fetchall()
        self._connection.executemany(
            "INSERT INTO removals VALUES (?, ?, ?, ?)",
            [
                (self._next(), generation, chunk, f"{document_id}:{position}")
                for generation, chunk, position in rows
            ],
        )
        self._connection.execute("DELETE FROM documents WHERE version = ?", (version,))
        chunks = sum(1 for generation, _, _ in rows if generation == self._generation)
        self._documents -= 1
        self._chunks -= chunks
        return chunks

    def _insert_document(self, document: Document, revision: int) -> None:
        version = self._next()
        given = document.as_json()
        self._connection.execute(
            "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                version,
                document.id,
                revision,
                document.content_hash,
                self._now,
                document.title,
                document.source,
                json.dumps(given["acl"], ensure_ascii=False),
                json.dumps(given["metadata"], ensure_ascii=False),
            ),
        )
        self._connection.execute("INSERT INTO texts VALUES (?, ?)", (version, document.text))
        self._connection.executemany(
            "INSERT INTO labels VALUES (?, ?, ?)",
            [(key, value, version) for key, value in labels_by_key(labels_of(document))],
        )

    def _insert_chunk(self, indexed: IndexedChunk, version: int) -> None:
        number, chunk = self._next(), indexed.chunk
        self._connection.execute(
            "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                number,
                self._generation,
                version,
                chunk.position,
                chunk.start,
                chunk.end,
                json.dumps(chunk.headings, ensure_ascii=False),
                chunk.text,
            ),
        )
        joined = {field: " ".join(terms) for field, terms in indexed.terms.items()}
        self._connection.execute(
            "INSERT INTO terms VALUES (?, ?)", (number, json.dumps(joined, ensure_ascii=False))
        )
        if indexed.vector is not None:
            self._connection.execute(
                "INSERT INTO vectors VALUES (?, ?, ?, ?)",
                (number, self._generation, version, indexed.vector.astype("<f4").tobytes()),
            )


def _conflict(document_id: str, wanted: int, present: int) -> RevisionConflict:
    there = f"it has revision {present}" if present else "it is not there"
    asked = f"revision {wanted}" if wanted else "no document"
    return RevisionConflict(f"Document {document_id}: {asked} was expected, but {there}.")
