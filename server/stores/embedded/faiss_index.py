"""FAISS: exact cosines over one generation's vectors, in memory, derived from the database."""

import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.documents import Vector
from server.stores.embedded.filters import Mask
from server.stores.embedded.members import Members
from server.stores.filters import Filter

_MARGIN = 64  # hits fetched past k, so that ties at the cut can be ordered
_MOST = 40_000


class FaissEngine:
    """``vectors.VectorEngine``; everything lies in the process's memory."""

    kind = "embedded"
    follows_writes = False

    def index(self, folder: Path, generation: int, dimensions: int) -> "FaissIndex":  # noqa: ARG002
        return FaissIndex(generation, dimensions)

    def keep(self, folder: Path, generations: Collection[int]) -> None:
        """Nothing is kept."""

    def keep_collections(self, folders: Collection[Path]) -> None:
        """Nothing is kept."""

    def describe(self) -> str:
        return f"FAISS {version('faiss-cpu')}"

    def close(self) -> None:
        """Memory goes with the indexes."""


class FaissIndex:
    """``vectors.VectorIndex``. Thread-safe: many searches at once; a change waits for them and they for it.

    FAISS holds the vectors by the places of ``Members``.
    """

    def __init__(self, generation: int, dimensions: int) -> None:
        import faiss  # noqa: PLC0415 - loaded with the store only

        self._faiss: Any = faiss
        self._dimensions = dimensions
        self._turn = threading.Lock()  # to look at or change anything below
        self._drained = threading.Condition()
        self._searching = 0
        self._members = Members(generation)
        self._clear()

    def _clear(self) -> None:
        self._index: Any = self._faiss.IndexFlatIP(self._dimensions)
        self._members.clear()

    def search(
        self,
        vector: Vector,
        condition: Filter | None,
        k: int,
        connection: sqlite3.Connection,
        names: Callable[[list[int]], dict[int, str]],
    ) -> list[tuple[str, float]]:
        """(chunk id, cosine) by falling cosine and then chunk id, over what ``connection`` sees."""
        with self._prepared(connection, condition) as (index, chunks, allowed):
            most = int(np.count_nonzero(allowed))
            limit = min(k + _MARGIN, most)
            if not limit:
                return []
            bits = np.packbits(allowed, bitorder="little")
            selector = self._faiss.IDSelectorBitmap(bits)
            parameters = self._faiss.SearchParameters(sel=selector)
            while True:
                [scores], [places] = index.search(vector[np.newaxis], limit, params=parameters)
                if limit <= k or scores[k - 1] > scores[-1] or limit >= min(most, _MOST):
                    break
                limit = min(limit * 8, most, _MOST)  # more of the hits that tie at the cut
            found = chunks[places].tolist()
        named = names(found)
        ranked = [
            (named[chunk], score)
            for chunk, score in zip(found, scores.tolist(), strict=True)
            if chunk in named
        ]
        ranked.sort(key=lambda hit: (-hit[1], hit[0]))
        return ranked[:k]

    def follow(self, connection: sqlite3.Connection) -> None:
        """Bring the index up to what the connection sees, or to what it has beyond that."""
        with self._turn:
            self._follow(connection)

    def close(self) -> None:
        """Memory goes with the last search under way."""

    @contextmanager
    def _prepared(
        self, connection: sqlite3.Connection, condition: Filter | None
    ) -> Iterator[tuple[Any, NDArray[np.int64], Mask]]:
        """Index, chunk numbers and allowed places, unchanged while the caller searches."""
        with self._turn:
            connection.execute("ROLLBACK")  # a state that is not older than what others loaded
            connection.execute("BEGIN")
            self._follow(connection)
            allowed = self._members.allowed(condition, connection)
            with self._drained:
                self._searching += 1
            prepared = (self._index, self._members.chunks, allowed)
        try:
            yield prepared
        finally:
            with self._drained:
                self._searching -= 1
                self._drained.notify_all()

    def _follow(self, connection: sqlite3.Connection) -> None:
        """Take over what the database changed since."""
        lag = self._members.lag(connection)
        if lag is False:
            return
        with self._drained:
            self._drained.wait_for(lambda: not self._searching)
        try:
            if lag is None:
                self._clear()
            self._members.follow(connection, self._add)
            if self._members.crowded:
                self._compact()
        except BaseException:
            self._clear()  # half a change must not be searched
            raise

    def _add(self, stored: Sequence[bytes]) -> Mask:
        vectors, sound = self._block(stored)
        self._index.add(vectors)
        return sound

    def _block(self, stored: Sequence[bytes]) -> tuple[NDArray[np.float32], Mask]:
        """Vectors as a matrix, and which are sound: one that was damaged is left out of searches."""
        size = 4 * self._dimensions
        sized = np.array([len(vector) == size for vector in stored])
        whole = b"".join(vector if len(vector) == size else bytes(size) for vector in stored)
        vectors = np.frombuffer(whole, "<f4").reshape(len(stored), self._dimensions)
        finite = np.isfinite(vectors).all(axis=1)
        return np.where(finite[:, np.newaxis], vectors, np.float32(0)), sized & finite

    def _compact(self) -> None:
        index = self._faiss.IndexFlatIP(self._dimensions)
        vectors = self._index.reconstruct_n(0, self._index.ntotal)
        index.add(vectors[self._members.live])
        self._index = index
        self._members.compact()
