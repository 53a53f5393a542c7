"""MilvusIndex: one generation's vectors in Milvus, level with the database."""

import contextlib
import logging
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from server.documents import Vector
from server.errors import StoreTimeout, StoreUnavailable
from server.stores.embedded.locks import WriteLock
from server.stores.embedded.scoring import vectors_of
from server.stores.embedded.text_follower import generation_folder
from server.stores.filters import Filter
from server.stores.milvus import exact, progress
from server.stores.milvus.connection import Connection, Lost, Refused
from server.stores.milvus.expressions import BeyondMilvus, expression, tokens_of
from server.stores.milvus.progress import Progress
from server.stores.milvus.rows import INDEX, Row, Rows

_log = logging.getLogger(__name__)

_MARGIN = 64  # hits fetched past k, so that ties at the cut can be ordered
_MOST = 16_384  # Milvus gives no more hits
_ALIKE = 1e-5  # distances are sums of float32 in whatever order
_SLICE = 1_000  # numbers of the database's counter that are taken over at once
_LOOSE = 500  # rows of Milvus Lite that are searched unflushed: 35 us each
_SEARCH_PATIENCE = 4.0  # for what a search has to take over first; a write's is without end
_LOCK_SECONDS = 60.0
_TRIES = 3  # of a search beside writes that replace documents


