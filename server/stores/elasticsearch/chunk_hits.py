"""Chunks read back as they lie in a generation, with their vectors."""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from server.documents import Chunk, Vector
from server.sparse import SparseWeights, unpack
from server.stores.contract import OwnedChunk
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.errors import from_cause
from server.stores.elasticsearch.queries import SEPARATOR, holding_query
from server.stores.filters import Filter
from server.stores.generations import StoredChunk
from server.stores.windows import unpack_sound

_PAGE = 500  # chunks; vectors are large as JSON
_IDS_PER_REQUEST = 500
_COUNTED = 100

Hit = Mapping[str, Any]


def hits_of(client: Client, index: str, document_ids: Sequence[str]) -> Iterator[Hit]:
    """Every chunk of documents that a refresh has shown, by chunk id in each lot of documents."""
    ids = list(dict.fromkeys(document_ids))
    for start in range(0, len(ids), _IDS_PER_REQUEST):
        query = {"terms": {"document_id": ids[start : start + _IDS_PER_REQUEST]}}
        yield from scan(client, index, query, sort=["id"])


def scan(
    client: Client, index: str, query: Mapping[str, Any], *, sort: Sequence[str]
) -> Iterator[Hit]:
    """Hits with ``_source``, and ``fields`` "vector" and "labels", page by page in the sort's order."""
    after: list[Any] | None = None
    while True:
        page = client.search(
            index=index,
            query=dict(query),
            sort=list(sort),
            search_after=after,
            size=_PAGE,
            # Whether _source has the vector depends on the server's version; fields always does.
            source_excludes=["vector"],
            fields=[{"field": "vector"}],
            docvalue_fields=[{"field": "labels"}],
            track_total_hits=False,
            allow_partial_search_results=False,
        )["hits"]["hits"]
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1]["sort"]


def chunk_of(hit: Hit) -> Chunk:
    source = hit["_source"]
    return Chunk(
        document_id=source["document_id"],
        position=source["position"],
        text=source["text"],
        start=source["start"],
        end=source["end"],
        headings=tuple(source["headings"]),
    )


def vector_of(hit: Hit) -> Vector | None:
    """As it lies there, float32."""
    found = hit.get("fields", {}).get("vector")
    return None if found is None else np.asarray(found, dtype=np.float32)


def windows_in(hit: Hit) -> bytes | None:
    """As they lie there; empty where that is no base64."""
    return _bytes_in(hit, "windows")


def _bytes_in(hit: Hit, field: str) -> bytes | None:
    found = hit["_source"].get(field)
    if found is None:
        return None
    try:
        return base64.b64decode(found, validate=True)
    except (binascii.Error, TypeError, ValueError):
        return b""


def sparse_in(hit: Hit) -> SparseWeights | None:
    """As they lie there."""
    found = _bytes_in(hit, "sparse_kept")
    return None if found is None else unpack(found)


def stored_chunks(
    client: Client, index: str, document_ids: Sequence[str]
) -> dict[str, tuple[StoredChunk, ...]]:
    """By document and position, of what a refresh has shown."""
    found: dict[str, list[StoredChunk]] = {}
    for hit in hits_of(client, index, document_ids):
        chunk, vector = chunk_of(hit), vector_of(hit)
        if hit["_id"] != chunk.id:
            continue  # stands twice; an audit shows it
        if vector is not None:
            vector = (vector / np.linalg.norm(vector)).astype(np.float32)
        sparse = sparse_in(hit)
        stored = StoredChunk(
            chunk=chunk,
            vector=vector,
            windows=unpack_sound(windows_in(hit)),
            sparse=sparse if sparse and sparse.sound else None,
        )
        found.setdefault(chunk.document_id, []).append(stored)
    return {
        document_id: tuple(sorted(chunks, key=lambda each: each.chunk.position))
        for document_id, chunks in found.items()
    }


def documents_containing(client: Client, index: str, terms: Sequence[str]) -> Iterator[str]:
    """Ids of the documents, by id, of which a chunk's bigrams or title's bigrams hold all terms."""
    wanted = list(dict.fromkeys(terms))
    either = [
        {"bool": {"filter": [{"term": {field: term}} for term in wanted]}}
        for field in ("bigrams", "title_bigrams")
    ]
    after: list[Any] | None = None
    while True:
        page = client.search(
            index=index,
            query={"bool": {"filter": [{"bool": {"should": either, "minimum_should_match": 1}}]}},
            collapse={"field": "document_id"},  # one hit a document
            sort=["document_id"],
            search_after=after,
            size=_PAGE,
            source=False,
            track_total_hits=False,
            allow_partial_search_results=False,
        )["hits"]["hits"]
        for hit in page:
            yield hit["sort"][0]
        if len(page) < _PAGE:
            return
        after = page[-1]["sort"]


def owned_chunks(client: Client, index: str) -> Iterator[OwnedChunk]:
    """Every chunk that a refresh has shown, by document."""
    start = f"acl{SEPARATOR}s"
    after: list[Any] | None = None
    while True:
        page = client.search(
            index=index,
            query={"match_all": {}},
            sort=["document_id", "id"],
            search_after=after,
            size=_PAGE,
            source_excludes=["vector", "windows", "sparse_kept"],
            docvalue_fields=[{"field": "labels"}],
            track_total_hits=False,
            allow_partial_search_results=False,
        )["hits"]["hits"]
        for hit in page:
            labels = hit.get("fields", {}).get("labels", ())
            acl = tuple(label.removeprefix(start) for label in labels if label.startswith(start))
            yield OwnedChunk(chunk=chunk_of(hit), title=hit["_source"]["title"], acl=acl)
        if len(page) < _PAGE:
            return
        after = page[-1]["sort"]


def count_holding(
    client: Client, index: str, phrases: Sequence[Sequence[str]], condition: Filter | None
) -> list[int]:
    """For each phrase, how many chunks that meet the condition hold it, counted to _COUNTED."""
    header = {"index": index, "allow_partial_search_results": False}
    body = {"size": 0, "track_total_hits": _COUNTED}
    lines = [
        line
        for terms in phrases
        if terms
        for line in (header, {**body, "query": holding_query(terms, condition)})
    ]
    answers = iter(client.msearch(searches=lines)["responses"] if lines else ())
    counts: list[int] = []
    for terms in phrases:
        if not terms:
            counts.append(0)
            continue
        answer: dict[str, Any] = next(answers)
        if "error" in answer:
            raise from_cause(int(answer.get("status", 500)), answer["error"])
        counts.append(int(answer["hits"]["total"]["value"]))
    return counts
