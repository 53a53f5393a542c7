"""The three steps of a write, each for a whole batch; ``writer.py`` says what they are for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from server.errors import DocumentNotFound, RevisionConflict, TanyuanError
from server.stores.elasticsearch.bulk import Operation, Outcome, send, send_records
from server.stores.elasticsearch.changes import (
    Change,
    Target,
    claim_operation,
    delete_operations,
    level_operation,
    put_operations,
)
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.errors import VersionConflict
from server.stores.elasticsearch.names import Names
from server.stores.elasticsearch.records import Record, read_records

ATTEMPTS = 20  # of a change that other writers keep forestalling


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A change whose record is claimed; ``record`` as the claim, or a derivation since, left it."""

    change: Change
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What became of the claims, by the caller's number.

    ``forestalled``: another writer changed the record first, so the condition has to be looked at again.
    """

    claimed: Mapping[int, Claimed]
    refused: Mapping[int, TanyuanError]
    forestalled: Mapping[int, Change]


def claim(client: Client, names: Names, changes: Mapping[int, Change]) -> Claims:
    """Step one, of changes of different documents. Raises CollectionNotFound."""
    refused: dict[int, TanyuanError] = {}
    ids = [change.document_id for change in changes.values()]
    records = read_records(client, names.documents, ids)
    ready: dict[int, Change] = {}
    for number, change in changes.items():
        current = replace(change, before=records.get(change.document_id))
        error = _refusal(current)
        if error is None:
            ready[number] = current
        else:
            refused[number] = error
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    operations = (claim_operation(change, now) for change in ready.values())
    outcomes = send_records(client, names.documents, names.collection, operations)
    claimed: dict[int, Claimed] = {}
    forestalled: dict[int, Change] = {}
    for (number, change), outcome in zip(ready.items(), outcomes, strict=True):
        if outcome.error is None:
            claimed[number] = Claimed(change=change, record=_record(change, outcome))
        elif isinstance(outcome.error, VersionConflict):
            forestalled[number] = change
        else:
            refused[number] = outcome.error
    return Claims(claimed=claimed, refused=refused, forestalled=forestalled)


def read(client: Client, names: Names, document_id: str) -> Record | None:
    return read_records(client, names.documents, [document_id]).get(document_id)


def _record(change: Change, claimed: Outcome) -> Record:
    return Record(
        revision=change.revision,
        chunks=len(change.chunks),
        extent=change.extent,
        complete=False,
        deleted=change.write is None,
        seq_no=claimed.seq_no,
        primary_term=claimed.primary_term,
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


def put_chunks(
    client: Client, target: Target, claimed: Sequence[Claimed]
) -> dict[int, TanyuanError]:
    """Step two of puts; the errors by place in ``claimed``, NoAlias where none may be put."""
    owners: list[int] = []

    def operations() -> Iterator[Operation]:
        # Made as they are sent: the vectors of a whole batch are large as JSON values.
        for owner, own in enumerate(claimed):
            if own.change.write is not None:
                document, chunks = own.change.write.document, own.change.chunks
                for operation in put_operations(document, chunks, own.change.revision, target):
                    owners.append(owner)
                    yield operation

    outcomes = send(client, target.alias, operations())
    errors = _errors(owners, outcomes)
    good = [owner for owner in range(len(claimed)) if owner not in errors]
    _, failed = delete_chunks(client, target, [claimed[owner] for owner in good])
    return errors | {good[place]: error for place, error in failed.items()}


def delete_chunks(
    client: Client, target: Target, claimed: Sequence[Claimed]
) -> tuple[int, dict[int, TanyuanError]]:
    """Step two of deletes, and of puts for what is surplus: (how many there were, errors by place)."""
    owners: list[int] = []

    def operations() -> Iterator[Operation]:
        for owner, own in enumerate(claimed):
            change = own.change
            surplus = range(len(change.chunks), change.extent)
            for operation in delete_operations(
                change.document_id, surplus, change.revision, target
            ):
                owners.append(owner)
                yield operation

    outcomes = send(client, target.index, operations(), through_alias=False)
    removed = sum(outcome.result == "deleted" for outcome in outcomes)
    return removed, _errors(owners, outcomes)


def _errors(owners: Sequence[int], outcomes: Sequence[Outcome]) -> dict[int, TanyuanError]:
    """The first error of each owner."""
    errors: dict[int, TanyuanError] = {}
    for owner, outcome in zip(owners, outcomes, strict=True):
        # A newer writer's chunk is there already: step three will find that out.
        if outcome.error is not None and not isinstance(outcome.error, VersionConflict):
            errors.setdefault(owner, outcome.error)
    return errors


def complete(
    client: Client, names: Names, target: Target, claimed: Mapping[int, Claimed]
) -> dict[int, TanyuanError]:
    """Step three; the errors by key."""
    errors: dict[int, TanyuanError] = {}
    for attempt in range(ATTEMPTS):
        if not claimed:
            return errors
        operations = (_completion(own, target, first=not attempt) for own in claimed.values())
        outcomes = send_records(client, names.documents, names.collection, operations)
        overtaken: dict[int, Claimed] = {}
        for (owner, own), outcome in zip(claimed.items(), outcomes, strict=True):
            if isinstance(outcome.error, VersionConflict):
                overtaken[owner] = own
            elif outcome.error is not None:
                errors[owner] = outcome.error
        claimed = _still_own(client, names, overtaken)
    return errors | {owner: contended(own.change.document_id) for owner, own in claimed.items()}


def _completion(own: Claimed, target: Target, *, first: bool) -> Operation:
    chunks = len(own.change.chunks)
    # Where the record was touched, or could be, another generation may have chunks up to its extent.
    extent = chunks if first and target.alone else own.record.extent
    return level_operation(
        own.change.document_id, own.record, target, chunks, complete=True, extent=extent
    )


def _still_own(
    client: Client, names: Names, overtaken: Mapping[int, Claimed]
) -> dict[int, Claimed]:
    """Those whose record has the claimed revision yet: only its levels have changed."""
    ids = [own.change.document_id for own in overtaken.values()]
    records = read_records(client, names.documents, ids)
    return {
        owner: replace(own, record=record)
        for owner, own in overtaken.items()
        if (record := records.get(own.change.document_id)) is not None
        and record.revision == own.change.revision
        and not record.complete
    }


def contended(document_id: str) -> RevisionConflict:
    return RevisionConflict(
        f"Document {document_id!r} is being changed by others all the time; try again."
    )
