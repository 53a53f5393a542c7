"""EmbeddedStore: collections in one folder, shared by any number of threads and processes."""

import contextlib
import shutil
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from server.documents import Passage, StoredDocument, check_collection
from server.errors import (
    CollectionExists,
    CollectionNotFound,
    Fenced,
    StoreUnavailable,
    TanyuanError,
)
from server.recipes import Recipe
from server.stores.audit import Audits
from server.stores.contract import (
    Collection,
    Deleted,
    DocumentState,
    Frequencies,
    Legs,
    LegsRequest,
    OwnedChunk,
    Write,
    Written,
)
from server.stores.embedded.audits import EmbeddedAudits
from server.stores.embedded.backups import copy_in, copy_out
from server.stores.embedded.collection import OpenCollection, sync_folder
from server.stores.embedded.database import vendor_errors
from server.stores.embedded.faiss_index import FaissEngine
from server.stores.embedded.generations import EmbeddedGenerations
from server.stores.embedded.locks import WriteLock
from server.stores.embedded.notes import EmbeddedNotes
from server.stores.embedded.vectors import VectorEngine
from server.stores.fences import LIFT_SECONDS, await_unfenced
from server.stores.filters import Filter
from server.stores.generations import Generation, Generations
from server.stores.note_checks import check_key, encoded
from server.stores.notes import Notes

LOCK_TIMEOUT = 60.0


