"""One collection's folder: the database, and the two indexes that follow it."""

import contextlib
import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from server.documents import Passage, StoredDocument, Vector
from server.errors import (
    CollectionNotFound,
    DocumentNotFound,
    StoreFull,
    StoreUnavailable,
    TanyuanError,
)
from server.recipes import Recipe
from server.stores.checks import check_request, check_writes, no_vectors
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
from server.stores.embedded import rows
from server.stores.embedded.changes import Change
from server.stores.embedded.database import Database, vendor_errors
from server.stores.embedded.locks import WriteLock
from server.stores.embedded.text_follower import TextFollower, text_folder
from server.stores.embedded.text_index import TextIndex
from server.stores.embedded.vector_index import VectorIndex

_RESERVE = 16 * 1024 * 1024  # bytes left free on the disk, for deletes and the text index's merges
_SCAN_CHARS = 4_000_000
_T = TypeVar("_T")


def sync_folder(folder: Path) -> None:
    """Make names within a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class OpenCollection:
    """Thread-safe. Its folder's name is ``<collection>.<unique>``, so a path never comes back."""

    def __init__(self, folder: Path, *, lock_timeout: float) -> None:
        self.folder = folder
        self.name = folder.name.partition(".")[0]
        self.lock = WriteLock(folder, timeout=lock_timeout)
        self._database = Database(folder / "collection.db")
        self._opening = threading.Lock()
        self._text = TextFollower(folder, self._database, self.lock, lambda: not self.gone)
        self._vectors: VectorIndex | None = None

    @staticmethod
    def create(folder: Path, *, recipe: Recipe, description: str) -> None:
        """Make the folder of an empty collection with its first generation."""
        folder.mkdir()
        text = text_folder(1, 1)
        TextIndex.create(folder / text)
        database = Database.create(folder / "collection.db")
        with contextlib.closing(database), database.writing() as connection:
            connection.execute("INSERT INTO state VALUES (1, ?, 1, 0, 0, 0)", (description,))
            connection.execute(
                "INSERT INTO generations VALUES (1, ?, ?, 0, 0)",
                (json.dumps(recipe.as_json()), text),
            )
        sync_folder(folder)

    def close(self) -> None:
        self._database.close()

    @property
    def gone(self) -> bool:
        """Whether the collection was deleted, by whichever process."""
        return not self.folder.is_dir()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """The write lock on a collection that is still there."""
        with self.lock.held():
            if self.gone:
                raise CollectionNotFound(f"There is no collection {self.name}.")
            yield

    def describe(self, description: str) -> None:
        with self.writing(), self._database.writing() as connection:
            connection.execute("UPDATE state SET description = ?", (description,))

    def described(self) -> Collection:
        state = self._state()
        return Collection(
            name=self.name,
            description=state.description,
            recipe=state.recipe,
            generation=f"{state.generation:06}",
            documents=state.documents,
            chunks=state.chunks,
        )

    def recipe(self) -> Recipe:
        return self._state().recipe

    def states(self, document_ids: Sequence[str]) -> dict[str, DocumentState]:
        return self._read(lambda c, generation: rows.states(c, generation, document_ids))

    def document(self, document_id: str) -> StoredDocument:
        found = self._read(lambda c, generation: rows.document(c, generation, document_id))
        if found is None:
            raise DocumentNotFound(f"There is no document {document_id}.")
        return found

    def documents(self) -> Iterator[StoredDocument]:
        """Every document by id; each batch is read on its own, so that no writer waits."""
        last = ""
        while batch := self._read(
            lambda c, generation, after=last: rows.documents_after(  # type: ignore[misc]
                c, generation, after, max_chars=_SCAN_CHARS
            )
        ):
            yield from batch
            last = batch[-1].document.id

    def passages(self, chunk_ids: Sequence[str]) -> dict[str, Passage]:
        return self._read(lambda c, generation: rows.passages(c, generation, chunk_ids))

    def write(self, writes: Sequence[Write]) -> list[Written | TanyuanError]:
        with self.writing():
            try:
                with vendor_errors(self.folder):
                    self._require_room(writes)
                    with self._database.writing() as connection:
                        state = rows.read_state(connection)
                        check_writes(writes, state.recipe.dimensions)
                        change = Change(connection, state)
                        results: list[Written | TanyuanError] = [
                            change.put(write) for write in writes
                        ]
                        change.finish()
                self._follow()
            except StoreFull as error:
                return [error] * len(writes)
        return results

    def delete(self, document_id: str, if_revision: int | None) -> Deleted:
        with self.writing():
            with vendor_errors(self.folder), self._database.writing() as connection:
                change = Change(connection, rows.read_state(connection))
                deleted = change.delete(document_id, if_revision)
                change.finish()
            self._follow()
        return deleted

    def refresh(self) -> None:
        """Bring the text index up to every acknowledged write."""
        state = self._state()
        if state.text_sequence < state.sequence:
            with self.writing(), vendor_errors(self.folder):
                self._text.follow()

    def search(self, request: LegsRequest) -> Legs:
        state = self._state()
        check_request(request, state.recipe.dimensions)
        errors: dict[str, TanyuanError] = {}
        bm25 = vector = None
        if request.text is not None:
            try:
                bm25 = self._search_text(request)
            except StoreUnavailable as error:
                errors["bm25"] = error
        if request.vector is not None:
            if not state.recipe.dimensions:
                errors["vector"] = no_vectors(self.name)
            else:
                try:
                    vector = self._search_vectors(state, request, request.vector)
                except StoreUnavailable as error:
                    errors["vector"] = error
        if errors and self.gone:
            raise CollectionNotFound(f"There is no collection {self.name}.")
        return Legs(bm25=bm25, vector=vector, errors=errors)

    def _state(self) -> rows.State:
        with self._database.reading() as connection:
            return rows.read_state(connection)

    def _read(self, query: Callable[[sqlite3.Connection, int], _T]) -> _T:
        """A query of the live generation."""
        with self._database.reading() as connection:
            [generation] = connection.execute("SELECT generation FROM state").fetchone()
            return query(connection, generation)

    def _follow(self) -> None:
        """Bring the text index up to a change that is stored by now."""
        try:
            with vendor_errors(self.folder):
                self._text.follow()
        except StoreFull as error:
            raise StoreFull(
                f"The change is stored, but search can't see it yet. {error.message}"
            ) from error

    def _require_room(self, writes: Sequence[Write]) -> None:
        """Refuse before the disk is full: what is acknowledged must also reach the text index."""
        chars = sum(len(write.document.text) for write in writes)
        chunks = sum(len(write.chunks) for write in writes)
        needed = _RESERVE + 12 * chars + 8_192 * chunks
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise StoreFull(
                f"The disk of {self.folder} has {free >> 20} MB left and this write may need "
                f"{needed >> 20} MB. Free space and try again."
            )

    def _search_text(self, request: LegsRequest) -> Leg:
        with vendor_errors(self.folder):
            started = time.perf_counter()
            hits, total = self._text.search(request)
        return Leg(hits=tuple(hits), total=total, took_ms=_since(started))

    def _search_vectors(self, state: rows.State, request: LegsRequest, vector: Vector) -> Leg:
        with vendor_errors(self.folder):
            started = time.perf_counter()
            with self._opening:
                if self._vectors is None or self._vectors.generation != state.generation:
                    self._vectors = VectorIndex(state.generation, state.recipe.dimensions)
                vectors = self._vectors
            with self._database.reading() as connection:
                hits = vectors.search(
                    vector,
                    request.filter,
                    request.k,
                    connection,
                    lambda numbers: rows.chunk_ids(connection, numbers),
                )
        return Leg(hits=tuple(hits), total=len(hits), took_ms=_since(started))


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
