"""MilvusIndex: one generation's vectors in Milvus, level with the database."""

import logging
import sqlite3
from collections.abc import Callable

from server.documents import Vector
from server.stores.filters import Filter
from server.stores.milvus import exact
from server.stores.milvus.connection import Connection, Lost, Refused
from server.stores.milvus.expressions import BeyondMilvus, expression
from server.stores.milvus.follower import Follower, sequence_of
from server.stores.milvus.progress import Progress

_log = logging.getLogger(__name__)

_MARGIN = 64  # hits fetched past k, so that ties at the cut can be ordered
_MOST = 16_384  # Milvus gives no more hits
_ALIKE = 1e-5  # distances are sums of float32 in whatever order
_SEARCH_PATIENCE = 4.0  # for what a search has to take over first; a write's is without end
_TRIES = 3  # of a search beside writes that replace documents


class MilvusIndex:
    """``vectors.VectorIndex``. Rows are a chunk's number, its document version, labels and vector."""

    def __init__(self, connection: Connection, follower: Follower, generation: int, *, lite: bool):
        self._connection = connection
        self._follower = follower
        self._generation = generation
        self._lite = lite

    def search(
        self,
        vector: Vector,
        condition: Filter | None,
        k: int,
        connection: sqlite3.Connection,
        names: Callable[[list[int]], dict[int, str]],  # noqa: ARG002 - they come with the scores
    ) -> list[tuple[str, float]]:
        torn = refused = 0
        while torn < _TRIES:
            at = self._follower.level(connection, _SEARCH_PATIENCE)
            if not at.rows:
                return []
            try:
                found = self._search(at, vector, condition, k, connection)
            except Refused as error:
                self._follower.doubt()
                refused += 1
                if refused > 1 or not (self._lite or isinstance(error, Lost)):
                    raise
                _log.warning("Generation %s: %s", self._generation, error.message)
                self._follower.distrust(at, _SEARCH_PATIENCE)
                continue
            except BeyondMilvus:
                break
            if found is not None:
                return found
            torn += 1
        return exact.search(vector, condition, k, connection, self._generation)

    def follow(self, connection: sqlite3.Connection) -> None:
        self._follower.level(connection, None)

    def close(self) -> None:
        """The connection is the engine's."""

    def _search(
        self,
        at: Progress,
        vector: Vector,
        condition: Filter | None,
        k: int,
        connection: sqlite3.Connection,
    ) -> list[tuple[str, float]] | None:
        """None where documents were replaced meanwhile, so that one may have been seen by neither its
        old chunks nor its new ones. Raises Refused, BeyondMilvus."""
        where = ""
        if condition is not None:
            if at.partial:
                raise BeyondMilvus
            where = expression(condition, connection, array=not self._lite)
        limit = min(k + _MARGIN, _MOST)
        found = self._follower.rows(at.name).search(vector, where, limit)
        while len(found) == limit and found[k - 1][1] - found[-1][1] <= _ALIKE:  # ties at the cut
            if limit == _MOST:
                raise BeyondMilvus
            limit = min(limit * 8, _MOST)
            found = self._follower.rows(at.name).search(vector, where, limit)
        numbers = [chunk for chunk, _ in found]
        seen, _ = sequence_of(connection)
        checked = exact.check(numbers, vector, condition, connection, self._generation)
        hits, refused = checked.hits, checked.refused
        if any(number <= seen for number in checked.unknown):  # deleted there, before, and yet here
            raise Lost(f"{self._connection.place} lost changes that it had taken")
        if checked.unknown:  # written since the connection's state was taken
            connection.execute("ROLLBACK")
            connection.execute("BEGIN")
            later = exact.check(checked.unknown, vector, condition, connection, self._generation)
            hits, refused = hits | later.hits, refused + later.refused
            if any(number > at.level for number in later.unknown):
                return None  # come and gone since
        if self._lite and self._follower.deletions(at.name) != at.deletions:
            return None  # Milvus Lite reads what is there and what was deleted one after the other
        if refused or (len(hits) < k and len(found) == limit):
            # Labels that look alike, a damaged vector, or many that are gone: no hit may be lost.
            raise BeyondMilvus
        return sorted(hits.items(), key=lambda hit: (-hit[1], hit[0]))[:k]
