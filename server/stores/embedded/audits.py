"""EmbeddedAudits: what the store's parts have of each document, and where they differ."""

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice

from server import sparse
from server.documents import Chunk, Document
from server.stores.audit import Audited, AuditedChunk, Drift, DriftKind
from server.stores.embedded.changes import Change
from server.stores.embedded.collection import OpenCollection
from server.stores.embedded.filters import label_terms
from server.stores.embedded.rows import metadata_of, vector_in
from server.stores.embedded.states import read_state
from server.stores.embedded.strays import Strays
from server.stores.embedded.text_follower import TextFollower
from server.stores.embedded.text_index import TextIndexDamaged
from server.stores.windows import unpack

_PAGE = 100  # documents read in one transaction
_TOLD = 1_000  # drifts of one part that are told one by one


class EmbeddedAudits:
    """``server.stores.audit`` over the open collections.

    A chunk's key is its number. Of its document's parts the labels alone are kept twice. It has the
    document's own revision, since both are rows of one database; one without a document has revision 0.
    """

    def __init__(self, opened: Callable[[str], AbstractContextManager[OpenCollection]]) -> None:
        self._opened = opened

    def every(self, collection: str) -> Iterator[Audited]:
        with self._opened(collection) as opened:
            with opened.database.reading() as connection:
                orphans = _orphans(connection, read_state(connection).generation)
            last = ""
            while True:
                with opened.database.reading() as connection:
                    names = [
                        name
                        for (name,) in connection.execute(
                            "SELECT document_id FROM documents WHERE document_id > ? "
                            "ORDER BY document_id LIMIT ?",
                            (last, _PAGE),
                        )
                    ]
                    end = names[-1] if len(names) == _PAGE else None
                    strange = {n for n in orphans if last < n and (end is None or n <= end)}
                    page = [
                        _audited(connection, name, orphans.get(name, ()))
                        for name in sorted({*names, *strange})
                    ]
                yield from page
                if end is None:
                    return
                last = end

    def one(self, collection: str, document_id: str) -> Audited:
        with self._opened(collection) as opened, opened.database.reading() as connection:
            orphans = _orphans_named(connection, read_state(connection).generation, document_id)
            return _audited(connection, document_id, orphans)

    def drift(self, collection: str) -> list[Drift]:
        with self._opened(collection) as opened:
            with opened.database.reading() as connection:
                found = [*Strays(connection).drift(), *_counts(connection)]
            with opened.writing():
                text = opened.searches.text(opened.state().generation)
                return found + list(_text_drift(opened, text))

    def remove(self, collection: str, keys: Sequence[str]) -> int:
        with self._opened(collection) as opened, opened.writing():
            with opened.database.writing() as connection:
                state = read_state(connection)
                change, removed = Change(connection, state), 0
                for key in dict.fromkeys(keys):
                    row = connection.execute(
                        f"{_REMOVABLE} WHERE c.id = ?",
                        (int(key) if key.isascii() and key.isdigit() and len(key) < 19 else 0,),
                    ).fetchone()
                    if row is not None and row[2]:
                        generation, chunk_id, _ = row
                        change.remove_chunk(int(key), generation, chunk_id)
                        removed += 1
                change.finish()
            opened.follow()
        return removed

    def mend(self, collection: str) -> None:
        with self._opened(collection) as opened, opened.writing():
            with opened.database.writing() as connection:
                strays = Strays(connection).remove()
                connection.execute("UPDATE state SET documents = (SELECT count(*) FROM documents)")
                connection.execute(
                    "UPDATE generations SET chunks = "
                    "(SELECT count(*) FROM chunks WHERE generation = generations.id)"
                )
            text = opened.searches.text(opened.state().generation)
            wrong = next(iter(_text_drift(opened, text)), None)
            if strays or wrong is not None:
                text.rebuild("rows went that belonged to none" if wrong is None else wrong.detail)


# A chunk may go when its document is gone, or when another one stands at its place.
_REMOVABLE = """
    SELECT c.generation,
        coalesce(d.document_id,
            (SELECT substr(value, 2) FROM labels WHERE version = c.version AND key = 'document_id'),
            'version ' || c.version) || ':' || c.position,
        d.version IS NULL OR EXISTS (SELECT 1 FROM chunks o WHERE o.version = c.version
            AND o.generation = c.generation AND o.position = c.position AND o.id != c.id)
    FROM chunks c LEFT JOIN documents d ON d.version = c.version
"""


def _orphans(connection: sqlite3.Connection, generation: int) -> dict[str, list[int]]:
    """Document id → versions that have chunks but no document. Labels still know the id."""
    found: dict[str, list[int]] = {}
    for version, name in connection.execute(
        "SELECT c.version, substr(l.value, 2) FROM (SELECT DISTINCT version FROM chunks "
        "WHERE generation = ? AND version NOT IN (SELECT version FROM documents)) c "
        "LEFT JOIN labels l ON l.version = c.version AND l.key = 'document_id'",
        (generation,),
    ):
        found.setdefault(name or f"version {version}", []).append(version)
    return found


def _orphans_named(connection: sqlite3.Connection, generation: int, document_id: str) -> list[int]:
    """The same of one id, without a look at every chunk."""
    versions = {
        version
        for (version,) in connection.execute(
            "SELECT version FROM labels WHERE key = 'document_id' AND value = 's' || ?",
            (document_id,),
        )
    }
    word, _, number = document_id.partition(" ")
    if word == "version" and number.isascii() and number.isdigit() and len(number) < 19:
        versions.add(int(number))
    return [
        version
        for (version,) in connection.execute(
            "SELECT DISTINCT c.version FROM json_each(?) v JOIN chunks c ON c.version = v.value "
            "WHERE c.generation = ? AND c.version NOT IN (SELECT version FROM documents)",
            (json.dumps(sorted(versions)), generation),
        )
    ]


