"""ChromaIndex: candidates from ChromaDB, exact cosines from the database."""

import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.documents import Vector
from server.stores.chroma.copies import CopyUnusable, Numbers
from server.stores.chroma.worker import CopyBusy, RemoteCopy, Worker
from server.stores.embedded.filters import Mask
from server.stores.embedded.members import SIZE, Members
from server.stores.embedded.scoring import ranked, scored
from server.stores.filters import Filter

_log = logging.getLogger(__name__)

_MARGIN = 64  # candidates past k, so that ties at the cut can be ordered
_MOST_ALLOWED = (
    0.5  # share of the vectors from which on ChromaDB is asked for more, and masked here
)
_STEP = 500  # vectors given to ChromaDB at once; a search may wait for that
_PAUSE_SECONDS = 0.001  # between two steps, so that a search that waits has its turn
_SETTLED = 10_000  # vectors after which the copy is noted as whole
_RETRY_SECONDS = 60.0


class ChromaIndex:
    """``server.stores.embedded.vectors.VectorIndex``. Thread-safe.

    Which chunks a search may find is known here, by number and as of its own read transaction, from the
    database's labels (``Members``). ChromaDB is asked for the nearest of those that it has; their
    cosines, and those of what it lacks, come from the database. What it lacks is given to it by a
    thread, so no search waits for that. Where it can't help (few are allowed, more tie at the cut than
    it gave, it fails) all that is allowed is compared one by one: slower, and the same.
    """

    def __init__(
        self,
        worker: Worker,
        database: Path,
        place: Path,
        generation: int,
        dimensions: int,
        *,
        exact: int,
        tail: int,
        patience: float,
    ) -> None:
        self._worker = worker
        self._database = database
        self._place = place
        self._dimensions = dimensions
        self._exact = exact
        self._tail = tail
        self._patience = patience
        self._turn = threading.Lock()  # to look at the members or follow
        self._members = Members(generation)
        self._changed = threading.Condition()  # over what is below
        self._copy: RemoteCopy | None = None
        self._follower: threading.Thread | None = None
        self._closed = False
        self._not_before = 0.0  # when to try again after a failure

    def search(
        self,
        vector: Vector,
        condition: Filter | None,
        k: int,
        connection: sqlite3.Connection,
        names: Callable[[list[int]], dict[int, str]],
    ) -> list[tuple[str, float]]:
        with self._turn:
            connection.execute("ROLLBACK")  # a state that is not older than what others loaded
            connection.execute("BEGIN")
            self._bring_up(connection)
            chunks, live = self._members.chunks, self._members.live
            allowed = chunks[self._members.allowed(condition, connection)]
        copy = self._caught_up(chunks, live)
        asked = self._asked(copy, allowed, vector, k)
        if asked is not None:
            near, rest = asked
            numbers, scores = scored(connection, np.concatenate((near, rest)), vector)
            lowest = scores[np.isin(numbers, near)].min(initial=np.inf)
            # Else one that was not given may be as near, and come first by its id.
            if len(near) + len(rest) == len(allowed) or _cut(scores, k) > lowest:
                return _best(numbers, scores, k, names)
        return _best(*scored(connection, allowed, vector), k, names)

    def follow(self, connection: sqlite3.Connection) -> None:
        with self._turn:
            self._bring_up(connection)
            chunks, live = self._members.chunks, self._members.live
        self._caught_up(chunks, live)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            follower = self._follower
        if follower is not None:
            follower.join()
        with self._changed:
            copy, self._copy = self._copy, None
        if copy is not None:
            copy.close()

    def _bring_up(self, connection: sqlite3.Connection) -> None:
        lag = self._members.lag(connection)
        if lag is False:
            return
        try:
            if lag is None:
                self._members.clear()
            self._members.follow(connection, self._sound, SIZE)
            if self._members.crowded:
                self._members.compact()
        except BaseException:
            self._members.clear()  # half a change must not be searched
            raise

    def _sound(self, sizes: Sequence[int | None]) -> Mask:
        return np.array([size == 4 * self._dimensions for size in sizes], dtype=np.bool_)

    def _asked(
        self, copy: RemoteCopy | None, allowed: Numbers, vector: Vector, k: int
    ) -> tuple[Numbers, Numbers] | None:
        """What ChromaDB gives as the nearest of ``allowed``, and those of it that it lacks; None where
        it can't help."""
        if copy is None or len(allowed) <= self._exact:
            return None
        level, removed, count = copy.level, copy.removed, copy.count
        inside = allowed[: np.searchsorted(allowed, level, side="right")]
        rest = allowed[len(inside) :]
        limit = min(k + _MARGIN, len(inside))
        if not limit:
            return None
        near: Numbers = inside[:0]
        try:
            if len(inside) > _MOST_ALLOWED * count:
                more = min(math.ceil(limit * count / len(inside)), count)
                near = _common(copy.nearest(vector, more, None), inside)
            if len(near) < min(k, len(inside)) and len(inside) < count:
                near = _common(copy.nearest(vector, limit, inside), inside)
        except CopyBusy:
            return None
        except CopyUnusable as failure:
            self._failed(copy, removed, failure)
            return None
        # Its graph does not lead to every vector, least of all where many are equal.
        return None if len(near) < min(k, len(inside)) else (near, rest)

    def _failed(self, copy: RemoteCopy, removed: int, failure: CopyUnusable) -> None:
        """Of a search that began when what had gone up to ``removed`` was out of the copy."""
        with self._changed:
            # ChromaDB refuses a chunk that the follower has taken out since.
            followed = self._follower is not None or copy.removed != removed
            if self._copy is copy and not followed:
                self._give_up(failure)

    def _caught_up(self, chunks: Numbers, live: Mask) -> RemoteCopy | None:
        """The copy; what it lacks is on its way if that is much. Given: numbers by place, which live."""

        def few() -> bool:
            copy = self._copy
            if copy is None:
                return int(np.count_nonzero(live)) <= self._tail
            place = int(np.searchsorted(chunks, copy.level, side="right"))
            removed = max(copy.count - int(np.count_nonzero(live[:place])), 0)
            return bool(np.count_nonzero(live[place:]) + removed <= self._tail)

        with self._changed:
            if not few():
                self._start()
                self._changed.wait_for(lambda: self._follower is None or few(), self._patience)
            return self._copy

    def _start(self) -> None:
        if self._follower is None and not self._closed and time.monotonic() >= self._not_before:
            self._follower = threading.Thread(target=self._run, name="chroma", daemon=True)
            self._follower.start()

    def _run(self) -> None:
        """Give ChromaDB what it lacks."""
        try:
            copy = self._copy
            if copy is None:
                copy = RemoteCopy(
                    self._worker,
                    self._place,
                    self._database,
                    self._members.generation,
                    self._dimensions,
                )
                with self._changed:
                    self._copy = copy
            settled = copy.count
            while copy.step(_STEP) and not self._closed:
                if copy.count - settled > _SETTLED:
                    copy.settle()
                    settled = copy.count
                time.sleep(_PAUSE_SECONDS)
            copy.settle()
        except CopyUnusable as failure:
            with self._changed:
                self._give_up(failure)
        finally:
            with self._changed:
                self._follower = None
                self._changed.notify_all()

    def _give_up(self, failure: Exception) -> None:
        """Do without ChromaDB for a while, and then make the copy anew. Called within the condition."""
        if not self._closed:
            _log.warning("%s: ChromaDB is made anew: %s", self._place, failure)
        self._not_before = time.monotonic() + _RETRY_SECONDS
        copy, self._copy = self._copy, None
        if copy is not None:
            copy.close(spoiled=True)


def _common(some: Numbers, ascending: Numbers) -> Numbers:
    """Those of ``some`` that are in ``ascending``, which is not empty."""
    places = np.searchsorted(ascending, some).clip(max=len(ascending) - 1)
    found: Numbers = some[ascending[places] == some]
    return found


def _cut(scores: NDArray[np.float32], k: int) -> float:
    """The score of the k-th best; that of the last where there are fewer."""
    if not len(scores):
        return math.inf
    place = max(len(scores) - k, 0)
    return float(np.partition(scores, place)[place])


def _best(
    numbers: Numbers,
    scores: NDArray[np.float32],
    k: int,
    names: Callable[[list[int]], dict[int, str]],
) -> list[tuple[str, float]]:
    kept = scores >= _cut(scores, k)
    return ranked(numbers[kept], scores[kept], names)[:k]
