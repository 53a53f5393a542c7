"""Searches: the two indexes of one collection that follow its database, and what they are asked."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from server.documents import Vector, document_id_of
from server.errors import (
    CollectionNotFound,
    GenerationChanged,
    GenerationNotFound,
    StoreUnavailable,
    TanyuanError,
)
from server.sparse import SparseWeights
from server.stores.checks import check_holding, check_request, check_terms, no_sparse, no_vectors
from server.stores.contract import Frequencies, Leg, Legs, LegsRequest
from server.stores.embedded import rows
from server.stores.embedded.database import Database, vendor_errors
from server.stores.embedded.locks import WriteLock
from server.stores.embedded.sparse_index import SparseIndex
from server.stores.embedded.states import State, named, numbered, read_state
from server.stores.embedded.text_follower import TextFollower
from server.stores.embedded.vectors import VectorEngine, VectorIndex
from server.stores.filters import Filter

_log = logging.getLogger(__name__)

_IDLE_SECONDS = 30.0


class Searches:
    """Thread-safe."""

    def __init__(
        self,
        folder: Path,
        name: str,
        database: Database,
        lock: WriteLock,
        still_there: Callable[[], bool],
        engine: VectorEngine,
    ) -> None:
        self._folder = folder
        self._name = name
        self._database = database
        self._lock = lock
        self._still_there = still_there
        self._engine = engine
        self._opening = threading.Lock()
        self._texts: dict[int, TextFollower] = {}
        self._vectors: dict[int, VectorIndex] = {}
        self._sparse: dict[int, SparseIndex] = {}
        self._used: dict[int, float] = {}  # generation → when

    def text(self, generation: int) -> TextFollower:
        with self._opening:
            self._note_use(generation)
            if generation not in self._texts:
                self._texts[generation] = TextFollower(
                    self._folder, generation, self._database, self._lock, self._still_there
                )
            return self._texts[generation]

    def follow(self, generation: int) -> None:
        """Bring the indexes up to what is stored by now, under the lock of the generation's text index.

        A vector index that fails is brought up by a search; the write that was done stays done.
        """
        self.text(generation).follow()
        self.follow_vectors(generation)

    def follow_vectors(self, generation: int) -> None:
        if not self._engine.follows_writes:
            return
        try:
            with vendor_errors(self._folder), self._database.reading() as connection:
                state = read_state(connection, generation)
                if state.recipe.dimensions:
                    self._vector_index(state).follow(connection)
        except StoreUnavailable as error:
            _log.warning("%s: the vector index lags: %s", self._folder, error.message)

    def close(self) -> None:
        with self._opening:
            for generation in [*self._used]:
                self._close(generation)

    def forget(self, generation: int) -> None:
        """Let go of the indexes of a generation that was dropped."""
        with self._opening:
            self._close(generation)

    def _vector_index(self, state: State) -> VectorIndex:
        with self._opening:
            self._note_use(state.generation)
            if state.generation not in self._vectors:
                self._vectors[state.generation] = self._engine.index(
                    self._folder, state.generation, state.recipe.dimensions
                )
            return self._vectors[state.generation]

    def _sparse_index(self, generation: int) -> SparseIndex:
        with self._opening:
            self._note_use(generation)
            if generation not in self._sparse:
                self._sparse[generation] = SparseIndex(generation)
            return self._sparse[generation]

    def _note_use(self, generation: int) -> None:
        """Indexes of another generation stay open for a while after a promotion, for searches under
        way; for ever, they would keep memory, and the room on the disk of files that were removed."""
        now = time.monotonic()
        self._used[generation] = now
        for idle in [each for each, at in self._used.items() if now - at > _IDLE_SECONDS]:
            self._close(idle)

    def _close(self, generation: int) -> None:
        self._texts.pop(generation, None)
        self._sparse.pop(generation, None)
        vectors = self._vectors.pop(generation, None)
        if vectors is not None:
            vectors.close()
        self._used.pop(generation, None)

    def search(self, request: LegsRequest) -> Legs:
        """The legs of one generation, though another may become live meanwhile."""
        while True:
            state = self._state()
            if request.generation not in {None, named(state.generation)}:
                raise GenerationChanged(
                    f"Generation {named(state.generation)} is live in collection {self._name} by "
                    f"now, not {request.generation}: make terms and vector by its recipe."
                )
            check_request(request, state.recipe.dimensions)
            # What was dropped in the middle of a search may have been found in part only.
            with contextlib.suppress(GenerationNotFound):
                legs = self._legs(state, request)
                self._state(state.generation)
                return legs

    def frequencies(
        self, terms: Mapping[str, Sequence[str]], generation: str | None
    ) -> Frequencies:
        """Raises InvalidInput, GenerationChanged."""
        check_terms(terms)
        try:
            state = self._state(None if generation is None else numbered(generation))
            return self.text(state.generation).frequencies(terms)
        except GenerationNotFound as error:
            raise GenerationChanged(f"{error.message} Search again.") from error

    def containing(self, terms: tuple[str, ...]) -> Iterator[str]:
        """Ids of documents of which the live generation has a chunk that holds every term."""
        last = None
        text = self.text(self._state().generation)
        for chunk_id in text.containing(terms):
            document_id = document_id_of(chunk_id)
            if document_id != last:  # a document's chunks have numbers in a row
                yield document_id
            last = document_id

    def holding(self, phrases: Sequence[Sequence[str]], condition: Filter | None) -> list[int]:
        """For each phrase, how many chunks of the live generation that meet the condition hold it."""
        check_holding(phrases, condition)
        while True:
            state = self._state()
            # What was dropped in the middle may have been counted in part only.
            with contextlib.suppress(GenerationNotFound):
                text = self.text(state.generation)
                counts = text.count_holding(phrases, condition)
                self._state(state.generation)
                return counts

    def _state(self, generation: int | None = None) -> State:
        with self._database.reading() as connection:
            return read_state(connection, generation)

    def _legs(self, state: State, request: LegsRequest) -> Legs:
        errors: dict[str, TanyuanError] = {}
        bm25 = vector = sparse = None
        if request.text is not None:
            try:
                bm25 = self._search_text(state, request)
            except StoreUnavailable as error:
                errors["bm25"] = error
        if request.vector is not None:
            if not state.recipe.dimensions:
                errors["vector"] = no_vectors(self._name)
            else:
                try:
                    vector = self._search_vectors(state, request, request.vector)
                except StoreUnavailable as error:
                    errors["vector"] = error
        if request.sparse is not None:
            if not state.recipe.sparse:
                errors["sparse"] = no_sparse(self._name)
            else:
                try:
                    sparse = self._search_sparse(state, request, request.sparse)
                except StoreUnavailable as error:
                    errors["sparse"] = error
        if errors and not self._still_there():
            raise CollectionNotFound(f"There is no collection {self._name}.")
        return Legs(
            generation=named(state.generation),
            bm25=bm25,
            vector=vector,
            sparse=sparse,
            errors=errors,
        )

    def _search_text(self, state: State, request: LegsRequest) -> Leg:
        with vendor_errors(self._folder):
            started = time.perf_counter()
            hits, total = self.text(state.generation).search(request)
        return Leg(hits=tuple(hits), total=total, took_ms=_since(started))

    def _search_vectors(self, state: State, request: LegsRequest, vector: Vector) -> Leg:
        with vendor_errors(self._folder):
            started = time.perf_counter()
            vectors = self._vector_index(state)
            with self._database.reading() as connection:
                hits = vectors.search(
                    vector,
                    request.filter,
                    request.k,
                    connection,
                    lambda numbers: rows.chunk_ids(connection, numbers),
                )
        return Leg(hits=tuple(hits), total=len(hits), took_ms=_since(started))

    def _search_sparse(self, state: State, request: LegsRequest, weights: SparseWeights) -> Leg:
        with vendor_errors(self._folder):
            started = time.perf_counter()
            index = self._sparse_index(state.generation)
            with self._database.reading() as connection:
                hits = index.search(
                    weights,
                    request.filter,
                    request.k,
                    connection,
                    lambda numbers: rows.chunk_ids(connection, numbers),
                )
        return Leg(hits=tuple(hits), total=len(hits), took_ms=_since(started))


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