class EmbeddedStore:
    """The store of ``server.stores.contract`` in a folder. Construct after a fork.

    ``lock_timeout``: seconds that a write waits for other writers before StoreTimeout.
    ``lift_seconds``: seconds that a delete waits for a fence before it takes the maker for dead.
    ``engine``: what finds nearest vectors; FAISS where none is given. The store closes it.
    """

    follow_seconds = 0.0  # every read looks

    def __init__(
        self,
        folder: Path,
        *,
        lock_timeout: float = LOCK_TIMEOUT,
        lift_seconds: float = LIFT_SECONDS,
        engine: VectorEngine | None = None,
    ) -> None:
        self._engine = engine or FaissEngine()
        self.kind = self._engine.kind
        self._folder = folder.absolute()
        self._place = self._folder / "collections"
        self._lock_timeout = lock_timeout
        self._lift_seconds = lift_seconds
        self.generations: Generations = EmbeddedGenerations(self._opened)
        self.notes: Notes = EmbeddedNotes(self._opened)
        self.audits: Audits = EmbeddedAudits(self._opened)
        self._open: dict[str, OpenCollection] = {}
        self._mutex = threading.Lock()
        self._closed = False
        with vendor_errors(self._folder):
            self._place.mkdir(parents=True, exist_ok=True)
            self._catalog = WriteLock(self._folder, timeout=lock_timeout)
            with self._catalog.tried() as alone:
                if alone:  # what killed processes left
                    for left in self._place.glob(".*"):
                        shutil.rmtree(left, ignore_errors=True)
                    self._engine.keep_collections(self._folders())

    def create_collection(
        self,
        name: str,
        *,
        recipe: Recipe,
        description: str = "",
        notes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Collection:
        stored = {check_key(key): encoded(value) for key, value in (notes or {}).items()}
        with self._drafted(name) as draft:
            OpenCollection.create(draft, recipe=recipe, description=description, notes=stored)
        return self.collection(name)

    def backup(self, collection: str, folder: Path) -> Path:
        """Write a copy of a collection as it is now to ``folder``, while others write; its path.

        The file holds all but the text index, which follows from it.
        """
        with self._opened(collection) as opened:
            return copy_out(opened.database, folder / f"{collection}.db")

    def restore(self, name: str, file: Path) -> Collection:
        """Make a new collection of what ``backup`` wrote.

        Raises CollectionExists; InvalidInput for a file that is none, or is damaged.
        """
        with self._drafted(name) as draft:
            copy_in(file, draft)
        with self._opened(name) as opened, opened.writing():
            opened.follow()
        return self.collection(name)

    def describe(self, name: str, description: str) -> Collection:
        with self._opened(name) as collection:
            collection.describe(description)
            return collection.described()

    def collections(self) -> list[Collection]:
        with vendor_errors(self._folder):
            names = sorted(folder.name.partition(".")[0] for folder in self._folders())
        found = []
        for name in names:
            with contextlib.suppress(CollectionNotFound):  # deleted just now
                found.append(self.collection(name))
        return found

    def collection(self, name: str) -> Collection:
        with self._opened(name) as collection:
            return collection.described()

    def live(self, name: str, *, fresh: bool = False) -> Generation:  # noqa: ARG002 - it always is
        with self._opened(name) as collection:
            return collection.live()

    def delete_collection(self, name: str) -> int:
        with self._opened(name) as collection:
            with collection.writing():
                documents = collection.described().documents
                trash = self._place / f".{uuid.uuid4().hex[:12]}"
                collection.folder.rename(trash)
                sync_folder(self._place)
            collection.close()
            self._engine.keep(collection.folder, ())
            shutil.rmtree(trash, ignore_errors=True)  # a remainder goes when the store opens again
            return documents

    def states(self, collection: str, document_ids: Sequence[str]) -> dict[str, DocumentState]:
        with self._opened(collection) as opened:
            return opened.states(document_ids)

    def write(
        self,
        collection: str,
        writes: Sequence[Write],
        *,
        key: str | None = None,
        refresh: bool = False,  # noqa: ARG002
    ) -> list[Written | TanyuanError]:
        """As the contract; search sees the writes at once, whatever ``refresh`` says.

        GenerationChanged claims nothing here: the document is as it was.
        """
        with self._opened(collection) as opened:
            return opened.write(writes, key)

    def delete(
        self,
        collection: str,
        document_id: str,
        *,
        if_revision: int | None = None,
        refresh: bool = False,  # noqa: ARG002 - search sees it at once
    ) -> Deleted:
        with self._opened(collection) as opened:
            while True:
                await_unfenced(opened.live, opened.lift, seconds=self._lift_seconds)
                with contextlib.suppress(Fenced):  # a new one stands since
                    return opened.delete(document_id, if_revision)

    def document(self, collection: str, document_id: str) -> StoredDocument:
        with self._opened(collection) as opened:
            return opened.document(document_id)

    def documents(self, collection: str) -> Iterator[StoredDocument]:
        with self._opened(collection) as opened:
            yield from opened.documents()

    def search(self, collection: str, request: LegsRequest) -> Legs:
        with self._opened(collection) as opened:
            return opened.searches.search(request)

    def passages(
        self,
        collection: str,
        chunk_ids: Sequence[str],
        *,
        generation: str | None = None,
        windows: bool = False,
    ) -> dict[str, Passage]:
        with self._opened(collection) as opened:
            return opened.passages(chunk_ids, generation, windows=windows)

    def owned_chunks(self, collection: str) -> Iterator[OwnedChunk]:
        with self._opened(collection) as opened:
            yield from opened.owned_chunks()

    def holding(
        self,
        collection: str,
        phrases: Sequence[Sequence[str]],
        *,
        filter: Filter | None = None,  # noqa: A002 - the contract's name
    ) -> list[int]:
        with self._opened(collection) as opened:
            return opened.searches.holding(phrases, filter)

    def mark(self, collection: str) -> str:
        with self._opened(collection) as opened:
            return opened.mark()

    def frequencies(
        self, collection: str, terms: Mapping[str, Sequence[str]], *, generation: str | None = None
    ) -> Frequencies:
        with self._opened(collection) as opened:
            return opened.searches.frequencies(terms, generation)

    def refresh(self, collection: str) -> None:
        with self._opened(collection) as opened:
            opened.refresh()

    def check(self) -> str:
        with vendor_errors(self._folder):
            self._require_open()
            count = len(self._folders())
        return (
            f"{self.kind} store in {self._folder}: {count} collections; SQLite "
            f"{sqlite3.sqlite_version}, tantivy {version('tantivy')}, {self._engine.describe()}"
        )

    def close(self) -> None:
        with self._mutex:
            self._closed = True
            collections, self._open = self._open, {}
        for collection in collections.values():
            collection.close()
        self._engine.close()

    @contextlib.contextmanager
    def _drafted(self, name: str) -> Iterator[Path]:
        """A folder's path to fill, which becomes the collection. Raises CollectionExists."""
        check_collection(name)
        with vendor_errors(self._folder):
            self._require_open()
            with self._catalog.held():
                if self._folder_of(name) is not None:
                    raise CollectionExists(f"There is a collection {name} already.")
                unique = uuid.uuid4().hex[:12]
                draft = self._place / f".{unique}"
                try:
                    yield draft
                    draft.rename(self._place / f"{name}.{unique}")
                except BaseException:
                    shutil.rmtree(draft, ignore_errors=True)
                    raise
                sync_folder(self._place)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[OpenCollection]:
        """The collection, for one call; its errors become the store's own."""
        with vendor_errors(self._folder):
            collection = self._find(name)
        try:
            with vendor_errors(collection.folder):
                yield collection
        except StoreUnavailable:
            if collection.gone:
                raise CollectionNotFound(f"There is no collection {name}.") from None
            raise

    def _find(self, name: str) -> OpenCollection:
        with self._mutex:
            self._require_open()
            known = self._open.get(name)
            if known is not None and not known.gone:
                return known
            if known is not None:
                known.close()
                del self._open[name]
            folder = self._folder_of(name)
            if folder is None:
                raise CollectionNotFound(f"There is no collection {name}.")
            self._open[name] = OpenCollection(
                folder, lock_timeout=self._lock_timeout, engine=self._engine
            )
            return self._open[name]

    def _folder_of(self, name: str) -> Path | None:
        return next((f for f in self._folders() if f.name.partition(".")[0] == name), None)

    def _folders(self) -> list[Path]:
        """Folders of the collections; those that begin with a dot are drafts and trash."""
        return [folder for folder in self._place.iterdir() if not folder.name.startswith(".")]

    def _require_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("The store is closed.")
