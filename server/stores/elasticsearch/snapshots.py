"""Backups of collections by Elasticsearch's snapshots.

A backup holds the documents, the notes and the live generation, whose indices a snapshot takes one
after the other: of a document that is written meanwhile it may have the record of one revision and
chunks of another. Those are found when it is restored, and become pending, so that
``scripts/verify --repair`` mends them.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from server.documents import check_collection
from server.errors import CollectionExists, InvalidInput, StoreUnavailable
from server.stores.audit import Audited
from server.stores.elasticsearch.audits import ElasticsearchAudits
from server.stores.elasticsearch.bulk import Operation, send_records
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.layout import Layouts
from server.stores.elasticsearch.names import FIRST, Names
from server.stores.elasticsearch.records import Record, read_records

_PAUSE_SECONDS = 0.2
_RESTORE_SECONDS = 3600.0
_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """``state`` is Elasticsearch's: SUCCESS, IN_PROGRESS, PARTIAL or FAILED."""

    name: str
    state: str
    indices: tuple[str, ...]
    taken_at: str  # ISO 8601, UTC


class Snapshots:
    def __init__(
        self, client: Client, layouts: Layouts, audits: ElasticsearchAudits, prefix: str
    ) -> None:
        self._client = client
        self._layouts = layouts
        self._audits = audits
        self._prefix = prefix

    def register(self, name: str, location: str) -> None:
        settings: dict[str, Any] = {"type": "fs", "settings": {"location": location}}
        self._client.snapshot.create_repository(name=name, repository=settings)

    def all(self, repository: str) -> list[Snapshot]:
        return self._read(repository, "_all")

    def backup(self, collection: str, repository: str, snapshot: str) -> None:
        layout = self._layouts.get(collection, fresh=True)
        names, live = layout.names, layout.live
        self._client.snapshot.create(
            repository=repository,
            snapshot=snapshot,
            indices=[f"{names.documents}.{FIRST}", f"{names.notes}.{FIRST}", names.index(live.id)],
            include_global_state=False,
            wait_for_completion=False,
        )
        state = "IN_PROGRESS"
        while state == "IN_PROGRESS":
            time.sleep(_PAUSE_SECONDS)
            [taken] = self._read(repository, snapshot)
            state = taken.state
        if state == "SUCCESS" and self._layouts.get(collection, fresh=True).live.key == live.key:
            return
        self._client.snapshot.delete(repository=repository, snapshot=snapshot)
        why = f"ended as {state}" if state != "SUCCESS" else "met a change of generation"
        raise StoreUnavailable(f"The snapshot {snapshot} {why}, so it was removed; make it again.")

    def restore(self, collection: str, repository: str, snapshot: str) -> int:
        """How many documents became pending, since they were written while the snapshot was taken."""
        names = Names(self._prefix, check_collection(collection))
        if self._client.indices.get(index=names.all, features=["aliases"]).body:
            raise CollectionExists(
                f"The collection {collection!r}, or what a cut-off create or restore left of it, "
                "exists; delete it before it is restored."
            )
        [taken] = self._read(repository, snapshot)
        own = [index for index in taken.indices if index.startswith(names.all[:-1])]
        if not own or taken.state != "SUCCESS":
            raise InvalidInput(
                f"The snapshot {snapshot!r} (state {taken.state}) holds no collection "
                f"{collection!r} of the prefix {self._prefix!r}.",
                field="snapshot",
            )
        self._client.snapshot.restore(
            repository=repository,
            snapshot=snapshot,
            indices=own,
            include_global_state=False,
            include_aliases=True,
            wait_for_completion=False,
        )
        self._await(own)
        self._layouts.forget(collection)
        return self._unlevel(collection)

    def _await(self, indices: Sequence[str]) -> None:
        """Until every primary shard is there."""
        end = time.monotonic() + _RESTORE_SECONDS
        while self._client.cluster.health(index=list(indices))["status"] == "red":
            if time.monotonic() > end:
                raise StoreUnavailable(
                    f"Elasticsearch did not restore {', '.join(indices)} within "
                    f"{_RESTORE_SECONDS:.0f} s; look at GET /_cluster/allocation/explain on it."
                )
            time.sleep(_PAUSE_SECONDS)

    def _unlevel(self, collection: str) -> int:
        """Let documents be pending whose chunks are not those of the record; how many."""
        torn = 0
        batch: list[Audited] = []
        for found in self._audits.every(collection):
            if not _is_whole(found):
                batch.append(found)
                torn += 1
            if len(batch) == _BATCH:
                self._mark(collection, batch)
                batch = []
        self._mark(collection, batch)
        return torn

    def _mark(self, collection: str, torn: Sequence[Audited]) -> None:
        names = self._layouts.names(collection)
        ids = [found.document_id for found in torn]
        records = read_records(self._client, names.documents, ids)
        operations = [
            _pending(found, records[found.document_id])
            for found in torn
            if found.document_id in records
        ]
        for outcome in send_records(self._client, names.documents, collection, operations):
            if outcome.error is not None:
                raise outcome.error
        lost = [found for found in torn if found.document_id not in records]
        self._audits.remove(collection, [each.key for found in lost for each in found.chunks])

    def _read(self, repository: str, snapshot: str) -> list[Snapshot]:
        found = self._client.snapshot.get(repository=repository, snapshot=snapshot)
        return [
            Snapshot(
                name=each["snapshot"],
                state=each["state"],
                indices=tuple(each["indices"]),
                taken_at=each["start_time"],
            )
            for each in found["snapshots"]
        ]


def _is_whole(found: Audited) -> bool:
    positions = [each.chunk.position for each in found.chunks]
    revisions = {each.revision for each in found.chunks}
    return positions == list(range(found.chunks_expected)) and revisions <= {found.revision}


def _pending(found: Audited, record: Record) -> Operation:
    """Level nowhere, and of a revision above those of its chunks, so that they can be replaced."""
    newest = max((each.revision for each in found.chunks), default=0)
    reach = max((each.chunk.position + 1 for each in found.chunks), default=0)
    body = {
        "levels": [],
        "complete": False,
        "revision": record.revision if newest <= record.revision else newest + 1,
        "extent": max(record.extent, reach),
    }
    return Operation("update", {"_id": found.document_id, **record.condition}, {"doc": body})
