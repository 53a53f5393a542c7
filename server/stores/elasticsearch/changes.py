"""A change of one document and the bulk operations of its steps: pure functions."""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from server import sparse
from server.documents import Document, IndexedChunk
from server.stores.contract import Write
from server.stores.elasticsearch.bulk import Operation
from server.stores.elasticsearch.names import Names
from server.stores.elasticsearch.queries import label_terms, vector_json
from server.stores.elasticsearch.records import Record
from server.stores.filters import labels_of
from server.stores.generations import Generation
from server.stores.windows import pack

EDITIONS = 2**20  # more than a generation ever has
_REPAIRS = 2**16  # versions of one edition
# After a put that was refused, though the revision is the newest: room that is used to write over what
# something else than this product has changed, which raised the version by one each time.
SLACKS = (0, 2**8 - 1, _REPAIRS - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where chunks go: a generation's own index and the alias through which they are put.

    The alias is gone when they may not be put any more. ``alone``: no other generation has chunks.
    """

    generation: str
    edition: int
    index: str
    alias: str
    alone: bool = False
    slack: int = 0  # one of SLACKS

    @classmethod
    def live(cls, names: Names, generation: Generation, *, alone: bool) -> "Target":
        """For a writer, which a fence stops."""
        return cls(
            generation=generation.id,
            edition=generation.edition,
            index=names.index(generation.id),
            alias=names.accepts(generation.id, generation.edition, generation.recipe),
            alone=alone,
        )

    @classmethod
    def derived(cls, names: Names, generation: Generation, edition: int | None) -> "Target":
        """For what is derived into any generation, as of ``edition`` or the present one."""
        return cls(
            generation=generation.id,
            edition=generation.edition if edition is None else edition,
            index=names.index(generation.id),
            alias=names.edition(generation.id, generation.edition),
        )

    def version(self, revision: int) -> int:
        """A chunk's external version: by the document's revision, then by the edition."""
        return (revision * EDITIONS + self.edition) * _REPAIRS + self.slack


def revision_in(version: int) -> int:
    """The revision that a chunk's external version tells; 0 for what an older version put."""
    return version // (EDITIONS * _REPAIRS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One document's way through the steps; ``write`` None means that it is deleted."""

    document_id: str
    write: Write | None
    if_revision: int | None
    before: Record | None = None

    @property
    def revision(self) -> int:
        return self.before.revision + 1 if self.before else 1

    @property
    def chunks(self) -> tuple[IndexedChunk, ...]:
        return self.write.chunks if self.write else ()

    @property
    def creates(self) -> bool:
        return self.before is None or self.before.deleted

    @property
    def extent(self) -> int:
        """Above every position that an older or this revision may have, in any generation."""
        return max(len(self.chunks), self.before.extent if self.before else 0)


def claim_operation(change: Change, now: str) -> Operation:
    """Step one: the next revision, if the record is still the one that was read."""
    body: dict[str, Any] = {
        "id": change.document_id,
        "revision": change.revision,
        "content_hash": "",
        "chunks": len(change.chunks),
        "extent": change.extent,
        "levels": [],
        "complete": False,
        "deleted": change.write is None,
        "updated_at": now,
        "bytes": 0,
    }
    if change.write is not None:
        document = change.write.document.as_json()
        body |= {
            "content_hash": change.write.document.content_hash,
            "bytes": len(json.dumps(document, ensure_ascii=False).encode()),
            "document": document,
        }
    if change.before is None:
        return Operation("create", {"_id": change.document_id}, body)
    return Operation("index", {"_id": change.document_id, **change.before.condition}, body)


def put_operations(
    document: Document, chunks: Sequence[IndexedChunk], revision: int, target: Target
) -> Iterator[Operation]:
    """Step two: the chunks, which replace what is of an older revision or edition."""
    shared = {
        "document_id": document.id,
        "revision": revision,
        "labels": label_terms(labels_of(document)),
        "title": document.title,
        "source": document.source,
        "metadata": document.as_json()["metadata"],
    }
    for indexed in chunks:
        chunk = indexed.chunk
        body = {
            "id": chunk.id,
            "position": chunk.position,
            "start": chunk.start,
            "end": chunk.end,
            "text": chunk.text,
            "headings": list(chunk.headings),
            **{field: " ".join(terms) for field, terms in indexed.terms.items()},
            **shared,
        }
        if indexed.vector is not None:
            body["vector"] = vector_json(indexed.vector)
        if indexed.windows is not None:
            body["windows"] = base64.b64encode(pack(indexed.windows)).decode()
        if indexed.sparse is not None:
            body["sparse"] = sparse.as_json(indexed.sparse)
            body["sparse_kept"] = base64.b64encode(sparse.pack(indexed.sparse)).decode()
        yield Operation("index", _chunk(chunk.id, target.version(revision)), body)


def delete_operations(
    document_id: str, positions: range, revision: int, target: Target
) -> Iterator[Operation]:
    """Deletes of the chunks that may be there."""
    for position in positions:
        yield Operation("delete", _chunk(f"{document_id}:{position}", target.version(revision)))


def _chunk(chunk_id: str, version: int) -> dict[str, Any]:
    # "gte", so that the same request may come twice.
    return {"_id": chunk_id, "version": version, "version_type": "external_gte"}


def level_operation(
    document_id: str,
    record: Record,
    target: Target,
    chunks: int,
    **more: Any,
) -> Operation:
    """Mark ``record`` level in a generation, of which it has ``chunks``, if it is still the same."""
    levels = sorted({*record.levels, target.generation})
    done = {"levels": levels, "counts": {target.generation: chunks}, **more}
    return Operation("update", {"_id": document_id, **record.condition}, {"doc": done})
