"""Indexer: documents into a collection, with all that the recipe derives from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from server.analysis.contract import Analyzer
from server.documents import Document, check_collection
from server.errors import (
    CollectionExists,
    CollectionNotFound,
    StoreUnavailable,
    TanyuanError,
)
from server.ingest.chunker import Chunker, chunker_for
from server.ingest.derivation import Derived, Deriver
from server.models.contract import Embedder
from server.recipes import Recipe, mismatch
from server.stores.contract import Collection, Deleted, DocumentState, Store, Write


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """A document that is in the collection as it was given."""

    document_id: str
    revision: int
    chunks: int
    status: Literal["created", "updated", "unchanged"]


class Indexer:
    """Puts documents and removes them. Holds no state and no lock, so it is as thread-safe as its
    parts, and embedding keeps nobody waiting. Without a ``chunker``, the one that suits the embedder."""

    def __init__(
        self,
        store: Store,
        analyzer: Analyzer,
        embedder: Embedder | None,
        chunker: Chunker | None = None,
    ) -> None:
        self._store = store
        self._deriver = Deriver(
            analyzer=analyzer, embedder=embedder, chunker=chunker or chunker_for(embedder)
        )

    @property
    def recipe(self) -> Recipe:
        """What this process makes terms and vectors with."""
        return self._deriver.recipe

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
            return self._store.create_collection(name, recipe=self.recipe, description=description)
        except CollectionExists:  # another process was faster
            return self._store.collection(name)

    def put(
        self,
        collection: str,
        documents: Sequence[Document],
        *,
        if_revision: int | None = None,
        refresh: bool = False,
    ) -> list[Put | TanyuanError]:
        """Put documents; one result each, in order. What was put is durable, and with ``refresh``
        visible to search.

        One that is there already, whole and the same, is left alone. A failure is returned in its
        document's place and stops no other, unless the store itself can't be reached: then the rest
        carry that error. Of an id that stands twice only the last document is put, and each place
        has its result. ``if_revision``: see ``Write``.

        Raises RecipeMismatch before anything is written, CollectionNotFound, StoreUnavailable.
        """
        self._check_recipe(collection)
        last = {document.id: document for document in documents}
        states = self._store.states(collection, list(last))
        results: dict[str, Put | TanyuanError] = {}
        for document_id, state in states.items():
            if _same(last[document_id], state) and if_revision in {None, state.revision}:
                results[document_id] = Put(
                    document_id=document_id,
                    revision=state.revision,
                    chunks=state.chunks,
                    status="unchanged",
                )
        changed = [document for key, document in last.items() if key not in results]
        failed: StoreUnavailable | None = None
        for batch in self._deriver.derive(changed):
            written = self._write(collection, batch, if_revision)
            results.update(written)
            failed = next((e for e in written.values() if isinstance(e, StoreUnavailable)), None)
            if failed:
                break
        if refresh and not failed:
            self._store.refresh(collection)
        if failed:
            results = {**dict.fromkeys(last, failed), **results}
        return [results[document.id] for document in documents]

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

    def _check_recipe(self, collection: str) -> None:
        error = mismatch(collection, self._store.recipe(collection), self.recipe)
        if error:
            raise error

    def _write(
        self, collection: str, batch: Sequence[Derived], if_revision: int | None
    ) -> dict[str, Put | TanyuanError]:
        results: dict[str, Put | TanyuanError] = {}
        writes = []
        for item in batch:
            if isinstance(item.chunks, TanyuanError):
                results[item.document.id] = item.chunks
            else:
                writes.append(
                    Write(document=item.document, chunks=item.chunks, if_revision=if_revision)
                )
        if not writes:
            return results
        try:
            self._check_recipe(collection)  # it may have been rebuilt while the models were busy
            written = self._store.write(collection, writes)
        except TanyuanError as error:
            return results | {write.document.id: error for write in writes}
        for write, result in zip(writes, written, strict=True):
            results[write.document.id] = (
                result
                if isinstance(result, TanyuanError)
                else Put(
                    document_id=result.document_id,
                    revision=result.revision,
                    chunks=result.chunks,
                    status=result.status,
                )
            )
        return results


def _same(document: Document, state: DocumentState) -> bool:
    return state.complete and state.content_hash == document.content_hash
