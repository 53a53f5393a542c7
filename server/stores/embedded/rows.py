"""Documents and chunks as rows: the SQL of reading them within a transaction."""

import json
import sqlite3
from collections.abc import Iterator, Sequence

import numpy as np

from server import sparse
from server.documents import Chunk, Document, MetadataValue, Passage, StoredDocument, Vector
from server.stores.contract import DocumentState, OwnedChunk
from server.stores.embedded.text_index import TextEntry
from server.stores.generations import Pending, StoredChunk
from server.stores.windows import unpack_sound

_DOCUMENT = """
    SELECT d.document_id, d.title, t.text, d.source, d.acl, d.metadata, d.revision, d.updated_at,
        (SELECT count(*) FROM chunks c WHERE c.version = d.version AND c.generation = ?)
    FROM documents d JOIN texts t ON t.version = d.version
"""
_PENDING = """
    NOT EXISTS (SELECT 1 FROM derivations l WHERE l.version = d.version AND l.generation = ?)
"""


def states(
    connection: sqlite3.Connection, generation: int, document_ids: Sequence[str]
) -> dict[str, DocumentState]:
    rows = connection.execute(
        "SELECT d.document_id, d.revision, d.content_hash, "
        "(SELECT count(*) FROM chunks c WHERE c.version = d.version AND c.generation = ?) "
        "FROM documents d WHERE d.document_id IN (SELECT value FROM json_each(?))",
        (generation, json.dumps(list(document_ids))),
    )
    return {
        document_id: DocumentState(
            revision=revision, content_hash=content_hash, chunks=chunks, complete=True
        )
        for document_id, revision, content_hash, chunks in rows
    }


def document(
    connection: sqlite3.Connection, generation: int, document_id: str
) -> StoredDocument | None:
    row = connection.execute(
        f"{_DOCUMENT} WHERE d.document_id = ?", (generation, document_id)
    ).fetchone()
    return None if row is None else _stored(row)


def documents_after(
    connection: sqlite3.Connection, generation: int, document_id: str, *, max_chars: int
) -> list[StoredDocument]:
    """The next documents by id, until their texts pass ``max_chars``."""
    return _until(
        connection.execute(
            f"{_DOCUMENT} WHERE d.document_id > ? ORDER BY d.document_id LIMIT 500",
            (generation, document_id),
        ),
        max_chars,
    )


def pending_after(
    connection: sqlite3.Connection, generation: int, document_id: str, *, max_chars: int
) -> list[Pending]:
    """The same of documents that are not level."""
    return [
        Pending(document_id=stored.document.id, revision=stored.revision, document=stored.document)
        for stored in _until(
            connection.execute(
                f"{_DOCUMENT} WHERE d.document_id > ? AND {_PENDING} "
                "ORDER BY d.document_id LIMIT 500",
                (generation, document_id, generation),
            ),
            max_chars,
        )
    ]


def pending_count(connection: sqlite3.Connection, generation: int) -> int:
    [count] = connection.execute(
        f"SELECT count(*) FROM documents d WHERE {_PENDING}",  # noqa: S608
        (generation,),
    ).fetchone()
    return int(count)


def _until(cursor: sqlite3.Cursor, max_chars: int) -> list[StoredDocument]:
    found: list[StoredDocument] = []
    chars = 0
    for row in cursor:
        found.append(_stored(row))
        chars += len(found[-1].document.text)
        if chars > max_chars:
            break
    cursor.close()
    return found


def _stored(row: tuple[str, str, str, str, str, str, int, str, int]) -> StoredDocument:
    document_id, title, text, source, acl, metadata, revision, updated_at, chunks = row
    return StoredDocument(
        document=Document(
            id=document_id,
            text=text,
            title=title,
            source=source,
            acl=tuple(json.loads(acl)),
            metadata=metadata_of(metadata),
        ),
        revision=revision,
        chunks=chunks,
        updated_at=updated_at,
    )


def metadata_of(stored: str) -> dict[str, MetadataValue]:
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in json.loads(stored).items()
    }


def passages(
    connection: sqlite3.Connection,
    generation: int,
    chunk_ids: Sequence[str],
    *,
    windows: bool = False,
) -> dict[str, Passage]:
    found = {}
    for chunk_id in dict.fromkeys(chunk_ids):
        document_id, _, position = chunk_id.rpartition(":")
        row = connection.execute(
            'SELECT c.position, c.text, c.start, c."end", c.headings, d.title, d.source, '
            "d.metadata, d.revision, CAST(w.windows AS BLOB) FROM documents d "
            "JOIN chunks c ON c.version = d.version AND c.generation = ? AND c.position = ? "
            "LEFT JOIN windows w ON w.chunk = c.id AND ? WHERE d.document_id = ?",
            (generation, position, windows, document_id),
        ).fetchone()
        if row is None or f"{document_id}:{row[0]}" != chunk_id:
            continue
        number, text, start, end, headings, title, source, metadata, revision, rows = row
        found[chunk_id] = Passage(
            chunk=Chunk(
                document_id=document_id,
                position=number,
                text=text,
                start=start,
                end=end,
                headings=tuple(json.loads(headings)),
            ),
            title=title,
            source=source,
            metadata=metadata_of(metadata),
            revision=revision,
            windows=unpack_sound(rows),
        )
    return found


