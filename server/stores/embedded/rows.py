"""Documents and chunks as rows: the SQL of reading them within a transaction."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from server.documents import Chunk, Document, MetadataValue, Passage, StoredDocument
from server.recipes import Recipe
from server.stores.contract import DocumentState
from server.stores.embedded.text_index import TextEntry

_DOCUMENT = """
    SELECT d.document_id, d.title, t.text, d.source, d.acl, d.metadata, d.revision, d.updated_at,
        (SELECT count(*) FROM chunks c WHERE c.version = d.version AND c.generation = ?)
    FROM documents d JOIN texts t ON t.version = d.version
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A collection's own row and that of its live generation.

    ``sequence`` is the last number given out, ``text_sequence`` how far the text index follows.
    ``documents`` and ``chunks`` are their counts.
    """

    description: str
    generation: int
    sequence: int
    documents: int
    recipe: Recipe
    text_folder: str
    text_sequence: int
    chunks: int


def read_state(connection: sqlite3.Connection) -> State:
    description, generation, sequence, documents, recipe, folder, text_sequence, chunks = (
        connection.execute(
            "SELECT s.description, s.generation, s.sequence, s.documents, "
            "g.recipe, g.text_folder, g.text_sequence, g.chunks "
            "FROM state s JOIN generations g ON g.id = s.generation"
        ).fetchone()
    )
    return State(
        description=description,
        generation=generation,
        sequence=sequence,
        documents=documents,
        recipe=Recipe.from_json(json.loads(recipe)),
        text_folder=folder,
        text_sequence=text_sequence,
        chunks=chunks,
    )


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
    cursor = connection.execute(
        f"{_DOCUMENT} WHERE d.document_id > ? ORDER BY d.document_id LIMIT 500",
        (generation, document_id),
    )
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
            metadata=_metadata(metadata),
        ),
        revision=revision,
        chunks=chunks,
        updated_at=updated_at,
    )


def _metadata(stored: str) -> dict[str, MetadataValue]:
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in json.loads(stored).items()
    }


def passages(
    connection: sqlite3.Connection, generation: int, chunk_ids: Sequence[str]
) -> dict[str, Passage]:
    found = {}
    for chunk_id in dict.fromkeys(chunk_ids):
        document_id, _, position = chunk_id.rpartition(":")
        row = connection.execute(
            'SELECT c.position, c.text, c.start, c."end", c.headings, d.title, d.source, '
            "d.metadata, d.revision FROM documents d "
            "JOIN chunks c ON c.version = d.version AND c.generation = ? AND c.position = ? "
            "WHERE d.document_id = ?",
            (generation, position, document_id),
        ).fetchone()
        if row is None or f"{document_id}:{row[0]}" != chunk_id:
            continue
        number, text, start, end, headings, title, source, metadata, revision = row
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
            metadata=_metadata(metadata),
            revision=revision,
        )
    return found


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
