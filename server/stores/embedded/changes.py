"""Changes of documents and chunks within a transaction."""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from server import sparse
from server.documents import Document, IndexedChunk
from server.errors import DocumentNotFound, RevisionConflict
from server.stores.contract import Deleted, Write, Written
from server.stores.embedded.filters import labels_by_key
from server.stores.embedded.states import State
from server.stores.filters import labels_of
from server.stores.generations import Derivation
from server.stores.windows import pack

_REMOVALS_KEPT = 100_000  # numbers of the counter for which a process can follow without reloading


class Change:
    """The changes of one transaction, each taking the next number of the collection's counter.

    ``state``: as the transaction sees it, of the generation that chunks are put into.
    """

    def __init__(self, connection: sqlite3.Connection, state: State) -> None:
        self._connection = connection
        self._generation = state.generation
        self._live = state.live
        self._before = self._sequence = state.sequence
        self._documents = state.documents
        self._chunks = Counter[int]()  # how many more, of each generation that changed
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
        self._insert_chunks(write.chunks, self._sequence)
        self._documents += 1
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

    def derive(self, derivation: Derivation) -> bool:
        """Put chunks in place of all that the generation has of a document, unless it has another
        revision by now. Of a deleted one there is nothing: chunks go with their document."""
        version, revision = self._current(derivation.document_id)
        if version is None or derivation.document is None:
            return version is None and derivation.document is None
        if revision != derivation.revision:
            return False
        self._record_removals(version, derivation.document_id, self._generation)
        self._connection.execute(
            "DELETE FROM chunks WHERE version = ? AND generation = ?", (version, self._generation)
        )
        self._insert_chunks(derivation.chunks, version)
        return True

    def remove_chunk(self, number: int, generation: int, chunk_id: str) -> None:
        """Remove one chunk and nothing else."""
        self._record_removal(number, generation, chunk_id)
        self._connection.execute("DELETE FROM chunks WHERE id = ?", (number,))

    def finish(self) -> None:
        """Record the counter and the counts, and forget removals that all indexes have long followed."""
        for generation, more in self._chunks.items():
            self._connection.execute(
                "UPDATE generations SET chunks = chunks + ? WHERE id = ?", (more, generation)
            )
        # A text index that was level and of which nothing changed is level still.
        self._connection.execute(
            "UPDATE generations SET text_sequence = ? WHERE text_sequence = ? "
            "AND id NOT IN (SELECT value FROM json_each(?))",
            (self._sequence, self._before, json.dumps(list(self._chunks))),
        )
        [followed] = self._connection.execute(
            "SELECT text_sequence FROM generations WHERE id = ?", (self._live,)
        ).fetchone()
        horizon = min(followed, self._sequence - _REMOVALS_KEPT)
        self._connection.execute("DELETE FROM removals WHERE sequence <= ?", (horizon,))
        self._connection.execute(
            "UPDATE state SET sequence = ?, pruned = max(pruned, ?), documents = ?",
            (self._sequence, horizon, self._documents),
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
        chunks = self._record_removals(version, document_id)
        self._connection.execute("DELETE FROM documents WHERE version = ?", (version,))
        self._documents -= 1
        return chunks

    def _record_removals(
        self, version: int, document_id: str, generation: int | None = None
    ) -> int:
        """Of a version's chunks in one generation or in all; returns how many the live one has."""
        rows = self._connection.execute(
            "SELECT generation, id, position FROM chunks "
            "WHERE version = ? AND generation = coalesce(?, generation)",
            (version, generation),
        ).fetchall()
        for of, number, position in rows:
            self._record_removal(number, of, f"{document_id}:{position}")
        return sum(1 for of, _, _ in rows if of == self._live)

    def _record_removal(self, number: int, generation: int, chunk_id: str) -> None:
        self._connection.execute(
            "INSERT INTO removals VALUES (?, ?, ?, ?)",
            (self._next(), generation, number, chunk_id),
        )
        self._chunks[generation] -= 1

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

    def _insert_chunks(self, chunks: Sequence[IndexedChunk], version: int) -> None:
        """All that the generation has of a version, which is level with that."""
        for indexed in chunks:
            self._insert_chunk(indexed, version)
        self._chunks[self._generation] += len(chunks)
        self._connection.execute(
            "INSERT OR REPLACE INTO derivations VALUES (?, ?, ?)",
            (self._generation, version, len(chunks)),
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
        if indexed.windows is not None:
            self._connection.execute(
                "INSERT INTO windows VALUES (?, ?)", (number, pack(indexed.windows))
            )
        if indexed.sparse is not None:
            self._connection.execute(
                "INSERT INTO sparse VALUES (?, ?, ?, ?)",
                (number, self._generation, version, sparse.pack(indexed.sparse)),
            )


def _conflict(document_id: str, wanted: int, present: int) -> RevisionConflict:
    there = f"it has revision {present}" if present else "it is not there"
    asked = f"revision {wanted}" if wanted else "no document"
    return RevisionConflict(f"Document {document_id}: {asked} was expected, but {there}.")
