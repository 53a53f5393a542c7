"""Indexer: documents into a collection, with all that the live recipe derives from them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from server.documents import Document, check_collection
from server.errors import (
    CollectionExists,
    CollectionNotFound,
    GenerationChanged,
    StoreTimeout,
    StoreUnavailable,
    TanyuanError,
)
from server.ingest.chunker import chunker_of
from server.ingest.derivation import Derived, Deriver, KnownVectors
from server.ingest.windows import FINGERPRINT as WINDOWS
from server.live import Live, LiveCollections
from server.recipes import CHUNKS, Recipe, mismatch
from server.stores.contract import Collection, Deleted, DocumentState, Store, Write, Written
from server.stores.fences import await_unfenced

_MOST_SECONDS = 120.0  # that a write follows one promotion after the other


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """A document that is in the collection as it was given."""

    document_id: str
    revision: int
    chunks: int
    status: Literal["created", "updated", "unchanged"]


def deriver_of(live: Live, own: Recipe) -> Deriver:
    """What carries out the recipe of a live collection. Raises RecipeMismatch, EmbedderUnavailable;
    ``own`` is named as what this process would do."""
    for error in (live.words, live.vectors, live.chunking):
        if error:
            raise error
    chunker = chunker_of(live.recipe.chunker, live.embedder)
    if chunker is None or live.recipe.windows not in {"", WINDOWS}:
        raise mismatch(live.collection, live.recipe, own, CHUNKS) or AssertionError
    if live.sparse:
        raise live.sparse
    return Deriver(
        analyzer=live.analyzer,
        embedder=live.embedder,
        chunker=chunker,
        windowed=bool(live.recipe.windows),
        sparse=bool(live.recipe.sparse),
    )


@dataclass(slots=True)
class _Putting:
    """One call of ``put``: what is still to be written, and what became of the others.

    ``claims``: by id, what a store said of writes that have to be made again.
    """

    waiting: dict[str, Document]
    if_revision: int | None
    results: dict[str, Put | TanyuanError] = field(default_factory=dict)
    claims: dict[str, GenerationChanged] = field(default_factory=dict)
    failed: StoreUnavailable | None = None

    def settle(self, document_id: str, result: Put | TanyuanError) -> None:
        self.waiting.pop(document_id, None)
        self.results[document_id] = result

    def write_of(self, item: Derived) -> Write | None:
        """None for a document that could not be derived, which is settled so."""
        if isinstance(item.chunks, TanyuanError):
            self.settle(item.document.id, item.chunks)
            return None
        condition = self.if_revision
        claim = self.claims.get(item.document.id)
        if condition is not None and claim is not None and claim.claimed is not None:
            condition = claim.claimed
        return Write(document=item.document, chunks=item.chunks, if_revision=condition)

    def note(self, write: Write, result: Written | TanyuanError) -> None:
        document_id = write.document.id
        claim = self.claims.get(document_id)
        if isinstance(result, GenerationChanged):
            # What a later refusal doesn't know, an earlier one has told.
            if claim is None or result.claimed is not None:
                created = claim.created if claim and claim.created is not None else result.created
                self.claims[document_id] = GenerationChanged(
                    result.message, claimed=result.claimed, created=created
                )
        elif isinstance(result, TanyuanError):
            self.settle(document_id, result)
            if isinstance(result, StoreUnavailable):
                self.failed = result
        else:
            created = claim.created if claim and claim.created is not None else None
            status = result.status if created is None else "created" if created else "updated"
            self.settle(
                document_id,
                Put(
                    document_id=document_id,
                    revision=result.revision,
                    chunks=result.chunks,
                    status=status,
                ),
            )


class Indexer:
    """Puts documents and removes them, by the recipe that each collection has at that moment.

    Holds no state and no lock, so it is as thread-safe as its parts, and embedding keeps nobody
    waiting.
    """

    def __init__(self, store: Store, live: LiveCollections) -> None:
        self._store = store
        self._live = live

    @property
    def recipe(self) -> Recipe:
        """What new collections are made with."""
        return self._live.own

    def ensure_collection(self, name: str, description: str = "") -> Collection:
        """The collection, created with this process's recipe where it is missing.

        One that is there stays as it is. Raises InvalidInput for a bad name.
        """
        check_collection(name)
        try:
            return self._store.collection(name)
        except CollectionNotFound:
            pass
        try:
            return self._live.create(name, description)
        except CollectionExists:  # another process was faster
            return self._store.collection(name)

    def put(
        self,
        collection: str,
        documents: Sequence[Document],
        *,
        if_revision: int | None = None,
        refresh: bool = False,
        known: KnownVectors | None = None,
    ) -> list[Put | TanyuanError]:
        """Put documents; one result each, in order. What was put is durable, and with ``refresh``
        visible to search.

        One that is there already, whole and the same, is left alone. A failure is returned in its
        document's place and stops no other, unless the store itself can't be reached: then the rest
        carry that error. Of an id that stands twice only the last document is put, and each place
        has its result. ``if_revision``: see ``Write``; ``known``: see ``Deriver.derive``.

        What is promoted meanwhile is followed: a write that was derived by the old recipe is derived
        again by the new one, after a wait of seconds at most.

        Raises RecipeMismatch before anything is written, CollectionNotFound, StoreUnavailable.
        """
        live = self._live.open(collection)
        deriver = deriver_of(live, self.recipe)
        last = {document.id: document for document in documents}
        putting = _Putting(waiting=last.copy(), if_revision=if_revision)
        for document_id, state in self._store.states(collection, list(last)).items():
            if _same(last[document_id], state) and if_revision in {None, state.revision}:
                unchanged = Put(
                    document_id=document_id,
                    revision=state.revision,
                    chunks=state.chunks,
                    status="unchanged",
                )
                putting.settle(document_id, unchanged)
        deadline = time.monotonic() + _MOST_SECONDS
        while putting.waiting and not putting.failed:
            self._write(collection, live, deriver, putting, known)
            if putting.waiting and not putting.failed:
                if time.monotonic() > deadline:
                    putting.failed = StoreTimeout(
                        f"Collection {collection!r} is being changed all the time; try again later."
                    )
                    break
                try:
                    live = self._follow(collection)
                    deriver = deriver_of(live, self.recipe)
                except TanyuanError as error:  # what was written stays written
                    for document_id in list(putting.waiting):
                        putting.settle(document_id, error)
        if refresh and not putting.failed:
            self._store.refresh(collection)
        if putting.failed:
            return [putting.results.get(each.id, putting.failed) for each in documents]
        return [putting.results[each.id] for each in documents]

    def delete(
        self,
        collection: str,
        document_id: str,
        *,
        if_revision: int | None = None,
        refresh: bool = False,
    ) -> Deleted:
        """Remove a document with its chunks. Raises as ``Store.delete`` does."""
        return self._store.delete(collection, document_id, if_revision=if_revision, refresh=refresh)

    def _write(
        self,
        collection: str,
        live: Live,
        deriver: Deriver,
        putting: _Putting,
        known: KnownVectors | None,
    ) -> None:
        """Derive and write what waits; what stays waiting has to be derived by another recipe."""
        for batch in deriver.derive(list(putting.waiting.values()), known=known):
            writes = [write for item in batch if (write := putting.write_of(item))]
            if not writes:
                continue
            results: Sequence[Written | TanyuanError]
            try:
                results = self._store.write(collection, writes, key=live.generation.key)
            except TanyuanError as error:
                results = [error] * len(writes)
            for write, result in zip(writes, results, strict=True):
                putting.note(write, result)
            if putting.failed or any(isinstance(each, GenerationChanged) for each in results):
                return

    def _follow(self, collection: str) -> Live:
        """The collection as it is after the promotion that is under way."""
        generations = self._store.generations
        await_unfenced(
            lambda: self._store.live(collection, fresh=True),
            lambda fence: generations.lift(collection, fence),
        )
        return self._live.open(collection, fresh=True)


def _same(document: Document, state: DocumentState) -> bool:
    return state.complete and state.content_hash == document.content_hash