def _audited(connection: sqlite3.Connection, document_id: str, orphans: Sequence[int]) -> Audited:
    generation = read_state(connection).generation
    row = connection.execute(
        "SELECT d.version, d.revision, d.title, t.text, d.source, d.acl, d.metadata, "
        "d.content_hash, l.chunks "
        "FROM documents d LEFT JOIN texts t ON t.version = d.version "
        "LEFT JOIN derivations l ON l.version = d.version AND l.generation = ? "
        "WHERE d.document_id = ?",
        (generation, document_id),
    ).fetchone()
    chunks = [
        chunk
        for version in orphans
        for chunk in _chunks(connection, generation, version, document_id, 0)
    ]
    if row is None:
        return Audited(
            document_id=document_id,
            document=None,
            revision=0,
            chunks_expected=0,
            complete=True,
            level=True,
            chunks=_by_position(chunks),
        )
    version, revision, title, text, source, acl, metadata, content_hash, expected = row
    chunks += _chunks(connection, generation, version, document_id, revision)
    return Audited(
        document_id=document_id,
        document=Document(
            id=document_id,
            text=text or "",
            title=title,
            source=source,
            acl=tuple(json.loads(acl)),
            metadata=metadata_of(metadata),
        ),
        revision=revision,
        chunks_expected=expected or 0,
        complete=text is not None,
        level=expected is not None,
        chunks=_by_position(chunks),
        content_hash=content_hash,
    )


def _chunks(
    connection: sqlite3.Connection, generation: int, version: int, document_id: str, revision: int
) -> Iterator[AuditedChunk]:
    labels = connection.execute("SELECT key, value FROM labels WHERE version = ?", (version,))
    terms = tuple(sorted(label_terms(labels.fetchall())))
    for number, position, text, start, end, headings, *packed in connection.execute(
        'SELECT c.id, c.position, c.text, c.start, c."end", c.headings, '
        "CAST(v.vector AS BLOB), CAST(w.windows AS BLOB), CAST(s.weights AS BLOB) "
        "FROM chunks c LEFT JOIN vectors v ON v.chunk = c.id LEFT JOIN windows w ON w.chunk = c.id "
        "LEFT JOIN sparse s ON s.chunk = c.id "
        "WHERE c.version = ? AND c.generation = ?",
        (version, generation),
    ):
        vector, windows, weights = packed
        yield AuditedChunk(
            key=str(number),
            chunk=Chunk(
                document_id=document_id,
                position=position,
                text=text,
                start=start,
                end=end,
                headings=tuple(json.loads(headings)),
            ),
            revision=revision,
            vector=vector_in(vector),
            windows=None if windows is None else unpack(windows),
            sparse=None if weights is None else sparse.unpack(weights),
            labels=terms,
        )


def _by_position(chunks: Sequence[AuditedChunk]) -> tuple[AuditedChunk, ...]:
    return tuple(sorted(chunks, key=lambda each: (each.chunk.position, int(each.key))))


def _counts(connection: sqlite3.Connection) -> Iterator[Drift]:
    """Counts kept with the collection and its generations against those of the rows."""
    for name, kept, counted in connection.execute(
        "SELECT 'documents', documents, (SELECT count(*) FROM documents) FROM state UNION ALL "
        "SELECT 'chunks of generation ' || g.id, g.chunks, "
        "(SELECT count(*) FROM chunks c WHERE c.generation = g.id) "
        "FROM generations g WHERE g.state != 'dropped'"
    ):
        if kept != counted:
            yield Drift("counts", "damaged", "", f"{kept} {name} instead of {counted}")


def _text_drift(opened: OpenCollection, text: TextFollower) -> Iterator[Drift]:
    """Chunks of the live text index against those of the database. Needs the write lock."""
    try:
        # A count that is wrong shows below, chunk by chunk.
        with contextlib.suppress(TextIndexDamaged):
            text.catch_up()
        with opened.database.reading() as connection:
            rows = connection.execute(
                "SELECT id FROM chunks WHERE generation = ? ORDER BY id", (text.generation,)
            )
            different = _differences((number for (number,) in rows), text.numbers())
            told = list(islice(different, _TOLD))
            more = sum(1 for _ in different)
            for number, kind in told:
                row = connection.execute(f"{_REMOVABLE} WHERE c.id = ?", (number,)).fetchone()
                name = "" if row is None else row[1]
                where = "only in the text index" if kind == "surplus" else "not in the text index"
                yield Drift("text index", kind, name, f"chunk number {number} is {where}")
        if more:
            yield Drift("text index", "damaged", "", f"{more} more chunks differ")
    except TextIndexDamaged as damage:
        yield Drift("text index", "damaged", "", str(damage))


def _differences(wanted: Iterator[int], present: Iterator[int]) -> Iterator[tuple[int, DriftKind]]:
    """Numbers that one of two ascending sequences lacks; one that is present twice is surplus."""
    want, have = next(wanted, None), next(present, None)
    while want is not None or have is not None:
        if want is not None and (have is None or want < have):
            yield want, "missing"
            want = next(wanted, None)
        elif have is not None and (want is None or have < want):
            yield have, "surplus"
            have = next(present, None)
        else:
            want, have = next(wanted, None), next(present, None)
