"""TextFollower: keeps the live generation's text index level with the database, and asks it."""

import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from server.errors import StoreUnavailable
from server.stores.contract import LegsRequest
from server.stores.embedded import rows
from server.stores.embedded.database import Database
from server.stores.embedded.filters import text_query
from server.stores.embedded.locks import WriteLock
from server.stores.embedded.text_index import TextIndex, TextIndexDamaged

_log = logging.getLogger(__name__)


def text_folder(generation: int, number: int) -> str:
    """Where a text index lies within the collection's folder; a rebuilt one has the next number."""
    return f"generations/{generation:06}/text-{number}"


class TextFollower:
    """Thread-safe. The database is written first, so the index can only be behind.

    ``text_sequence`` of the generation's row says how far it is known to be level; doing more again
    changes nothing. ``still_there``: whether the collection's folder is.
    """

    def __init__(
        self, folder: Path, database: Database, lock: WriteLock, still_there: Callable[[], bool]
    ) -> None:
        self._folder = folder
        self._database = database
        self._lock = lock
        self._still_there = still_there
        self._opening = threading.Lock()
        self._open: tuple[str, TextIndex] | None = None

    def search(self, request: LegsRequest) -> tuple[list[tuple[str, float]], int]:
        """((chunk id, score) in order, how many match).

        Reads wait for no writer, but for the mending of an index that is damaged.
        """
        state = self._state()
        if self._open is None or state.text_sequence < state.sequence:
            self._follow_if_free()
            state = self._state()
        try:
            return self._ask(state, request)
        except TextIndexDamaged as damage:
            with self._lock.held():
                self._mend(damage, seen=state.text_folder)
        try:
            return self._ask(self._state(), request)
        except TextIndexDamaged as again:
            raise self._unusable(again) from again

    def follow(self) -> None:
        """Bring the index up to the database. The caller holds the write lock."""
        try:
            self._apply()
        except TextIndexDamaged as damage:
            self._mend(damage)

    def _follow_if_free(self) -> None:
        """The same for what a killed writer left, unless a writer is at it now."""
        with self._lock.tried() as free:
            if free and self._still_there():
                try:
                    self.follow()
                except (StoreUnavailable, OSError) as error:
                    # Search goes on with what the index has; the next one tries again.
                    _log.warning("%s: the text index lags: %s", self._folder, error)

    def _state(self) -> rows.State:
        with self._database.reading() as connection:
            return rows.read_state(connection)

    def _ask(self, state: rows.State, request: LegsRequest) -> tuple[list[tuple[str, float]], int]:
        text = self._index(state)
        with self._database.reading() as connection:
            condition = None
            if request.filter is not None:
                condition = text_query(request.filter, text.schema, connection)
            return text.search(
                request.text or (),
                condition,
                request.k,
                lambda numbers: rows.chunk_ids(connection, numbers),
            )

    def _index(self, state: rows.State) -> TextIndex:
        """The index as of ``state`` or later. Raises TextIndexDamaged."""
        with self._opening:
            if self._open is None or self._open[0] != state.text_folder:
                self._open = (state.text_folder, TextIndex(self._folder / state.text_folder))
            text = self._open[1]
        text.show(state.text_sequence)
        return text

    def _apply(self) -> None:
        with self._database.reading() as connection:
            state = rows.read_state(connection)
            text = self._index(state)
            behind = state.text_sequence < state.sequence
            if behind:
                since = (connection, state.generation, state.text_sequence)
                text.apply(
                    state.text_sequence, rows.removed_since(*since), rows.added_since(*since)
                )
        if behind:
            self._note(state.text_folder, state, durable=False)  # if lost, it is done again
            text.show(state.sequence)
        if text.chunks != state.chunks:
            raise TextIndexDamaged(f"{text.chunks} chunks instead of {state.chunks}")

    def _mend(self, damage: TextIndexDamaged, *, seen: str | None = None) -> None:
        """Make a new index from the database. The caller holds the write lock.

        ``seen``: the folder that was found damaged without the lock; nothing is done when another
        process has mended it since.
        """
        with self._database.reading() as connection:
            state = rows.read_state(connection)
            if seen not in {None, state.text_folder}:
                return
            _log.warning("%s: building the text index anew: %s", self._folder, damage)
            number = int(state.text_folder.rpartition("-")[2])
            new = text_folder(state.generation, number + 1)
            shutil.rmtree(self._folder / new, ignore_errors=True)  # left by one that was killed
            try:
                text = TextIndex.create(self._folder / new)
                text.apply(0, (), rows.added_since(connection, state.generation, 0))
            except TextIndexDamaged as again:
                raise self._unusable(again) from again
        self._note(new, state, durable=True)
        shutil.rmtree(self._folder / state.text_folder, ignore_errors=True)

    def _note(self, folder: str, state: rows.State, *, durable: bool) -> None:
        with self._database.writing(durable=durable) as connection:
            connection.execute(
                "UPDATE generations SET text_folder = ?, text_sequence = ? WHERE id = ?",
                (folder, state.sequence, state.generation),
            )

    def _unusable(self, damage: TextIndexDamaged) -> StoreUnavailable:
        return StoreUnavailable(f"{self._folder}: the text index fails: {damage}")