def owned_chunks_after(
    connection: sqlite3.Connection, generation: int, document_id: str, *, max_chars: int
) -> list[OwnedChunk]:
    """The chunks of the next documents by id, until their texts pass ``max_chars``."""
    found: list[OwnedChunk] = []
    chars = 0
    cursor = connection.execute(
        'SELECT d.document_id, d.title, d.acl, c.position, c.text, c.start, c."end", c.headings '
        "FROM documents d JOIN chunks c ON c.version = d.version AND c.generation = ? "
        "WHERE d.document_id > ? ORDER BY d.document_id, c.position",
        (generation, document_id),
    )
    for identity, title, acl, position, text, start, end, headings in cursor:
        if chars > max_chars and identity != found[-1].chunk.document_id:
            break
        chars += len(text)
        chunk = Chunk(
            document_id=identity,
            position=position,
            text=text,
            start=start,
            end=end,
            headings=tuple(json.loads(headings)),
        )
        found.append(OwnedChunk(chunk=chunk, title=title, acl=tuple(json.loads(acl))))
    cursor.close()
    return found


def vector_in(stored: bytes | None) -> Vector | None:
    """A vector as it lies in its row, of whatever size."""
    if stored is None:
        return None
    return np.frombuffer(stored[: len(stored) // 4 * 4], "<f4").astype(np.float32)


def chunks(
    connection: sqlite3.Connection,
    generation: int,
    document_ids: Sequence[str],
    *,
    dimensions: int,
) -> dict[str, tuple[StoredChunk, ...]]:
    """What the generation has of documents, by position; vectors that are damaged are none."""
    found: dict[str, list[StoredChunk]] = {}
    for document_id, position, text, start, end, headings, *packed in connection.execute(
        'SELECT d.document_id, c.position, c.text, c.start, c."end", c.headings, '
        "CAST(v.vector AS BLOB), CAST(w.windows AS BLOB), CAST(s.weights AS BLOB) "
        "FROM documents d JOIN chunks c ON c.version = d.version AND c.generation = ? "
        "LEFT JOIN vectors v ON v.chunk = c.id LEFT JOIN windows w ON w.chunk = c.id "
        "LEFT JOIN sparse s ON s.chunk = c.id "
        "WHERE d.document_id IN (SELECT value FROM json_each(?)) ORDER BY c.position",
        (generation, json.dumps(list(document_ids))),
    ):
        chunk = Chunk(
            document_id=document_id,
            position=position,
            text=text,
            start=start,
            end=end,
            headings=tuple(json.loads(headings)),
        )
        vector, rows, weights = packed
        kept = vector_in(vector)
        if kept is not None and not (kept.shape == (dimensions,) and np.isfinite(kept).all()):
            kept = None
        windows = unpack_sound(rows)
        if windows is not None and windows.shape[1] != dimensions:
            windows = None
        stored = StoredChunk(
            chunk=chunk, vector=kept, windows=windows, sparse=sparse.unpack_sound(weights)
        )
        found.setdefault(document_id, []).append(stored)
    return {document_id: tuple(chunks) for document_id, chunks in found.items()}


def chunk_ids(connection: sqlite3.Connection, numbers: Sequence[int]) -> dict[int, str]:
    """Chunk number → chunk id, also of chunks that were removed not long ago."""
    wanted = json.dumps(numbers)
    return dict(
        connection.execute(
            "SELECT c.id, d.document_id || ':' || c.position "
            "FROM chunks c JOIN documents d ON d.version = c.version "
            "WHERE c.id IN (SELECT value FROM json_each(?)) "
            "UNION ALL SELECT chunk, chunk_id FROM removals "
            "WHERE chunk IN (SELECT value FROM json_each(?))",
            (wanted, wanted),
        )
    )


def removed_since(connection: sqlite3.Connection, generation: int, sequence: int) -> Iterator[int]:
    """Numbers of the chunks removed after ``sequence``."""
    for (chunk,) in connection.execute(
        "SELECT chunk FROM removals WHERE sequence > ? AND generation = ?", (sequence, generation)
    ):
        yield chunk


def added_since(
    connection: sqlite3.Connection, generation: int, sequence: int
) -> Iterator[TextEntry]:
    """What the text index takes of the chunks added after ``sequence``."""
    rows = connection.execute(
        "SELECT c.id, c.version, t.terms FROM chunks c JOIN terms t ON t.chunk = c.id "
        "WHERE c.id > ? AND c.generation = ? ORDER BY c.id",
        (sequence, generation),
    )
    labelled, labels = -1, list[tuple[str, str]]()
    for chunk, version, terms in rows:
        if version != labelled:
            labelled = version
            labels = connection.execute(
                "SELECT key, value FROM labels WHERE version = ?", (version,)
            ).fetchall()
        yield TextEntry(chunk=chunk, terms=json.loads(terms), labels=labels)
