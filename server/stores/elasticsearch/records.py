"""Documents as the store keeps them: the records of the documents index, read and made."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.documents import Document, StoredDocument
from server.errors import StoreUnavailable
from server.stores.contract import DocumentState
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.errors import from_cause
from server.stores.elasticsearch.names import FIRST

_IDS_PER_REQUEST = 500
_SCAN_PAGE = 1_000  # ids
_SCAN_BYTES = 4_000_000  # of documents held at once; a single one may be larger
_STATE_FIELDS = [
    *("revision", "content_hash", "chunks", "counts", "extent", "levels", "complete", "deleted"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A document's record without the document.

    ``extent``: no chunk of the document has a position from here on, in whatever generation and
    whatever was cut off. ``levels``: ids of the generations that have this revision's chunks, whole;
    ``counts``: how many, by generation, where it is not ``chunks``. ``complete``: whether the write
    that made the revision was finished. ``seq_no`` and ``primary_term`` are Elasticsearch's, for
    optimistic concurrency.
    """

    revision: int
    content_hash: str = ""
    chunks: int
    extent: int = 0
    complete: bool
    deleted: bool
    levels: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    seq_no: int = -1
    primary_term: int = -1

    @classmethod
    def read(cls, item: Mapping[str, Any]) -> "Record":
        """From an answer of mget with the fields of a record."""
        source = {name: item["_source"][name] for name in _STATE_FIELDS if name in item["_source"]}
        levels = tuple(source.pop("levels", ()))
        if source["complete"] and not levels:
            # Made before there were levels, so of the only generation that there was.
            levels = (FIRST,)
        return cls(
            **source, levels=levels, seq_no=item["_seq_no"], primary_term=item["_primary_term"]
        )

    @property
    def condition(self) -> dict[str, int]:
        """What lets an operation fail when the record has changed."""
        return {"if_seq_no": self.seq_no, "if_primary_term": self.primary_term}

    def is_level(self, generation: str) -> bool:
        return generation in self.levels

    def chunks_in(self, generation: str) -> int:
        return self.counts.get(generation, self.chunks)

    def state(self, live: str) -> DocumentState:
        """As it stands in the live generation."""
        return DocumentState(
            revision=self.revision,
            content_hash=self.content_hash,
            chunks=self.chunks_in(live),
            complete=self.complete or self.is_level(live),
        )


def not_level(generation: str) -> dict[str, Any]:
    """The query for the records that are pending in a generation; see ``Record.read``."""
    level: list[dict[str, Any]] = [{"term": {"levels": generation}}]
    if generation == FIRST:
        older = {
            "filter": [{"term": {"complete": True}}],
            "must_not": [{"exists": {"field": "levels"}}],
        }
        level.append({"bool": older})
    return {"bool": {"must_not": level}}


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
    found = get_many(client, index, ids, _STATE_FIELDS)
    return {document_id: Record.read(item) for document_id, item in found.items()}


def read_whole(
    client: Client, index: str, ids: Sequence[str]
) -> dict[str, tuple[Record, Document | None, str]]:
    """Id → (record, document or None for a tombstone, when it was changed), in the order of ids."""
    found = get_many(client, index, ids, [*_STATE_FIELDS, "document", "updated_at"])
    return {
        document_id: (
            Record.read(item),
            None if item["_source"]["deleted"] else document_from(item["_source"]["document"]),
            item["_source"]["updated_at"],
        )
        for document_id, item in found.items()
    }


def read_documents(
    client: Client, index: str, ids: Sequence[str], live: str
) -> dict[str, StoredDocument]:
    """Whole documents by id, of those that are there and not deleted."""
    return {
        document_id: StoredDocument(
            document=document,
            revision=record.revision,
            chunks=record.chunks_in(live),
            updated_at=updated_at,
        )
        for document_id, (record, document, updated_at) in read_whole(client, index, ids).items()
        if document is not None
    }


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


def refresh(client: Client, *indices: str) -> None:
    """Make every acknowledged write visible to search. Raises StoreUnavailable."""
    answer = client.indices.refresh(index=list(indices))
    if answer["_shards"]["failed"]:
        raise StoreUnavailable("Elasticsearch could not refresh every shard; try again later.")


def scan(
    client: Client, index: str, query: Mapping[str, Any], *, by: str = "id"
) -> Iterator[list[str]]:
    """The ids of what matches, by id, in groups small enough to hold their documents at once.

    ``by``: the field that holds the id; ``bytes`` holds the size.

    Pages go on after the last id seen, so nothing on the server expires however slow the reader is.
    """
    after: list[Any] | None = None
    while True:
        page = client.search(
            index=index,
            query=dict(query),
            sort=f"{by}:asc",
            search_after=after,
            size=_SCAN_PAGE,
            source=False,
            docvalue_fields=[{"field": "bytes"}],
            track_total_hits=False,
            allow_partial_search_results=False,
        )["hits"]["hits"]
        yield from by_size((hit["_id"], hit["fields"]["bytes"][0]) for hit in page)
        if len(page) < _SCAN_PAGE:
            return
        after = page[-1]["sort"]


def count(client: Client, index: str, query: Mapping[str, Any]) -> int:
    found = client.search(
        index=index,
        query=dict(query),
        size=0,
        track_total_hits=True,
        allow_partial_search_results=False,
    )
    return int(found["hits"]["total"]["value"])


def by_size(sizes: Iterator[tuple[str, int]]) -> Iterator[list[str]]:
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
