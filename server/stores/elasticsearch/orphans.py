"""Removing chunks that belong to no document, or stand twice, beside live writers."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from server.stores.elasticsearch.bulk import Operation, send, send_records
from server.stores.elasticsearch.changes import revision_in
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.names import Names
from server.stores.elasticsearch.records import Record, get_many, read_records

_FIELDS = ["document_id", "position", "revision"]
_Item = Mapping[str, Any]


def remove(client: Client, names: Names, live: str, keys: Sequence[str]) -> int:
    """How many there were. A chunk that a document has, by now, stays."""
    index = names.index(live)
    # Chunks first, records then: a writer that comes later changes the chunk's version.
    items = get_many(client, index, [key for key in keys if key], _FIELDS)
    ids = {item["_source"].get("document_id", "") for item in items.values()}
    records = read_records(client, names.documents, sorted(ids))
    operations: list[Operation] = []
    lost: dict[str, list[_Item]] = {}
    for key, item in items.items():
        document_id = item["_source"].get("document_id", "")
        record = records.get(document_id)
        if key != f"{document_id}:{item['_source'].get('position')}":
            operations.append(Operation("delete", {"_id": key, **_condition(item)}))
        elif record is None:
            lost.setdefault(document_id, []).append(item)
        elif _is_surplus(record, live, item):
            operations.append(_delete(item))
    for document_id in _buried(client, names, live, lost):
        operations += map(_delete, lost[document_id])
    outcomes = send(client, index, operations, through_alias=False)
    return sum(outcome.result == "deleted" for outcome in outcomes)


def _is_surplus(record: Record, live: str, item: _Item) -> bool:
    if record.deleted:
        return bool(item["_source"].get("revision", 0) <= record.revision)
    whole = record.is_level(live)
    return whole and bool(item["_source"]["position"] >= record.chunks_in(live))


def _condition(item: _Item) -> dict[str, int]:
    return {"if_seq_no": item["_seq_no"], "if_primary_term": item["_primary_term"]}


def _delete(item: _Item) -> Operation:
    """Of the version that was seen: a newer chunk of the same id stays."""
    version = {"version": item["_version"], "version_type": "external_gte"}
    return Operation("delete", {"_id": item["_id"], **version})


def _buried(
    client: Client, names: Names, live: str, lost: Mapping[str, Sequence[_Item]]
) -> list[str]:
    """Give ids whose record is lost a tombstone, so that what is written under them later has a
    higher revision than the chunks that are, or were, there; the ids that got one."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    operations = [
        Operation(
            "create",
            {"_id": document_id},
            {
                "id": document_id,
                "revision": max(_revision(item) for item in items),
                "content_hash": "",
                "chunks": 0,
                "extent": 1 + max(item["_source"]["position"] for item in items),
                "levels": [live],
                "complete": True,
                "deleted": True,
                "updated_at": now,
                "bytes": 0,
            },
        )
        for document_id, items in lost.items()
    ]
    outcomes = send_records(client, names.documents, names.collection, operations)
    return [
        document_id
        for document_id, outcome in zip(lost, outcomes, strict=True)
        if outcome.error is None
    ]


def _revision(item: _Item) -> int:
    stamped = int(item["_source"].get("revision", 0))
    return max(stamped, revision_in(item["_version"]), 1)