class MilvusIndex:
    """``vectors.VectorIndex``. Rows are a chunk's number, its document version, labels and vector.

    All processes share them. One at a time changes them, under a lock beside the file that says how far
    they are level (``progress``). That file is written before a change and after it, so what a killed
    process left half done is known and done again.
    """

    def __init__(
        self,
        connection: Connection,
        folder: Path,
        generation: int,
        dimensions: int,
        *,
        base: Callable[[], str],
        lite: bool,
    ) -> None:
        self._connection = connection
        self._collection = folder
        self._folder = folder / generation_folder(generation) / "milvus"
        self._generation = generation
        self._dimensions = dimensions
        self._base = base
        self._lite = lite
        self._checked: tuple[int, str] | None = None  # epoch and name that were found sound

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
            at = self._level(connection, _SEARCH_PATIENCE)
            if not at.rows:
                return []
            try:
                found = self._search(at, vector, condition, k, connection)
            except Refused as error:
                self._checked = None
                refused += 1
                if refused > 1 or not (self._lite or isinstance(error, Lost)):
                    raise
                _log.warning("%s: %s", self._folder, error.message)
                self._distrust(at)
                continue
            except BeyondMilvus:
                break
            if found is not None:
                return found
            torn += 1
        return exact.search(vector, condition, k, connection, self._generation)

    def follow(self, connection: sqlite3.Connection) -> None:
        self._level(connection, None)

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
        found = self._rows(at.name).search(vector, where, limit)
        while len(found) == limit and found[k - 1][1] - found[-1][1] <= _ALIKE:  # ties at the cut
            if limit == _MOST:
                raise BeyondMilvus
            limit = min(limit * 8, _MOST)
            found = self._rows(at.name).search(vector, where, limit)
        numbers = [chunk for chunk, _ in found]
        seen, _ = _sequence(connection)
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
        if self._lite and self._deletions(at.name) != at.deletions:
            return None  # Milvus Lite reads what is there and what was deleted one after the other
        if refused or (len(hits) < k and len(found) == limit):
            # Labels that look alike, a damaged vector, or many that are gone: no hit may be lost.
            raise BeyondMilvus
        return sorted(hits.items(), key=lambda hit: (-hit[1], hit[0]))[:k]

    def _deletions(self, name: str) -> int:
        at = progress.read(self._folder)
        return at.deletions if at is not None and at.name == name else -1

    def _level(self, connection: sqlite3.Connection, patience: float | None) -> Progress:
        """Progress that covers what the connection sees, once that is so.

        Inserted rows come before others are deleted, so that a search finds a replaced document by its
        old chunks or by its new ones.
        """
        at = progress.read(self._folder)
        if at is not None and self._covers(at, connection):
            return at
        with self._locked(patience):
            until = None if patience is None else time.monotonic() + patience
            at = progress.read(self._folder)
            if at is None or not self._covers(at, connection):
                connection.execute("ROLLBACK")  # what came while this waited
                connection.execute("BEGIN")
                at = self._take_over(self._sound(at, connection), connection, until)
            return at

    def _covers(self, at: Progress, connection: sqlite3.Connection) -> bool:
        if not at.whole or self._checked != (self._connection.epoch(), at.name):
            return False
        sequence, pruned = _sequence(connection)
        if at.level >= sequence:
            return True
        if max(at.level, at.born) < pruned:
            return False
        [changed] = connection.execute(
            "SELECT EXISTS (SELECT 1 FROM vectors WHERE chunk > :level AND generation = :of) "
            "OR EXISTS (SELECT 1 FROM removals WHERE sequence > :level AND generation = :of)",
            {"level": at.level, "of": self._generation},
        ).fetchone()
        return not changed

    def _sound(self, at: Progress | None, connection: sqlite3.Connection) -> Progress:
        """``at`` where Milvus has what it says, else a new and empty start. Needs the lock."""
        epoch = self._connection.epoch()
        sequence, pruned = _sequence(connection)
        wrong = "nothing is known of them"
        if at is not None:
            wrong = self._wrong(at, pruned)
            if not wrong:
                self._checked = (epoch, at.name)
                return at
            if at.level:
                _log.warning("%s: taking the vectors over anew: %s", self._folder, wrong)
        collection = self._collection.name.rpartition(".")[2]
        name = f"{self._base()}_{collection}_{self._generation:06d}_{uuid.uuid4().hex[:6]}"
        new = Progress(name=name, index=INDEX, born=sequence)
        progress.write(self._folder, new)  # first, so that nobody takes the collection for a stray
        self._rows(name).create()
        if at is not None and at.name.startswith(f"{self._base()}_"):
            with contextlib.suppress(StoreUnavailable):
                self._rows(at.name).drop()
        self._checked = (epoch, name)
        return new

    def _wrong(self, at: Progress, pruned: int) -> str:
        if not at.name.startswith(f"{self._base()}_") or at.index != INDEX:
            return "they are of another store or index"
        if max(at.level, at.born) < pruned:
            return "they are older than the record of what was removed"
        try:
            rows = self._rows(at.name)
            count = rows.load()
            if at.whole:
                return "" if count == at.rows else f"Milvus has {count} rows instead of {at.rows}"
            rows.delete_above(at.level)
        except Refused as error:
            if self._lite or isinstance(error, Lost):
                return error.message
            raise
        return ""

    def _distrust(self, at: Progress) -> None:
        """Have everything taken over anew, unless another process has done it since."""
        with self._locked(_SEARCH_PATIENCE):
            now = progress.read(self._folder)
            if now is not None and now.name == at.name:
                progress.write(self._folder, replace(now, index="distrusted"))

    def _take_over(
        self, at: Progress, connection: sqlite3.Connection, until: float | None
    ) -> Progress:
        """Slice by slice of the counter; each is level when it is done. Needs the lock."""
        sequence, _ = _sequence(connection)
        rows, noted = self._rows(at.name), at
        while at.level < sequence:
            upto = min(at.level + _SLICE, sequence)
            new, partial = self._added(at.level, upto, connection)
            gone = [
                chunk
                for (chunk,) in connection.execute(
                    "SELECT chunk FROM removals WHERE sequence > ? AND sequence <= ? "
                    "AND generation = ? AND chunk <= ?",
                    (at.level, upto, self._generation, at.level),
                )
            ]
            if new or gone:
                if until is not None and time.monotonic() > until:
                    raise StoreUnavailable(
                        f"Vectors are being taken over into {self._connection.place}: about "
                        f"{sequence - at.level} changes are left. Try again in a while."
                    )
                at = replace(at, deletions=at.deletions + bool(gone))
                progress.write(self._folder, replace(at, target=upto))
                rows.insert(new)
                rows.delete(gone)
                loose = at.loose + len(new)
                if self._lite and loose >= _LOOSE:
                    rows.flush()
                    loose = 0
                at = replace(
                    at,
                    rows=at.rows + len(new) - len(gone),
                    loose=loose,
                    partial=at.partial or partial,
                )
            at = replace(at, level=upto, target=upto)
            if new or gone:
                progress.write(self._folder, at)
                noted = at
        if at is not noted:
            progress.write(self._folder, at)
        return at

    def _added(
        self, above: int, upto: int, connection: sqlite3.Connection
    ) -> tuple[list[Row], bool]:
        """New rows, without damaged vectors; whether one has more labels than a row takes."""
        versions = dict(
            connection.execute(
                "SELECT chunk, version FROM vectors "
                "WHERE chunk > ? AND chunk <= ? AND generation = ? ORDER BY chunk",
                (above, upto, self._generation),
            ).fetchall()
        )
        tokens = {
            version: tokens_of(
                connection.execute(
                    "SELECT key, value FROM labels WHERE version = ?", (version,)
                ).fetchall()
            )
            for version in {*versions.values()}
        }
        wanted = np.array([*versions], dtype=np.int64)
        chunks, vectors = vectors_of(connection, wanted, self._dimensions)
        rows = [
            Row(chunk, versions[chunk], tokens[versions[chunk]] or (), vector)
            for chunk, vector in zip(chunks.tolist(), vectors, strict=True)
        ]
        return rows, None in tokens.values()

    def _rows(self, name: str) -> Rows:
        return Rows(self._connection, name, dimensions=self._dimensions, lite=self._lite)

    @contextlib.contextmanager
    def _locked(self, patience: float | None) -> Iterator[None]:
        """The right to change the rows. Raises FileNotFoundError where the collection is gone."""
        for folder in (self._folder.parent.parent, self._folder.parent, self._folder):
            folder.mkdir(exist_ok=True)  # a restored collection has none
        seconds = _LOCK_SECONDS if patience is None else patience
        lock = WriteLock(self._folder, timeout=seconds).held()
        try:
            lock.__enter__()
        except StoreTimeout as error:
            raise StoreUnavailable(
                f"Vectors are being taken over into {self._connection.place} by another process. "
                "Try again in a while."
            ) from error
        with contextlib.ExitStack() as stack:
            stack.push(lock.__exit__)
            yield


def _sequence(connection: sqlite3.Connection) -> tuple[int, int]:
    sequence, pruned = connection.execute("SELECT sequence, pruned FROM state").fetchone()
    return int(sequence), int(pruned)
