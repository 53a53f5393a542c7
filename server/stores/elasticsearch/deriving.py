"""Putting what a recipe made of documents into a generation, beside live writers.

The chunks are put first, under the document's revision as version, then the document is marked level,
on condition that its record is still the one that was read. A writer that claims the record between the
two takes the mark away with it, so that the document stays pending.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from server.errors import InvalidInput, TanyuanError
from server.recipes import Recipe
from server.stores.checks import check_writes
from server.stores.contract import Write
from server.stores.elasticsearch.bulk import Operation, Outcome, send, send_records
from server.stores.elasticsearch.changes import (
    SLACKS,
    Target,
    delete_operations,
    level_operation,
    put_operations,
)
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.errors import VersionConflict
from server.stores.elasticsearch.names import Names
from server.stores.elasticsearch.records import Record, read_records
from server.stores.elasticsearch.steps import ATTEMPTS, contended
from server.stores.generations import Derivation


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    """A derivation on its way, with the document's record as it was read last."""

    derivation: Derivation
    record: Record

    @property
    def current(self) -> bool:
        """Whether it was made of what the record holds."""
        deleted = self.derivation.document is None
        return (self.record.revision, self.record.deleted) == (self.derivation.revision, deleted)

    @property
    def reaches(self) -> int:
        """The extent that covers what the derivation puts as well."""
        return max(self.record.extent, len(self.derivation.chunks))


def check_derivations(derivations: Sequence[Derivation], recipe: Recipe) -> None:
    """Raise InvalidInput for chunks that a generation of ``recipe`` can't take."""
    for derivation in derivations:
        document = derivation.document
        if document is not None and document.id != derivation.document_id:
            raise InvalidInput(
                f"What was made of {derivation.document_id} holds the document {document.id}.",
                field="document",
            )
        if document is None and derivation.chunks:
            raise InvalidInput(
                f"Document {derivation.document_id} was deleted, so it has no chunks.",
                field="chunks",
            )
    check_writes(
        [
            Write(document=derivation.document, chunks=derivation.chunks)
            for derivation in derivations
            if derivation.document is not None
        ],
        recipe,
    )


def derive(
    client: Client, names: Names, target: Target, derivations: Sequence[Derivation]
) -> list[bool | TanyuanError]:
    """One result each, in order; NoAlias where the generation, or its edition, is gone."""
    results: dict[int, bool | TanyuanError] = {}
    due = _read(client, names, dict(enumerate(derivations)))
    results |= dict.fromkeys(range(len(derivations)), False)
    due, errors = _reach(client, names, {n: each for n, each in due.items() if each.current})
    results |= errors
    errors = _put(client, target, due)
    results |= errors
    due = {number: each for number, each in due.items() if number not in errors}
    results |= _mark(client, names, target, due)
    return [results[number] for number in range(len(derivations))]


def _read(client: Client, names: Names, derivations: Mapping[int, Derivation]) -> dict[int, _Due]:
    ids = [derivation.document_id for derivation in derivations.values()]
    records = read_records(client, names.documents, ids)
    return {
        number: _Due(derivation=derivation, record=records[derivation.document_id])
        for number, derivation in derivations.items()
        if derivation.document_id in records
    }


def _reach(
    client: Client, names: Names, due: Mapping[int, _Due]
) -> tuple[dict[int, _Due], dict[int, TanyuanError]]:
    """Raise the extents that the chunks would pass, before any is put: (still current, errors)."""
    ready = {n: each for n, each in due.items() if each.reaches == each.record.extent}
    low = {n: each for n, each in due.items() if n not in ready}
    errors: dict[int, TanyuanError] = {}
    for _ in range(ATTEMPTS):
        if not low:
            return dict(sorted(ready.items())), errors
        outcomes = _send(client, names, map(_raise_extent, low.values()))
        for number, outcome in zip(low, outcomes, strict=True):
            if outcome.error is not None and not isinstance(outcome.error, VersionConflict):
                errors[number] = outcome.error
        again = {n: each.derivation for n, each in low.items() if n not in errors}
        read = {n: each for n, each in _read(client, names, again).items() if each.current}
        ready |= {n: each for n, each in read.items() if each.reaches == each.record.extent}
        low = {n: each for n, each in read.items() if n not in ready}
    return ready, errors | {n: contended(each.derivation.document_id) for n, each in low.items()}


