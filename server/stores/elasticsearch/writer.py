"""Writing and deleting documents so that no crash and no other writer leaves a wrong state.

A write has three steps, each one bulk request for the whole batch:

1. *claim*: the document's record gets the next revision, the document, ``complete: false`` and an
   ``extent`` that covers the chunks there may be, on condition that nobody changed it meanwhile.
2. *chunks*: the new chunks are put and surplus ones deleted, all under the revision as external
   version, so that an older writer that comes late changes nothing.
3. *complete*: the record is marked, on condition that it is still the claimed one. If it is not, a
   newer writer took over, and the chunks are that writer's affair.

Cut off between the steps, the record says ``complete: false``, and the next write of the document
replaces or deletes every chunk below ``extent``.
"""

import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from server.documents import IndexedChunk
from server.errors import DocumentNotFound, RevisionConflict, TanyuanError
from server.stores.contract import Deleted, Write, Written
from server.stores.elasticsearch.bulk import Operation, Outcome, send
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.errors import VersionConflict
from server.stores.elasticsearch.indices import Names
from server.stores.elasticsearch.queries import label_terms, vector_json
from server.stores.elasticsearch.records import Record, read_records
from server.stores.filters import labels_of

_ATTEMPTS = 20  # of a claim that other writers keep winning
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    change: Change
    removed: int  # chunks deleted


def put(client: Client, names: Names, writes: Sequence[Write]) -> list[Written | TanyuanError]:
    """Results in order; of the same id twice the later comes after the earlier."""
    results: dict[int, Written | TanyuanError] = {}
    for numbers in _rounds([write.document.id for write in writes]):
        changes = {
            number: Change(
                document_id=writes[number].document.id,
                write=writes[number],
                if_revision=writes[number].if_revision,
            )
            for number in numbers
        }
        for number, result in _apply(client, names, changes).items():
            results[number] = _written(result) if isinstance(result, Changed) else result
    return [results[number] for number in range(len(writes))]


def _written(changed: Changed) -> Written:
    before = changed.change.before
    return Written(
        document_id=changed.change.document_id,
        revision=changed.change.revision,
        chunks=len(changed.change.chunks),
        status="updated" if before and not before.deleted else "created",
    )


def remove(client: Client, names: Names, document_id: str, if_revision: int | None) -> Deleted:
    """Raises DocumentNotFound, RevisionConflict."""
    change = Change(document_id=document_id, write=None, if_revision=if_revision)
    result = _apply(client, names, {0: change})[0]
    if isinstance(result, TanyuanError):
        raise result
    return Deleted(document_id=document_id, revision=result.change.revision, chunks=result.removed)


def _rounds(ids: Sequence[str]) -> Iterator[list[int]]:
    """Positions in ``ids`` grouped so that no group has an id twice, earlier ones first."""
    rounds: list[list[int]] = []
    seen: dict[str, int] = {}
    for number, document_id in enumerate(ids):
        turn = seen.get(document_id, 0)
        seen[document_id] = turn + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(number)
    return iter(rounds)


def _apply(
    client: Client, names: Names, changes: dict[int, Change]
) -> dict[int, Changed | TanyuanError]:
    """Changes of different documents through the three steps."""
    results: dict[int, Changed | TanyuanError] = {}
    pending = changes
    for attempt in range(_ATTEMPTS):
        if attempt:
            # Writers of the same document would else meet again and again.
            time.sleep(random.uniform(0, 0.05 * attempt))  # noqa: S311
        ids = [change.document_id for change in pending.values()]
        records = read_records(client, names.documents, ids)
        ready: dict[int, Change] = {}
        for number, change in pending.items():
            current = _with_record(change, records.get(change.document_id))
            refused = _refusal(current)
            if refused is None:
                ready[number] = current
            else:
                results[number] = refused
                _finish_tombstone(client, names, current)
        claims = _claim(client, names, list(ready.values()))
        pending = {}
        claimed: dict[int, tuple[Change, Outcome]] = {}
        for (number, change), claim in zip(ready.items(), claims, strict=True):
            if claim.error is None:
                claimed[number] = (change, claim)
            elif isinstance(claim.error, VersionConflict):
                pending[number] = change  # the condition is looked at again with the new record
            else:
                results[number] = claim.error
        done = _chunks_and_complete(client, names, list(claimed.values()))
        results.update(zip(claimed, done, strict=True))
        if not pending:
            return results
    for number, change in pending.items():
        results[number] = RevisionConflict(
            f"Document {change.document_id} is being changed by others all the time; try again."
        )
    return results


