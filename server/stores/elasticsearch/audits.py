"""What lies in a collection's indices, for an audit, and the removal of what belongs to nothing."""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from server.documents import Chunk, Document
from server.stores.audit import Audited, AuditedChunk, Drift
from server.stores.elasticsearch import indices, orphans, switches
from server.stores.elasticsearch.chunk_hits import (
    Hit,
    hits_of,
    scan,
    sparse_in,
    vector_of,
    windows_in,
)
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.layout import Layout, Layouts
from server.stores.elasticsearch.records import Record, metadata_from, read_whole, refresh
from server.stores.elasticsearch.records import scan as scan_records
from server.stores.windows import unpack

_LOOKS = 10  # at a document that others are changing
_PAUSE_SECONDS = 0.1
_Whole = tuple[Record, Document | None, str]


class ElasticsearchAudits:
    """See ``server.stores.audit.Audits``."""

    def __init__(self, client: Client, layouts: Layouts, settings: Mapping[str, Any]) -> None:
        self._client = client
        self._layouts = layouts
        self._settings = settings

    def every(self, collection: str) -> Iterator[Audited]:
        layout = self._layouts.get(collection, fresh=True)
        refresh(self._client, layout.names.documents, layout.names.chunks)
        return self._every(layout)

    def _every(self, layout: Layout) -> Iterator[Audited]:
        """Documents and chunks, both in the order of documents' ids, side by side."""
        live = layout.live.id
        chunks = scan(
            self._client,
            layout.names.index(live),
            {"match_all": {}},
            sort=["document_id", "id"],
        )
        groups = groupby(chunks, key=_document_id)
        documents = self._documents(layout)
        group, document = next(groups, None), next(documents, None)
        while group or document:
            if document and (group is None or document[0] < group[0]):
                yield _audited(document[0], document[1], [], live)
                document = next(documents, None)
            elif group:
                document_id, hits = group[0], list(group[1])
                if document and document[0] == document_id:
                    yield _audited(document_id, document[1], hits, live)
                    document = next(documents, None)
                else:
                    whole = read_whole(self._client, layout.names.documents, [document_id])
                    yield _audited(document_id, whole.get(document_id), hits, live)
                group = next(groups, None)

    def _documents(self, layout: Layout) -> Iterator[tuple[str, _Whole]]:
        """What is there, by id."""
        index = layout.names.documents
        for ids in scan_records(self._client, index, {"term": {"deleted": False}}):
            for document_id, whole in read_whole(self._client, index, ids).items():
                if whole[1] is not None:
                    yield document_id, whole

    def one(self, collection: str, document_id: str) -> Audited:
        """Waits for a moment for a writer who is at it."""
        names = self._layouts.names(collection)
        for look in range(_LOOKS):
            before = read_whole(self._client, names.documents, [document_id]).get(document_id)
            layout = self._layouts.get(collection, fresh=True)
            live = layout.live.id
            refresh(self._client, names.chunks)
            hits = list(hits_of(self._client, names.index(live), [document_id]))
            after = read_whole(self._client, names.documents, [document_id]).get(document_id)
            settled = after is None or after[0].complete or after[0].is_level(live)
            if before == after and settled:
                break
            if look < _LOOKS - 1:
                time.sleep(_PAUSE_SECONDS)
        return _audited(document_id, after, hits, live)

    def drift(self, collection: str) -> list[Drift]:
        """Elasticsearch keeps one copy of everything, so only indices and aliases can differ."""
        layout = self._layouts.get(collection, fresh=True)
        found = [
            Drift("indices", "surplus", "", f"{index} is no generation of the collection")
            for index in layout.leftovers
        ]
        if not layout.accepting:
            detail = (
                f"{layout.names.index(layout.live.id)} has no alias through which it is written"
            )
            found.append(Drift("aliases", "missing", "", detail))
        if not layout.has_notes:
            found.append(Drift("indices", "missing", "", f"{layout.names.notes} is not there"))
        return found

    def remove(self, collection: str, keys: Sequence[str]) -> int:
        layout = self._layouts.get(collection, fresh=True)
        return orphans.remove(self._client, layout.names, layout.live.id, keys)

    def mend(self, collection: str) -> None:
        layout = self._layouts.get(collection, fresh=True)
        if layout.leftovers:
            self._client.indices.delete(index=list(layout.leftovers), ignore_unavailable=True)
        if not layout.accepting:
            switches.accept(self._client, layout.names, layout.live)
        if not layout.has_notes:
            indices.create_notes(self._client, layout.names, self._settings)
        self._layouts.forget(collection)


def _document_id(hit: Hit) -> str:
    return str(hit["_source"].get("document_id") or hit["_id"].rpartition(":")[0])


def _audited(document_id: str, whole: _Whole | None, hits: Sequence[Hit], live: str) -> Audited:
    record, document = (whole[0], whole[1]) if whole else (None, None)
    chunks = sorted(map(_chunk, hits), key=lambda each: (each.chunk.position, each.key))
    return Audited(
        document_id=document_id,
        document=document,
        revision=record.revision if record else 0,
        chunks_expected=record.chunks_in(live) if record and document else 0,
        complete=record is not None and (record.complete or record.is_level(live)),
        level=record is not None and record.is_level(live),
        chunks=tuple(chunks),
        content_hash=record.content_hash if record and document else "",
    )


def _chunk(hit: Hit) -> AuditedChunk:
    """Whatever is there, so nothing of it is taken for granted."""
    source, windows = hit["_source"], windows_in(hit)
    return AuditedChunk(
        key=hit["_id"],
        chunk=Chunk(
            document_id=_document_id(hit),
            position=source.get("position", -1),
            text=source.get("text", ""),
            start=source.get("start", 0),
            end=source.get("end", 0),
            headings=tuple(source.get("headings", ())),
        ),
        revision=source.get("revision", 0),
        vector=vector_of(hit),
        windows=None if windows is None else unpack(windows),
        sparse=sparse_in(hit),
        title=source.get("title", ""),
        source=source.get("source", ""),
        metadata=metadata_from(source.get("metadata", {})),
        labels=tuple(sorted(hit.get("fields", {}).get("labels", ()))),
    )
