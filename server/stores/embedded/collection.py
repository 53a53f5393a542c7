"""One collection's folder: the database, and the two indexes that follow it."""

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from server.documents import Passage, StoredDocument
from server.errors import (
    CollectionNotFound,
    DocumentNotFound,
    Fenced,
    GenerationChanged,
    GenerationNotFound,
    StoreFull,
    TanyuanError,
)
from server.recipes import Recipe
from server.stores.checks import check_writes
from server.stores.contract import (
    Collection,
    Deleted,
    DocumentState,
    OwnedChunk,
    Write,
    Written,
)
from server.stores.embedded import rows
from server.stores.embedded.changes import Change
from server.stores.embedded.database import Database, vendor_errors
from server.stores.embedded.locks import WriteLock
from server.stores.embedded.searches import Searches
from server.stores.embedded.states import State, named, numbered, read_state
from server.stores.embedded.text_follower import generation_folder, text_folder
from server.stores.embedded.text_index import TextIndex
from server.stores.embedded.vectors import VectorEngine
from server.stores.generations import Generation

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

    def __init__(self, folder: Path, *, lock_timeout: float, engine: VectorEngine) -> None:
        self.folder = folder
        self.name = folder.name.partition(".")[0]
        self.lock = WriteLock(folder, timeout=lock_timeout)
        self.database = Database(folder / "collection.db")
        self.engine = engine
        self.searches = Searches(
            folder, self.name, self.database, self.lock, lambda: not self.gone, engine
        )
        self._lock_timeout = lock_timeout

    @staticmethod
    def create(folder: Path, *, recipe: Recipe, description: str, notes: Mapping[str, str]) -> None:
        """Make the folder of an empty collection with its first generation. ``notes``: as JSON."""
        folder.mkdir()
        database = Database.create(folder / "collection.db")
        with contextlib.closing(database), database.writing() as connection:
            connection.execute(
                "INSERT INTO state (only, description, generation, sequence, pruned, documents, "
                "next_generation, fence) VALUES (1, ?, 1, 0, 0, 0, 2, '')",
                (description,),
            )
            insert_generation(connection, folder, 1, recipe=recipe, state="live", sequence=0)
            connection.executemany("INSERT INTO notes VALUES (?, 1, ?)", list(notes.items()))
        sync_folder(folder)

    def close(self) -> None:
        self.searches.close()
        self.database.close()

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

    @contextlib.contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction under the write lock, of changes that no index follows."""
        with self.writing(), self.database.writing() as connection:
            yield connection

    def describe(self, description: str) -> None:
        with self.changing() as connection:
            connection.execute("UPDATE state SET description = ?", (description,))

    def described(self) -> Collection:
        state = self.state()
        return Collection(
            name=self.name,
            description=state.description,
            recipe=state.recipe,
            generation=named(state.generation),
            documents=state.documents,
            chunks=state.chunks,
        )

    def live(self) -> Generation:
        return self.state().as_generation()

    def state(self, generation: int | None = None) -> State:
        """Of a generation, or of the live one. Raises GenerationNotFound."""
        with self.database.reading() as connection:
            return read_state(connection, generation)

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

    def owned_chunks(self) -> Iterator[OwnedChunk]:
        """Every chunk of the live generation by document; batches as of ``documents``."""
        last = ""
        while batch := self._read(
            lambda c, generation, after=last: rows.owned_chunks_after(  # type: ignore[misc]
                c, generation, after, max_chars=_SCAN_CHARS // 4
            )
        ):
            yield from batch
            last = batch[-1].chunk.document_id

    def mark(self) -> str:
        """Another one after each change, and in another collection of this name."""
        state = self.state()
        return f"{self.folder.name} {state.as_generation().key} {state.sequence}"

    def passages(
        self, chunk_ids: Sequence[str], generation: str | None, *, windows: bool
    ) -> dict[str, Passage]:
        if generation is None:
            return self._read(lambda c, live: rows.passages(c, live, chunk_ids, windows=windows))
        try:
            with self.database.reading() as connection:
                number = read_state(connection, numbered(generation)).generation
                return rows.passages(connection, number, chunk_ids, windows=windows)
        except GenerationNotFound as error:
            raise GenerationChanged(f"{error.message} Search again.") from error

    def write(self, writes: Sequence[Write], key: str | None) -> list[Written | TanyuanError]:
        with self.writing():
            try:
                with vendor_errors(self.folder):
                    self.require_room(writes)
                    with self.database.writing() as connection:
                        state = read_state(connection)
                        changed = _changed(state, key)
                        if changed is not None:
                            return [changed] * len(writes)
                        check_writes(writes, state.recipe)
                        change = Change(connection, state)
                        results: list[Written | TanyuanError] = [
                            change.put(write) for write in writes
                        ]
                        change.finish()
                self.follow()
            except StoreFull as error:
                return [error] * len(writes)
        return results

    def delete(self, document_id: str, if_revision: int | None) -> Deleted:
        """Raises Fenced, DocumentNotFound, RevisionConflict."""
        with self.writing():
            with vendor_errors(self.folder), self.database.writing() as connection:
                state = read_state(connection)
                if state.fence:
                    raise Fenced("A generation is about to become live; try again.")
                change = Change(connection, state)
                deleted = change.delete(document_id, if_revision)
                change.finish()
            self.follow()
        return deleted

    def lift(self, fence: str) -> bool:
        """Take away a fence; False if that one does not stand."""
        with self.changing() as connection:
            lifted = connection.execute(
                "UPDATE state SET fence = '' WHERE fence = ? AND fence != ''", (fence,)
            )
            return lifted.rowcount > 0

    def refresh(self) -> None:
        """Bring the text index up to every acknowledged write."""
        state = self.state()
        if state.text_sequence < state.sequence:
            with self.writing(), vendor_errors(self.folder):
                self.searches.follow(self.state().generation)

    def follow(self) -> None:
        """Bring the live indexes up to a change that is stored by now. Needs the write lock."""
        try:
            with vendor_errors(self.folder):
                self.searches.follow(self.state().generation)
        except StoreFull as error:
            raise StoreFull(
                f"The change is stored, but search can't see it yet. {error.message}"
            ) from error

    def require_room(self, writes: Sequence[Write]) -> None:
        """Refuse before the disk is full: what is acknowledged must also reach the text index."""
        chars = sum(len(write.document.text) for write in writes)
        chunks = [chunk for write in writes for chunk in write.chunks]
        windows = sum(chunk.windows.size for chunk in chunks if chunk.windows is not None)
        tokens = sum(len(chunk.sparse.ids) for chunk in chunks if chunk.sparse is not None)
        needed = _RESERVE + 12 * chars + 8_192 * len(chunks) + 2 * windows + 12 * tokens
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise StoreFull(
                f"The disk of {self.folder} has {free >> 20} MB left and this write may need "
                f"{needed >> 20} MB. Free space and try again."
            )

    @contextlib.contextmanager
    def settling(self, generation: int) -> Iterator[None]:
        """The lock on the text index of a generation that is not live; taken before the write lock."""
        folder = self.folder / generation_folder(generation)
        self.state(generation)
        folder.mkdir(parents=True, exist_ok=True)  # a restored collection lacks it
        with WriteLock(folder, timeout=self._lock_timeout).held():
            try:
                self.state(generation)
            except GenerationNotFound:  # gone since, and its folder has just been made again
                shutil.rmtree(folder, ignore_errors=True)
                raise
            yield

    def _read(self, query: Callable[[sqlite3.Connection, int], _T]) -> _T:
        """A query of the live generation."""
        with self.database.reading() as connection:
            [generation] = connection.execute("SELECT generation FROM state").fetchone()
            return query(connection, generation)


def insert_generation(
    connection: sqlite3.Connection,
    folder: Path,
    generation: int,
    *,
    recipe: Recipe,
    state: str,
    sequence: int,
) -> None:
    """Make an empty generation that is level with ``sequence``."""
    text = text_folder(generation, 1)
    TextIndex.create(folder / text)
    connection.execute(
        "INSERT INTO generations (id, recipe, text_folder, text_sequence, chunks, edition, state, "
        "created_at) VALUES (?, ?, ?, ?, 0, 1, ?, ?)",
        (
            generation,
            json.dumps(recipe.as_json()),
            text,
            sequence,
            state,
            datetime.now(UTC).isoformat(timespec="milliseconds"),
        ),
    )


def _changed(state: State, key: str | None) -> GenerationChanged | None:
    """Why chunks made for ``key`` can't be taken now."""
    live = state.as_generation()
    if live.fence:
        return GenerationChanged("A generation is about to become live; write again after it.")
    if key not in {None, live.key}:
        return GenerationChanged(
            f"Generation {live.key} is live by now, not {key}: derive the chunks by its recipe."
        )
    return None
