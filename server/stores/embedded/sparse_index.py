"""Sparse weights of one generation, in memory, derived from the database: exact products by token."""

import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.sparse import SparseWeights, unpack_many
from server.stores.embedded.filters import Mask
from server.stores.embedded.members import Members
from server.stores.filters import Filter

_WEIGHTS = "CAST(weights AS BLOB)"
_MOST = 40_000  # hits whose order by chunk id is told apart


@dataclass(frozen=True, slots=True)
class _Postings:
    """Where tokens stand, with their weights there: arrays (n,) sorted by token, then place."""

    tokens: NDArray[np.int32]
    places: NDArray[np.int32]
    weights: NDArray[np.float32]

    @classmethod
    def sorted(
        cls,
        tokens: NDArray[np.int32],
        places: NDArray[np.int32],
        weights: NDArray[np.float32],
    ) -> "_Postings":
        order = np.argsort(tokens, kind="stable")
        return cls(tokens[order], places[order], weights[order])

    def joined(self, others: "_Postings") -> "_Postings":
        return _Postings.sorted(
            np.concatenate((self.tokens, others.tokens)),
            np.concatenate((self.places, others.places)),
            np.concatenate((self.weights, others.weights)),
        )

    def kept(self, places: Mask) -> "_Postings":
        """Those of the places that stay, which move together."""
        stays = places[self.places]
        moved = (np.cumsum(places, dtype=np.int32) - 1).astype(np.int32)
        return _Postings(self.tokens[stays], moved[self.places[stays]], self.weights[stays])

    def add_scores(self, query: SparseWeights, scores: NDArray[np.float64]) -> None:
        starts = np.searchsorted(self.tokens, query.ids, "left")
        ends = np.searchsorted(self.tokens, query.ids, "right")
        for start, end, weight in zip(starts, ends, query.weights.tolist(), strict=True):
            # A place stands once under a token, so that no addition is lost.
            scores[self.places[start:end]] += weight * self.weights[start:end]


class SparseIndex:
    """Thread-safe. What a search reads is never changed, so searches and changes don't wait for each
    other but for the look at what is new.

    What comes is sorted by itself and joined to what came before it as soon as that is no longer twice as
    much: a chunk is sorted again as often as the collection doubles.
    """

    def __init__(self, generation: int) -> None:
        self._turn = threading.Lock()  # to look at or change anything below
        self._members = Members(generation)
        self._clear()

    def _clear(self) -> None:
        self._parts: tuple[_Postings, ...] = ()  # the largest first
        self._size = 0  # places
        self._members.clear()

    def search(
        self,
        query: SparseWeights,
        condition: Filter | None,
        k: int,
        connection: sqlite3.Connection,
        names: Callable[[list[int]], dict[int, str]],
    ) -> list[tuple[str, float]]:
        """(chunk id, score) by falling score and then chunk id, over what ``connection`` sees."""
        with self._turn:
            connection.execute("ROLLBACK")  # a state that is not older than what others loaded
            connection.execute("BEGIN")
            self._follow(connection)
            parts, chunks = self._parts, self._members.chunks
            allowed = self._members.allowed(condition, connection)
        sums = np.zeros(len(chunks), dtype=np.float64)
        for part in parts:
            part.add_scores(query, sums)
        scores = sums.astype(np.float32)  # as Lucene rounds them, so that ties are the same
        found = np.flatnonzero(allowed & (scores > 0))
        if len(found) > k:
            last = np.partition(scores[found], len(found) - k)[len(found) - k]
            found = found[scores[found] >= last]
            found = found[np.argsort(-scores[found], kind="stable")][:_MOST]
        named = names(chunks[found].tolist())
        ranked = [
            (named[chunk], score)
            for chunk, score in zip(chunks[found].tolist(), scores[found].tolist(), strict=True)
            if chunk in named
        ]
        ranked.sort(key=lambda hit: (-hit[1], hit[0]))
        return ranked[:k]

    def _follow(self, connection: sqlite3.Connection) -> None:
        """Take over what the database changed since."""
        lag = self._members.lag(connection)
        if lag is False:
            return
        try:
            if lag is None:
                self._clear()
            self._members.follow(connection, self._add, _WEIGHTS, table="sparse")
            if self._members.crowded:
                kept = self._members.live
                self._parts = tuple(part.kept(kept) for part in self._parts)
                self._members.compact()
                self._size = len(self._members.chunks)
        except BaseException:
            self._clear()  # half a change must not be searched
            raise

    def _add(self, packed: Sequence[bytes]) -> Mask:
        counts, tokens, weights, sound = unpack_many(packed)
        places = np.arange(self._size, self._size + len(packed), dtype=np.int32)
        self._size += len(packed)
        new = _Postings.sorted(tokens, np.repeat(places, counts), weights)
        self._parts = _joined((*self._parts, new))
        return sound


def _joined(parts: tuple[_Postings, ...]) -> tuple[_Postings, ...]:
    while len(parts) > 1 and len(parts[-2].tokens) < 2 * len(parts[-1].tokens):
        parts = (*parts[:-2], parts[-2].joined(parts[-1]))
    return parts