def _with_record(change: Change, record: Record | None) -> Change:
    return Change(
        document_id=change.document_id,
        write=change.write,
        if_revision=change.if_revision,
        before=record,
    )


def _refusal(change: Change) -> TanyuanError | None:
    """Why the change may not be made on the record that is there."""
    there = change.before is not None and not change.before.deleted
    if change.write is None and not there:
        return DocumentNotFound(f"There is no document {change.document_id!r}.")
    revision = change.before.revision if change.before and there else 0
    if change.if_revision is not None and change.if_revision != revision:
        found = f"is at revision {revision}" if there else "is not there"
        return RevisionConflict(
            f"Document {change.document_id!r} {found}, not at revision {change.if_revision}; "
            "read it and try again."
        )
    return None


def _finish_tombstone(client: Client, names: Names, change: Change) -> None:
    """Remove the chunks that a cut-off delete left, when the delete is tried again."""
    record = change.before
    if change.write is None and record is not None and record.deleted and not record.complete:
        send(client, names.chunks, _deletes(change, record.revision, 0))
        claim = Outcome(seq_no=record.seq_no, primary_term=record.primary_term)
        send(client, names.documents, [_completion(change, claim)])


def _claim(client: Client, names: Names, changes: Sequence[Change]) -> list[Outcome]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return send(client, names.documents, (_record(change, now) for change in changes))


def _record(change: Change, now: str) -> Operation:
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


def _chunks_and_complete(
    client: Client, names: Names, claimed: Sequence[tuple[Change, Outcome]]
) -> list[Changed | TanyuanError]:
    """Steps two and three."""
    operations: list[Operation] = []
    owners: list[int] = []
    for owner, (change, _) in enumerate(claimed):
        mine = [*_puts(change), *_deletes(change, change.revision, len(change.chunks))]
        operations += mine
        owners += [owner] * len(mine)
    errors: dict[int, TanyuanError] = {}
    removed = [0] * len(claimed)
    for owner, outcome in zip(owners, send(client, names.chunks, operations), strict=True):
        # A newer writer's chunk is there already: step three will find that out.
        if outcome.error is not None and not isinstance(outcome.error, VersionConflict):
            errors.setdefault(owner, outcome.error)
        removed[owner] += outcome.result == "deleted"
    good = [owner for owner in range(len(claimed)) if owner not in errors]
    completions = send(client, names.documents, [_completion(*claimed[owner]) for owner in good])
    for owner, outcome in zip(good, completions, strict=True):
        if outcome.error is not None and not isinstance(outcome.error, VersionConflict):
            errors[owner] = outcome.error
    return [
        errors.get(owner) or Changed(change=change, removed=removed[owner])
        for owner, (change, _) in enumerate(claimed)
    ]


def _puts(change: Change) -> Iterator[Operation]:
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


def _deletes(change: Change, revision: int, start: int) -> Iterator[Operation]:
    """Deletes of the chunks from position ``start`` on that may be there."""
    extent = change.extent
    for position in range(start, extent):
        chunk_id = f"{change.document_id}:{position}"
        yield Operation("delete", {"_id": chunk_id, "version": revision, **_EXTERNAL})


def _completion(change: Change, claim: Outcome) -> Operation:
    meta = {
        "_id": change.document_id,
        "if_seq_no": claim.seq_no,
        "if_primary_term": claim.primary_term,
    }
    done = {"complete": True, "extent": len(change.chunks)}
    return Operation("update", meta, {"doc": done})
