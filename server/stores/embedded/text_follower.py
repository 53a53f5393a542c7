"""TextFollower: keeps one generation's text index level with the database, and asks it."""

import contextlib
import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from server.errors import StoreUnavailable
from server.stores.contract import Frequencies, LegsRequest
from server.stores.embedded import rows
from server.stores.embedded.database import Database
from server.stores.embedded.filters import text_query
from server.stores.embedded.locks import WriteLock
from server.stores.embedded.states import State, named, read_state
from server.stores.embedded.text_index import TextIndex, TextIndexDamaged
from server.stores.filters import Filter

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def text_folder(generation: int, number: int) -> str:
    """Where a text index lies within the collection's folder; a rebuilt one has the next number."""
    return f"{generation_folder(generation)}/text-{number}"


def generation_folder(generation: int) -> str:
    return f"generations/{named(generation)}"


class TextFollower:
    """Thread-safe. The database is written first, so the index can only be behind.

    ``text_sequence`` of the generation's row says how far it is known to be level; doing more again
    changes nothing. Every write makes the live generation's level; others are by ``settle``.
    ``still_there``: whether the collection's folder is. Every call raises GenerationNotFound where the
    generation was dropped.
    """

    def __init__(
        self,
        folder: Path,
        generation: int,
        database: Database,
        lock: WriteLock,
        still_there: Callable[[], bool],
    ) -> None:
        self.generation = generation
        self._folder = folder
        self._database = database
        self._lock = lock
        self._still_there = still_there
        self._opening = threading.Lock()
        self._open: tuple[str, TextIndex] | None = None

    def search(self, request: LegsRequest) -> tuple[list[tuple[str, float]], int]:
        """((chunk id, score) in order, how many match)."""
        return self._asked(lambda state: self._search(state, request))

    def frequencies(self, terms: Mapping[str, Sequence[str]]) -> Frequencies:
        return self._asked(lambda state: self._index(state).frequencies(terms))

    def _asked(self, ask: Callable[[State], _T]) -> _T:
        """The answer of an index that is level as far as that can be had.

        Reads wait for no writer, but for the mending of an index that is damaged.
        """
        state = self._current()
        try:
            return ask(state)
        except TextIndexDamaged as damage:
            self._mend_found(damage, state)
        try:
            return ask(self._state())
        except TextIndexDamaged as again:
            raise self._unusable(again) from again

    def follow(self) -> None:
        """Bring the index up to the database. The caller holds the write lock."""
        self._level(contextlib.nullcontext)

    def settle(self) -> None:
        """The same for a generation that is not live, whose own lock the caller holds: it may take
        long, and writers wait for a moment only."""
        self._level(self._lock.held)

    def rebuild(self, reason: str) -> None:
        """Make the index anew. The caller holds the write lock."""
        self._mend(TextIndexDamaged(reason), contextlib.nullcontext)

    def containing(self, terms: tuple[str, ...]) -> Iterator[str]:
        """Ids of chunks whose bigrams, or whose title's, hold every term, by chunk number."""
        state = self._state()
        try:
            text = self._index(state)
        except TextIndexDamaged as damage:
            self._mend_found(damage, state)
            text = self._index(self._state())
        try:
            for numbers in text.containing(terms):
                with self._database.reading() as connection:
                    names = rows.chunk_ids(connection, numbers)
                yield from (names[number] for number in numbers if number in names)
        except TextIndexDamaged as damage:
            raise self._unusable(damage) from damage

    def count_holding(
        self,
        phrases: Sequence[Sequence[str]],
        condition: Filter | None,
    ) -> list[int]:
        """For each phrase, how many chunks that meet the condition hold it."""
        state = self._current()
        try:
            return self._count_holding(state, phrases, condition)
        except TextIndexDamaged as damage:
            self._mend_found(damage, state)
        try:
            return self._count_holding(self._state(), phrases, condition)
        except TextIndexDamaged as again:
            raise self._unusable(again) from again

    def _count_holding(
        self,
        state: State,
        phrases: Sequence[Sequence[str]],
        condition: Filter | None,
    ) -> list[int]:
        text = self._index(state)
        if condition is None:
            return text.count_holding(phrases, None)
        with self._database.reading() as connection:
            return text.count_holding(phrases, text_query(condition, text.schema, connection))

    def numbers(self) -> Iterator[int]:
        """Numbers of all chunks that the index has, ascending. Raises TextIndexDamaged."""
        for numbers in self._index(self._state()).numbers():
            yield from numbers

    def catch_up(self) -> None:
        """As ``follow``, but raises TextIndexDamaged and mends nothing."""
        self._apply(contextlib.nullcontext)

    def _level(self, noting: Callable[[], AbstractContextManager[None]]) -> None:
        try:
            self._apply(noting)
        except TextIndexDamaged as damage:
            self._mend(damage, noting)

    def _current(self) -> State:
        """The state, after bringing up what a killed writer left."""
        state = self._state()
        if self._open is None or state.text_sequence < state.sequence:
            self._follow_if_free()
            state = self._state()
        return state

    def _follow_if_free(self) -> None:
        """The same for what a killed writer left, unless a writer is at it now."""
        with self._lock.tried() as free:
            # One that is not live belongs to whoever settles it.
            if free and self._still_there() and self._state().state == "live":
                try:
                    self.follow()
                except (StoreUnavailable, OSError) as error:
                    # Search goes on with what the index has; the next one tries again.
                    _log.warning("%s: the text index lags: %s", self._folder, error)

    def _state(self) -> State:
        with self._database.reading() as connection:
            return read_state(connection, self.generation)

    def _search(self, state: State, request: LegsRequest) -> tuple[list[tuple[str, float]], int]:
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
                holding=request.holding,
            )

    def _index(self, state: State) -> TextIndex:
        """The index as of ``state`` or later. Raises TextIndexDamaged."""
        with self._opening:
            if self._open is None or self._open[0] != state.text_folder:
                self._open = (state.text_folder, TextIndex(self._folder / state.text_folder))
            text = self._open[1]
        text.show(state.text_sequence)
        return text

    def _apply(self, noting: Callable[[], AbstractContextManager[None]]) -> None:
        with self._database.reading() as connection:
            state = read_state(connection, self.generation)
            text = self._index(state)
            behind = state.text_sequence < state.sequence
            if behind:
                if state.text_sequence < state.pruned:
                    raise TextIndexDamaged("it is older than the record of what was removed")
                since = (connection, state.generation, state.text_sequence)
                text.apply(
                    state.text_sequence, rows.removed_since(*since), rows.added_since(*since)
                )
        if behind:
            with noting():
                self._note(state.text_folder, state, durable=False)  # if lost, it is done again
            text.show(state.sequence)
        if text.chunks != state.chunks:
            raise TextIndexDamaged(f"{text.chunks} chunks instead of {state.chunks}")

    def _mend_found(self, damage: TextIndexDamaged, state: State) -> None:
        """Mend what was found damaged without the lock, unless another process has done it since."""
        with self._lock.held():
            now = self._state()
            if now.state != "live":
                raise self._unusable(damage) from damage
            if now.text_folder == state.text_folder:
                self._mend(damage, contextlib.nullcontext)

    def _mend(
        self, damage: TextIndexDamaged, noting: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Make a new index from the database. The caller holds the write lock or the generation's."""
        with self._database.reading() as connection:
            state = read_state(connection, self.generation)
            _log.warning("%s: building the text index anew: %s", self._folder, damage)
            number = int(state.text_folder.rpartition("-")[2])
            new = text_folder(state.generation, number + 1)
            shutil.rmtree(self._folder / new, ignore_errors=True)  # left by one that was killed
            try:
                text = TextIndex.create(self._folder / new)
                text.apply(0, (), rows.added_since(connection, state.generation, 0))
            except TextIndexDamaged as again:
                raise self._unusable(again) from again
        with noting():
            self._note(new, state, durable=True)
            self._count()  # what showed as damage may have been the count
        shutil.rmtree(self._folder / state.text_folder, ignore_errors=True)

    def _note(self, folder: str, state: State, *, durable: bool) -> None:
        with self._database.writing(durable=durable) as connection:
            connection.execute(
                "UPDATE generations SET text_folder = ?, text_sequence = ? WHERE id = ?",
                (folder, state.sequence, state.generation),
            )

    def _count(self) -> None:
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE generations SET chunks = (SELECT count(*) FROM chunks "
                "WHERE generation = :generation) WHERE id = :generation",
                {"generation": self.generation},
            )

    def _unusable(self, damage: TextIndexDamaged) -> StoreUnavailable:
        return StoreUnavailable(f"{self._folder}: the text index fails: {damage}")
