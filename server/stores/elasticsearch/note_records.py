"""Notes as Elasticsearch keeps them: one document each in an index of the collection.

A deleted note stays as a tombstone, so that its versions go on rising and whoever held an older one
never takes a newer one for it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from server.errors import NoteConflict, StoreUnavailable
from server.stores.elasticsearch.bulk import Operation, Outcome, send_records
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.errors import VersionConflict
from server.stores.elasticsearch.names import Names
from server.stores.elasticsearch.records import get_many, refresh, scan
from server.stores.note_checks import check_key, encoded
from server.stores.notes import Note

_ATTEMPTS = 50  # of a change without condition that others keep forestalling
_FIELDS = ["version", "deleted", "value"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    note: Note
    deleted: bool
    condition: Mapping[str, int]


def get(client: Client, names: Names, key: str) -> Note | None:
    record = _read(client, names, [check_key(key)]).get(key)
    return None if record is None or record.deleted else record.note


def under(client: Client, names: Names, prefix: str) -> dict[str, Note]:
    """Key → note, by key."""
    refresh(client, names.notes)
    there: list[dict[str, Any]] = [{"term": {"deleted": False}}]
    if prefix:
        there.append({"prefix": {"key": check_key(prefix)}})
    query = {"bool": {"filter": there}}
    return {
        key: record.note
        for keys in scan(client, names.notes, query, by="key")
        for key, record in _read(client, names, keys).items()
        if not record.deleted
    }


def put(
    client: Client,
    names: Names,
    key: str,
    value: Mapping[str, Any],
    *,
    expected: int | None = None,
) -> Note:
    """Raises NoteConflict, InvalidInput, CollectionNotFound."""
    check_key(key)
    size = len(encoded(value).encode())
    for record in _attempts(client, names, key):
        _check(key, record, expected)
        version = record.note.version + 1 if record else 1
        body = {"key": key, "version": version, "deleted": False, "bytes": size, "value": value}
        if _change(client, names, key, record, body):
            return Note(value=value, version=version)
    raise _contended(key)


def delete(client: Client, names: Names, key: str, *, expected: int | None = None) -> bool:
    """Raises NoteConflict, InvalidInput, CollectionNotFound."""
    for record in _attempts(client, names, check_key(key)):
        _check(key, record, expected)
        if record is None or record.deleted:
            return False
        version = record.note.version + 1
        body = {"key": key, "version": version, "deleted": True, "bytes": 0}
        if _change(client, names, key, record, body):
            return True
    raise _contended(key)


def _attempts(client: Client, names: Names, key: str) -> Iterator[_Record | None]:
    for _ in range(_ATTEMPTS):
        yield _read(client, names, [key]).get(key)


def _read(client: Client, names: Names, keys: list[str]) -> dict[str, _Record]:
    """Of those that are there, tombstones among them; sees every acknowledged change."""
    return {
        key: _Record(
            note=Note(value=item["_source"].get("value", {}), version=item["_source"]["version"]),
            deleted=item["_source"]["deleted"],
            condition={
                "if_seq_no": item["_seq_no"],
                "if_primary_term": item["_primary_term"],
            },
        )
        for key, item in get_many(client, names.notes, keys, _FIELDS).items()
    }


def _check(key: str, record: _Record | None, expected: int | None) -> None:
    version = 0 if record is None or record.deleted else record.note.version
    if expected is not None and expected != version:
        found = f"is at version {version}" if version else "is not there"
        raise NoteConflict(
            f"The note {key} {found}, not at version {expected}; read it and try again."
        )


def _change(
    client: Client, names: Names, key: str, record: _Record | None, body: Mapping[str, Any]
) -> bool:
    """Whether the record was still the one that was read."""
    action = "create" if record is None else "index"
    condition = {} if record is None else record.condition
    [outcome] = send_records(
        client, names.notes, names.collection, [Operation(action, {"_id": key, **condition}, body)]
    )
    return _made(outcome)


def _made(outcome: Outcome) -> bool:
    if isinstance(outcome.error, VersionConflict):
        return False
    if outcome.error is not None:
        raise outcome.error
    return True


def _contended(key: str) -> StoreUnavailable:
    return StoreUnavailable(f"The note {key} is being changed by others all the time; try again.")
