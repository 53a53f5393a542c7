"""A change of one document and the bulk operations of its steps: pure functions."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from server.documents import IndexedChunk
from server.stores.contract import Write
from server.stores.elasticsearch.bulk import Operation, Outcome
from server.stores.elasticsearch.queries import label_terms, vector_json
from server.stores.elasticsearch.records import Record
from server.stores.filters import labels_of

_EXTERNAL = {"version_type": "external_gte"}


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
    def extent(self) -> int:
        """Above every position that an older or this revision may have."""
        return max(len(self.chunks), self.before.extent if self.before else 0)


def claim_operation(change: Change, now: str) -> Operation:
    """Step one: the next revision, if the record is still the one that was read."""
    body: dict[str, Any] = {
        "id": change.document_id,
        "revision": change.revision,
        "content_hash": "",
        "chunks": len(change.chunks),
        "extent": change.extent,
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
    condition = {
        "if_seq_no": change.before.seq_no,
        "if_primary_term": change.before.primary_term,
    }
    return Operation("index", {"_id": change.document_id, **condition}, body)


def put_operations(change: Change) -> Iterator[Operation]:
    """Step two: the chunks, under the revision as version."""
    if change.write is None:
        return
    document = change.write.document
    shared = {
        "document_id": document.id,
        "revision": change.revision,
        "labels": label_terms(labels_of(document)),
        "title": document.title,
        "source": document.source,
        "metadata": document.as_json()["metadata"],
    }
    for indexed in change.chunks:
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
        yield Operation("index", {"_id": chunk.id, "version": change.revision, **_EXTERNAL}, body)


def delete_operations(change: Change, revision: int, start: int) -> Iterator[Operation]:
    """Deletes of the chunks from position ``start`` on that may be there."""
    for position in range(start, change.extent):
        chunk_id = f"{change.document_id}:{position}"
        yield Operation("delete", {"_id": chunk_id, "version": revision, **_EXTERNAL})


def completion(change: Change, claim: Outcome) -> Operation:
    """Step three: the record is marked if it is still the one that ``claim`` wrote."""
    meta = {
        "_id": change.document_id,
        "if_seq_no": claim.seq_no,
        "if_primary_term": claim.primary_term,
    }
    done = {"complete": True, "extent": len(change.chunks)}
    return Operation("update", meta, {"doc": done})
