"""Small parts with state for tests of the HTTP layer; the rooms behind it have tests of their own."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from server.analysis.analyzer import JiebaAnalyzer
from server.answering.answerer import Answerer
from server.documents import Document, IndexedChunk, Passage, StoredDocument
from server.errors import (
    CollectionExists,
    CollectionNotFound,
    DocumentNotFound,
    GeneratorInterrupted,
    RevisionConflict,
    TanyuanError,
)
from server.ingest.chunker import Chunker
from server.ingest.indexer import Indexer
from server.models.contract import Generated, Message
from server.recipes import Recipe
from server.retrieval.searcher import Searcher
from server.settings import Settings
from server.stores import filters
from server.stores.contract import (
    Collection,
    Deleted,
    DocumentState,
    Leg,
    Legs,
    LegsRequest,
    Write,
    Written,
)
from server.web.keys import Keys
from server.web.services import Component, Services


class MemoryStore:
    """A store in dictionaries: BM25's place is taken by the count of shared terms.

    ``fault``: raised by every call while it is set. ``writes``: how many documents each write had.
    """

    kind = "memory"

    def __init__(self) -> None:
        self.fault: TanyuanError | None = None
        self.writes: list[int] = []
        self.refreshes = 0
        self._lock = threading.RLock()
        self._collections: dict[str, Collection] = {}
        self._documents: dict[str, dict[str, tuple[StoredDocument, tuple[IndexedChunk, ...]]]] = {}
        self._revisions: dict[tuple[str, str], int] = {}

    def _check(self, name: str | None = None) -> None:
        if self.fault:
            raise self.fault
        if name is not None and name not in self._collections:
            raise CollectionNotFound(f"There is no collection {name!r}.")

    def create_collection(self, name: str, *, recipe: Recipe, description: str = "") -> Collection:
        with self._lock:
            self._check()
            if name in self._collections:
                raise CollectionExists(f"Collection {name!r} exists.")
            self._collections[name] = Collection(
                name=name,
                description=description,
                recipe=recipe,
                generation="1",
                documents=0,
                chunks=0,
            )
            self._documents[name] = {}
            return self.collection(name)

    def describe(self, name: str, description: str) -> Collection:
        with self._lock:
            self._check(name)
            self._collections[name] = replace(self._collections[name], description=description)
            return self.collection(name)

    def collections(self) -> list[Collection]:
        with self._lock:
            self._check()
            return [self.collection(name) for name in sorted(self._collections)]

    def collection(self, name: str) -> Collection:
        with self._lock:
            self._check(name)
            held = self._documents[name].values()
            return replace(
                self._collections[name],
                documents=len(held),
                chunks=sum(len(chunks) for _, chunks in held),
            )

    def recipe(self, name: str) -> Recipe:
        self._check(name)
        return self._collections[name].recipe

    def delete_collection(self, name: str) -> int:
        with self._lock:
            self._check(name)
            del self._collections[name]
            return len(self._documents.pop(name))

    def states(self, collection: str, document_ids: Sequence[str]) -> dict[str, DocumentState]:
        with self._lock:
            self._check(collection)
            held = self._documents[collection]
            return {
                key: DocumentState(
                    revision=held[key][0].revision,
                    content_hash=held[key][0].document.content_hash,
                    chunks=held[key][0].chunks,
                    complete=True,
                )
                for key in document_ids
                if key in held
            }

    def write(
        self, collection: str, writes: Sequence[Write], *, refresh: bool = False
    ) -> list[Written | TanyuanError]:
        with self._lock:
            self._check(collection)
            self.writes.append(len(writes))
            return [self._write(collection, one) for one in writes]

    def _write(self, collection: str, write: Write) -> Written | TanyuanError:
        held, key = self._documents[collection], write.document.id
        there = held[key][0].revision if key in held else 0
        if write.if_revision not in {None, there}:
            return RevisionConflict(f"{key!r} has revision {there}, not {write.if_revision}.")
        revision = self._revisions.get((collection, key), 0) + 1
        self._revisions[collection, key] = revision
        stored = StoredDocument(
            document=write.document,
            revision=revision,
            chunks=len(write.chunks),
            updated_at="2026-01-01T00:00:00+00:00",
        )
        held[key] = (stored, write.chunks)
        return Written(
            document_id=key,
            revision=revision,
            chunks=len(write.chunks),
            status="updated" if there else "created",
        )

    def delete(
        self,
        collection: str,
        document_id: str,
        *,
        if_revision: int | None = None,
        refresh: bool = False,
    ) -> Deleted:
        with self._lock:
            stored = self.document(collection, document_id)
            if if_revision not in {None, stored.revision}:
                raise RevisionConflict(f"{document_id!r} has revision {stored.revision}.")
            del self._documents[collection][document_id]
            self._revisions[collection, document_id] += 1
            return Deleted(
                document_id=document_id, revision=stored.revision + 1, chunks=stored.chunks
            )

    def document(self, collection: str, document_id: str) -> StoredDocument:
        with self._lock:
            self._check(collection)
            if document_id not in self._documents[collection]:
                raise DocumentNotFound(f"There is no document {document_id!r}.")
            return self._documents[collection][document_id][0]

    def documents(self, collection: str) -> Iterator[StoredDocument]:
        self._check(collection)
        return iter([stored for stored, _ in self._documents[collection].values()])

    def search(self, collection: str, request: LegsRequest) -> Legs:
        with self._lock:
            self._check(collection)
            wanted = {term for clause in request.text or () for term in clause.terms}
            found = [
                (item.chunk.id, float(len(wanted & {t for ts in item.terms.values() for t in ts})))
                for stored, chunks in self._documents[collection].values()
                if matches(request.filter, stored.document)
                for item in chunks
            ]
        hits = sorted((hit for hit in found if hit[1]), key=lambda hit: (-hit[1], hit[0]))
        return Legs(bm25=Leg(hits=tuple(hits[: request.k]), total=len(hits), took_ms=0.1))

    def passages(self, collection: str, chunk_ids: Sequence[str]) -> dict[str, Passage]:
        with self._lock:
            self._check(collection)
            return {
                item.chunk.id: Passage(
                    chunk=item.chunk,
                    title=stored.document.title,
                    source=stored.document.source,
                    metadata=stored.document.metadata,
                    revision=stored.revision,
                )
                for stored, chunks in self._documents[collection].values()
                for item in chunks
                if item.chunk.id in chunk_ids
            }

    def refresh(self, collection: str) -> None:
        self._check(collection)
        self.refreshes += 1

    def check(self) -> str:
        self._check()
        return "in memory"

    def close(self) -> None:
        """Nothing is held."""


def matches(given: filters.Filter | None, document: Document) -> bool:  # noqa: PLR0911
    """Whether a document passes a filter."""
    labels: Mapping[str, tuple[str, ...]] = filters.labels_of(document)
    match given:
        case None:
            return True
        case filters.Terms(key, values):
            return any(filters.encode_value(value) in labels.get(key, ()) for value in values)
        case filters.Exists(key):
            return key in labels
        case filters.Not(inner):
            return not matches(inner, document)
        case filters.All(several):
            return all(matches(one, document) for one in several)
        case filters.Any(several):
            return any(matches(one, document) for one in several)
        case filters.Range():
            return any(_within(value, given) for value in labels.get(given.key, ()))


def _within(value: str, given: filters.Range) -> bool:
    def encoded(bound: object) -> str:
        return filters.encode_value(bound)

    return (
        any(
            bound is not None and encoded(bound)[0] == value[0]
            for bound in (given.gte, given.gt, given.lte, given.lt)
        )
        and (given.gte is None or value >= encoded(given.gte))
        and (given.gt is None or value > encoded(given.gt))
        and (given.lte is None or value <= encoded(given.lte))
        and (given.lt is None or value < encoded(given.lt))
    )


class ScriptedGenerator:
    """Says its script's pieces; a float is a silence of so many seconds, an error is raised.

    When its stream ends or is closed, a line is added to ``record``.
    """

    name = "scripted"
    context_tokens = 8192
    message_overhead = 8

    def __init__(self, *script: str | float | TanyuanError, record: Path | None = None) -> None:
        self._script = script
        self._record = record

    def count_tokens(self, text: str) -> int:
        return len(text)

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str | Generated]:
        said = 0
        try:
            for step in self._script:
                if isinstance(step, TanyuanError):
                    raise step
                if isinstance(step, float):
                    time.sleep(step)
                else:
                    said += 1
                    yield step
            yield Generated(reason="stop")
        finally:
            if self._record:
                with self._record.open("a") as file:
                    file.write(f"closed after {said}\n")

    def check(self) -> str:
        return "scripted"


SCRIPTS: Mapping[str, tuple[str | float | TanyuanError, ...]] = {
    "answer": ("住宿标准", "是每晚\n", "500 元 [1]。"),
    "endless": tuple(step for number in range(2_000) for step in (f"字{number} ", 0.05)),
    "interrupted": ("住宿", GeneratorInterrupted("The generator stopped in the middle.")),
    "silent": (3.0, "终于 [1]。"),
}


@cache
def _analyzer() -> JiebaAnalyzer:
    return JiebaAnalyzer()  # thread-safe, and slow to make


def make_services(
    settings: Settings,
    *,
    store: MemoryStore | None = None,
    generator: ScriptedGenerator | None = None,
) -> Services:
    """Real analysis, chunking, retrieval and answering over a store in memory, without models."""
    store = store or MemoryStore()
    analyzer = _analyzer()
    indexer = Indexer(store, analyzer, None, Chunker(len))
    searcher = Searcher(
        store=store, analyzer=analyzer, embedder=None, reranker=None, recipe=indexer.recipe
    )
    answerer = Answerer(searcher=searcher, analyzer=analyzer, generator=generator)

    def components() -> Mapping[str, Component]:
        try:
            serving = Component(ready=True, name="memory", detail=store.check())
        except TanyuanError as error:
            serving = Component(ready=False, name="memory", detail=error.message)
        none = Component(ready=False, name="none", detail="not in this test")
        return {"store": serving, "embedder": none, "reranker": none, "generator": none}

    return Services(
        settings=settings,
        store=store,
        indexer=indexer,
        searcher=searcher,
        answerer=answerer,
        keys=Keys.in_folder(settings.data),
        choices=(),
        components=components,
    )
