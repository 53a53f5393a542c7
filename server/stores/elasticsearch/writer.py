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

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain

from server.errors import CollectionNotFound, DocumentNotFound, RevisionConflict, TanyuanError
from server.stores.contract import Deleted, Write, Written
from server.stores.elasticsearch.bulk import Operation, Outcome, send
from server.stores.elasticsearch.changes import (
    Change,
    claim_operation,
    completion,
    delete_operations,
    put_operations,
)
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.errors import VersionConflict
from server.stores.elasticsearch.indices import Names
from server.stores.elasticsearch.records import read_records

_ATTEMPTS = 20  # of a claim that other writers keep winning


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A change that was made."""

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
    """Changes of different documents through the three steps. Raises CollectionNotFound."""
    results: dict[int, Changed | TanyuanError] = {}
    pending = changes
    for attempt in range(_ATTEMPTS):
        if attempt:
            # Writers of the same document would else meet again and again.
            time.sleep(random.uniform(0, 0.05 * attempt))  # noqa: S311
        try:
            done, pending = _attempt(client, names, pending)
        except CollectionNotFound:
            raise
        except TanyuanError as error:
            # Others of the batch may be done, so this is the result of these, not of the call.
            return results | dict.fromkeys(pending, error)
        results |= done
        if not pending:
            return results
    for number, change in pending.items():
        results[number] = RevisionConflict(
            f"Document {change.document_id!r} is being changed by others all the time; try again."
        )
    return results


def _attempt(
    client: Client, names: Names, changes: dict[int, Change]
) -> tuple[dict[int, Changed | TanyuanError], dict[int, Change]]:
    """(results, changes whose claim another writer forestalled)."""
    results: dict[int, Changed | TanyuanError] = {}
    again: dict[int, Change] = {}
    ids = [change.document_id for change in changes.values()]
    records = read_records(client, names.documents, ids)
    ready: dict[int, Change] = {}
    for number, change in changes.items():
        current = replace(change, before=records.get(change.document_id))
        refused = _refusal(current)
        if refused is None:
            ready[number] = current
        else:
            results[number] = refused
            _finish_tombstone(client, names, current)
    claimed: dict[int, tuple[Change, Outcome]] = {}
    claims = _claim(client, names, list(ready.values()))
    for (number, change), claim in zip(ready.items(), claims, strict=True):
        if claim.error is None:
            claimed[number] = (change, claim)
        elif isinstance(claim.error, VersionConflict):
            again[number] = change  # its condition is looked at again with the new record
        else:
            results[number] = claim.error
    done = _chunks_and_complete(client, names, list(claimed.values()))
    return results | dict(zip(claimed, done, strict=True)), again


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
        send(client, names.chunks, delete_operations(change, record.revision, 0))
        claim = Outcome(seq_no=record.seq_no, primary_term=record.primary_term)
        send(client, names.documents, [completion(change, claim)])


def _claim(client: Client, names: Names, changes: Sequence[Change]) -> list[Outcome]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return send(client, names.documents, (claim_operation(change, now) for change in changes))


def _chunks_and_complete(
    client: Client, names: Names, claimed: Sequence[tuple[Change, Outcome]]
) -> list[Changed | TanyuanError]:
    """Steps two and three."""
    owners: list[int] = []

    def operations() -> Iterator[Operation]:
        # Made as they are sent: the vectors of a whole batch are large as JSON values.
        for owner, (change, _) in enumerate(claimed):
            surplus = delete_operations(change, change.revision, len(change.chunks))
            for operation in chain(put_operations(change), surplus):
                owners.append(owner)
                yield operation

    outcomes = send(client, names.chunks, operations())
    errors: dict[int, TanyuanError] = {}
    removed = [0] * len(claimed)
    for owner, outcome in zip(owners, outcomes, strict=True):
        # A newer writer's chunk is there already: step three will find that out.
        if outcome.error is not None and not isinstance(outcome.error, VersionConflict):
            errors.setdefault(owner, outcome.error)
        removed[owner] += outcome.result == "deleted"
    good = [owner for owner in range(len(claimed)) if owner not in errors]
    completions = send(client, names.documents, (completion(*claimed[owner]) for owner in good))
    for owner, outcome in zip(good, completions, strict=True):
        if outcome.error is not None and not isinstance(outcome.error, VersionConflict):
            errors[owner] = outcome.error
    return [
        errors.get(owner) or Changed(change=change, removed=removed[owner])
        for owner, (change, _) in enumerate(claimed)
    ]
