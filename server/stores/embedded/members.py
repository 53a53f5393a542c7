"""Members: which chunks of a generation have a vector, or sparse weights, and which of them a filter lets
through."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.stores.embedded.filters import LabelCondition, Mask, mask, versions_with
from server.stores.filters import Filter

# What ``follow`` takes of a new vector: the vector itself, or its size in bytes (None: no bytes).
VECTOR = "CAST(vector AS BLOB)"
SIZE = "CASE typeof(vector) WHEN 'blob' THEN length(vector) END"

_BATCH = 10_000
_NO_VERSION = 2**62  # above every number
_LEAVES = 256  # cached masks
_DEAD_SHARE = 0.2  # removed chunks that are carried along before they are thrown out


class Members:
    """In memory, by place; follows the database. Not thread-safe.

    A removed chunk keeps its place, masked out, until such are a fifth of all. A leaf of a filter is a
    mask over places: a document version's labels never change, so a cached mask only has to be carried
    on over the versions that came since.

    ``chunks`` are the numbers by place, ascending; ``live`` says which are there and sound;
    ``sequence`` is how far they follow.
    """

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.clear()

    def clear(self) -> None:
        self.chunks: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.live: Mask = np.empty(0, dtype=np.bool_)
        self.sequence = 0
        self._versions: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._leaves: dict[LabelCondition, Mask] = {}

    def lag(self, connection: sqlite3.Connection) -> bool | None:
        """Whether something is missing; None where so much is that only ``clear`` helps."""
        sequence, pruned = connection.execute("SELECT sequence, pruned FROM state").fetchone()
        if sequence == self.sequence:
            return False
        return None if self.sequence < pruned else True

    def follow(
        self,
        connection: sqlite3.Connection,
        take: Callable[[Sequence[Any]], Mask],
        what: str = VECTOR,
        table: str = "vectors",
    ) -> None:
        """Take over what the database changed since.

        ``take``: what new chunks have in ``table``, in batches by place → which of them are sound. Where
        it raises, ``clear`` is the caller's to call.
        """
        [sequence] = connection.execute("SELECT sequence FROM state").fetchone()
        rows = connection.execute(
            "SELECT chunk FROM removals WHERE sequence > ? AND generation = ?",
            (self.sequence, self.generation),
        )
        gone = np.fromiter((chunk for (chunk,) in rows), dtype=np.int64)
        chunks, versions = [self.chunks], [self._versions]
        live = [self.live & ~np.isin(self.chunks, gone)]
        cursor = connection.execute(
            f"SELECT chunk, version, {what} FROM {table} "  # noqa: S608
            "WHERE chunk > ? AND generation = ? ORDER BY chunk",
            (self.sequence, self.generation),
        )
        while rows_ := cursor.fetchmany(_BATCH):
            chunks.append(np.array([row[0] for row in rows_], dtype=np.int64))
            versions.append(np.array([row[1] for row in rows_], dtype=np.int64))
            live.append(take([row[2] for row in rows_]))
        self.chunks, self._versions = np.concatenate(chunks), np.concatenate(versions)
        self.live = np.concatenate(live)
        self.sequence = int(sequence)

    def allowed(self, condition: Filter | None, connection: sqlite3.Connection) -> Mask:
        """By place, what is live and meets the condition. Not to be changed."""
        if condition is None:
            return self.live
        found = mask(condition, lambda leaf: self._leaf(leaf, connection), len(self.live))
        return self.live & found

    @property
    def crowded(self) -> bool:
        """Whether so much is dead that ``compact`` is worth its while."""
        return bool(np.count_nonzero(self.live) < (1 - _DEAD_SHARE) * len(self.live) - 1_000)

    def compact(self) -> None:
        """Give new places to what is live, in the same order."""
        self.chunks, self._versions = self.chunks[self.live], self._versions[self.live]
        self._leaves = {
            leaf: known[self.live[: len(known)]] for leaf, known in self._leaves.items()
        }
        self.live = np.ones(len(self.chunks), dtype=np.bool_)

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
