"""Documents as the store keeps them: the records of the documents index, read and made."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.documents import Document, StoredDocument
from server.stores.contract import DocumentState
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.errors import from_cause

_IDS_PER_REQUEST = 500
_SCAN_PAGE = 1_000  # ids
_SCAN_BYTES = 4_000_000  # of documents held at once; a single one may be larger
_STATE_FIELDS = ["revision", "content_hash", "chunks", "extent", "complete", "deleted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A document's record without the document.

    ``extent``: no chunk of the document has a position from here on, whatever was cut off.
    ``seq_no`` and ``primary_term`` are Elasticsearch's, for optimistic concurrency.
    """

    revision: int
    content_hash: str
    chunks: int
    extent: int
    complete: bool
    deleted: bool
    seq_no: int
    primary_term: int

    @property
    def state(self) -> DocumentState:
        return DocumentState(
            revision=self.revision,
            content_hash=self.content_hash,
            chunks=self.chunks,
            complete=self.complete,
        )


def get_many(
    client: Client, index: str, ids: Sequence[str], fields: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Id → answer with ``_source``, of those that are there; sees every acknowledged write."""
    wanted = list(dict.fromkeys(filter(None, ids)))
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(wanted), _IDS_PER_REQUEST):
        answer = client.mget(
            index=index, ids=wanted[start : start + _IDS_PER_REQUEST], source_includes=fields
        )
        for item in answer["docs"]:
            if "error" in item:
                raise from_cause(int(item.get("status", 500)), item["error"])
            if item["found"]:
                found[item["_id"]] = item
    return found


def read_records(client: Client, index: str, ids: Sequence[str]) -> dict[str, Record]:
    """Records by document id, tombstones among them."""
    return {
        document_id: Record(
            seq_no=item["_seq_no"], primary_term=item["_primary_term"], **item["_source"]
        )
        for document_id, item in get_many(client, index, ids, _STATE_FIELDS).items()
    }


def read_documents(client: Client, index: str, ids: Sequence[str]) -> dict[str, StoredDocument]:
    """Whole documents by id, of those that are there and not deleted."""
    fields = ["revision", "chunks", "updated_at", "deleted", "document"]
    found: dict[str, StoredDocument] = {}
    for document_id, item in get_many(client, index, ids, fields).items():
        source = item["_source"]
        if not source["deleted"]:
            found[document_id] = StoredDocument(
                document=document_from(source["document"]),
                revision=source["revision"],
                chunks=source["chunks"],
                updated_at=source["updated_at"],
            )
    return found


def document_from(stored: Mapping[str, Any]) -> Document:
    """A document from ``Document.as_json``; it was checked when it came in."""
    return Document(
        id=stored["id"],
        title=stored["title"],
        text=stored["text"],
        source=stored["source"],
        acl=tuple(stored["acl"]),
        metadata=metadata_from(stored["metadata"]),
    )


def metadata_from(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}


def scan(client: Client, index: str) -> Iterator[StoredDocument]:
    """Every document once, by id, holding few at a time.

    Pages go on after the last id seen, so nothing on the server expires however slow the reader is.
    """
    client.indices.refresh(index=index)
    after: list[Any] | None = None
    while True:
        page = client.search(
            index=index,
            query={"term": {"deleted": False}},
            sort="id:asc",
            search_after=after,
            size=_SCAN_PAGE,
            source=False,
            docvalue_fields=[{"field": "bytes"}],
            track_total_hits=False,
            allow_partial_search_results=False,
        )["hits"]["hits"]
        for ids in _by_size((hit["_id"], hit["fields"]["bytes"][0]) for hit in page):
            yield from read_documents(client, index, ids).values()
        if len(page) < _SCAN_PAGE:
            return
        after = page[-1]["sort"]


def _by_size(sizes: Iterator[tuple[str, int]]) -> Iterator[list[str]]:
    group: list[str] = []
    total = 0
    for document_id, size in sizes:
        if group and total + size > _SCAN_BYTES:
            yield group
            group, total = [], 0
        group.append(document_id)
        total += size
    if group:
        yield group