def _raise_extent(due: _Due) -> Operation:
    meta = {"_id": due.derivation.document_id, **due.record.condition}
    return Operation("update", meta, {"doc": {"extent": due.reaches}})


def _put(client: Client, target: Target, due: Mapping[int, _Due]) -> dict[int, TanyuanError]:
    """Put the chunks and delete the surplus; the errors."""
    errors: dict[int, TanyuanError] = {}
    for slack in SLACKS:
        if not due:
            break
        failed = _put_once(client, replace(target, slack=slack), due)
        # What is refused to the last is of a newer revision or edition: the mark will fail, or may stay.
        due = {n: due[n] for n, error in failed.items() if isinstance(error, VersionConflict)}
        errors |= {n: error for n, error in failed.items() if n not in due}
    return errors


def _put_once(client: Client, target: Target, due: Mapping[int, _Due]) -> dict[int, TanyuanError]:
    owners: list[int] = []

    def puts() -> Iterator[Operation]:
        for number, each in due.items():
            given = each.derivation
            if given.document is not None:
                for operation in put_operations(
                    given.document, given.chunks, given.revision, target
                ):
                    owners.append(number)
                    yield operation

    errors = _errors(owners, send(client, target.alias, puts()))
    deleting: list[int] = []

    def deletes() -> Iterator[Operation]:
        for number, each in due.items():
            if number not in errors:
                given = each.derivation
                surplus = range(len(given.chunks), each.record.extent)
                for operation in delete_operations(
                    given.document_id, surplus, given.revision, target
                ):
                    deleting.append(number)
                    yield operation

    outcomes = send(client, target.index, deletes(), through_alias=False)
    return errors | _errors(deleting, outcomes)


def _errors(owners: Sequence[int], outcomes: Sequence[Outcome]) -> dict[int, TanyuanError]:
    """The worst error of each owner; a conflict of versions is the mildest."""
    errors: dict[int, TanyuanError] = {}
    for owner, outcome in zip(owners, outcomes, strict=True):
        if outcome.error is not None and isinstance(errors.get(owner), VersionConflict | None):
            errors[owner] = outcome.error
    return errors


def _mark(
    client: Client, names: Names, target: Target, due: Mapping[int, _Due]
) -> dict[int, bool | TanyuanError]:
    """Mark the documents level; False for those that have another revision by now."""
    results: dict[int, bool | TanyuanError] = {}
    for _ in range(ATTEMPTS):
        if not due:
            return results
        operations = (
            level_operation(
                each.derivation.document_id,
                each.record,
                target,
                len(each.derivation.chunks),
                extent=each.reaches,
            )
            if each.current
            else _raise_extent(each)
            for each in due.values()
        )
        outcomes = _send(client, names, operations)
        conflicts: dict[int, Derivation] = {}
        for (number, each), outcome in zip(due.items(), outcomes, strict=True):
            if isinstance(outcome.error, VersionConflict):
                conflicts[number] = each.derivation
            else:
                results[number] = outcome.error or each.current
        read = _read(client, names, conflicts)
        # A writer may have lowered the extent below what was put here.
        due = {n: each for n, each in read.items() if each.current or _is_low(each)}
        results |= dict.fromkeys(conflicts.keys() - due.keys(), False)
    return results | {n: contended(each.derivation.document_id) for n, each in due.items()}


def _is_low(due: _Due) -> bool:
    return due.reaches > due.record.extent


def _send(client: Client, names: Names, operations: Iterator[Operation]) -> list[Outcome]:
    return send_records(client, names.documents, names.collection, operations)
