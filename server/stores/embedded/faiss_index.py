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
from server.stores.embedded.filters import LabelCondition, Mask, mask, versions_with
from server.stores.filters import Filter

_BATCH = 10_000
_MARGIN = 64  # hits fetched past k, so that ties at the cut can be ordered
_MOST = 40_000
_NO_VERSION = 2**62  # above every number
_LEAVES = 256  # cached masks
_DEAD_SHARE = 0.2  # removed vectors that are carried along before they are thrown out


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

    FAISS holds the vectors by place. Removed ones keep their place, masked out, until they are a
    fifth of all. A leaf of a filter is a mask over places: a document version's labels never change,
    so a cached mask only has to be carried on over the versions that came since.
    """

    def __init__(self, generation: int, dimensions: int) -> None:
        import faiss  # noqa: PLC0415 - loaded with the store only

        self._faiss: Any = faiss
        self.generation = generation
        self._dimensions = dimensions
        self._turn = threading.Lock()  # to look at or change anything below
        self._drained = threading.Condition()
        self._searching = 0
        self._clear()

    def _clear(self) -> None:
        self._index: Any = self._faiss.IndexFlatIP(self._dimensions)
        self._chunks: NDArray[np.int64] = np.empty(0, dtype=np.int64)  # ascending
        self._versions: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._live: Mask = np.empty(0, dtype=np.bool_)
        self._leaves: dict[LabelCondition, Mask] = {}
        self._sequence = 0

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
            allowed = self._live
            if condition is not None:
                size = len(self._live)
                allowed = allowed & mask(condition, lambda leaf: self._leaf(leaf, connection), size)
            with self._drained:
                self._searching += 1
            prepared = (self._index, self._chunks, allowed)
        try:
            yield prepared
        finally:
            with self._drained:
                self._searching -= 1
                self._drained.notify_all()

    def _leaf(self, leaf: LabelCondition, connection: sqlite3.Connection) -> Mask:
        known = self._leaves.pop(leaf, None)
        done = 0 if known is None else len(known)
        if known is None or done < len(self._versions):
            # Chunks may come of versions that are older than those before them: derived again.
            lowest = int(self._versions[done:].min(initial=_NO_VERSION))
            versions = versions_with(leaf, lowest - 1, connection)
            new = np.isin(self._versions[done:], versions)
            known = new if known is None else np.concatenate((known, new))
        self._leaves[leaf] = known  # the youngest last
        if len(self._leaves) > _LEAVES:
            del self._leaves[next(iter(self._leaves))]
        return known

    def _follow(self, connection: sqlite3.Connection) -> None:
        """Take over what the database changed since."""
        sequence, pruned = connection.execute("SELECT sequence, pruned FROM state").fetchone()
        if sequence == self._sequence:
            return
        with self._drained:
            self._drained.wait_for(lambda: not self._searching)
        try:
            if self._sequence < pruned:
                self._clear()
            self._remove(connection)
            self._add(connection)
            if np.count_nonzero(self._live) < (1 - _DEAD_SHARE) * len(self._live) - 1_000:
                self._compact()
            self._sequence = sequence
        except BaseException:
            self._clear()  # half a change must not be searched
            raise

    def _remove(self, connection: sqlite3.Connection) -> None:
        rows = connection.execute(
            "SELECT chunk FROM removals WHERE sequence > ? AND generation = ?",
            (self._sequence, self.generation),
        )
        gone = np.fromiter((chunk for (chunk,) in rows), dtype=np.int64)
        self._live = self._live & ~np.isin(self._chunks, gone)

    def _add(self, connection: sqlite3.Connection) -> None:
        cursor = connection.execute(
            "SELECT chunk, version, CAST(vector AS BLOB) FROM vectors "
            "WHERE chunk > ? AND generation = ? ORDER BY chunk",
            (self._sequence, self.generation),
        )
        chunks, versions, live = [self._chunks], [self._versions], [self._live]
        while rows := cursor.fetchmany(_BATCH):
            chunks.append(np.array([row[0] for row in rows], dtype=np.int64))
            versions.append(np.array([row[1] for row in rows], dtype=np.int64))
            vectors, sound = self._block([row[2] for row in rows])
            live.append(sound)
            self._index.add(vectors)
        self._chunks, self._versions = np.concatenate(chunks), np.concatenate(versions)
        self._live = np.concatenate(live)

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
        index.add(vectors[self._live])
        self._index = index
        self._chunks, self._versions = self._chunks[self._live], self._versions[self._live]
        self._leaves = {
            leaf: known[self._live[: len(known)]] for leaf, known in self._leaves.items()
        }
        self._live = np.ones(len(self._chunks), dtype=np.bool_)
