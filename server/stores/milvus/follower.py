"""Follower: keeps the rows that one generation has in Milvus level with the database."""

import contextlib
import logging
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from server.errors import StoreTimeout, StoreUnavailable
from server.stores.embedded.locks import WriteLock
from server.stores.embedded.scoring import vectors_of
from server.stores.embedded.text_follower import generation_folder
from server.stores.milvus import progress
from server.stores.milvus.connection import Connection, Lost, Refused
from server.stores.milvus.expressions import tokens_of
from server.stores.milvus.progress import Progress
from server.stores.milvus.rows import INDEX, Row, Rows

_log = logging.getLogger(__name__)

_SLICE = 1_000  # numbers of the database's counter that are taken over at once
_LOOSE = 500  # rows of Milvus Lite that are searched unflushed: 35 us each
_LOCK_SECONDS = 60.0


class Follower:
    """Thread-safe. All processes share the rows. One at a time changes them, under a lock beside the file
    that says how far they are level (``progress``). That file is written before a change and after it, so
    what a killed process left half done is known and done again.

    ``base``: what names of the store's Milvus collections begin with; ``lite``: as for ``Rows``.
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

    def deletions(self, name: str) -> int:
        """How often rows were deleted by now, or -1 where they are others."""
        at = progress.read(self._folder)
        return at.deletions if at is not None and at.name == name else -1

    def level(self, connection: sqlite3.Connection, patience: float | None) -> Progress:
        """Progress that covers what the connection sees, once that is so; ``patience``: seconds for what
        has to be taken over first, or None for as long as it takes.

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
        sequence, pruned = sequence_of(connection)
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
        sequence, pruned = sequence_of(connection)
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
        self.rows(name).create()
        if at is not None and at.name.startswith(f"{self._base()}_"):
            with contextlib.suppress(StoreUnavailable):
                self.rows(at.name).drop()
        self._checked = (epoch, name)
        return new

    def _wrong(self, at: Progress, pruned: int) -> str:
        if not at.name.startswith(f"{self._base()}_") or at.index != INDEX:
            return "they are of another store or index"
        if max(at.level, at.born) < pruned:
            return "they are older than the record of what was removed"
        try:
            rows = self.rows(at.name)
            count = rows.load()
            if at.whole:
                return "" if count == at.rows else f"Milvus has {count} rows instead of {at.rows}"
            rows.delete_above(at.level)
        except Refused as error:
            if self._lite or isinstance(error, Lost):
                return error.message
            raise
        return ""

    def doubt(self) -> None:
        """Look whether Milvus has what it should, and is ready for searches, before it is asked again."""
        self._checked = None

    def distrust(self, at: Progress, patience: float) -> None:
        """Have everything taken over anew, unless another process has done it since."""
        with self._locked(patience):
            now = progress.read(self._folder)
            if now is not None and now.name == at.name:
                progress.write(self._folder, replace(now, index="distrusted"))

    def _take_over(
        self, at: Progress, connection: sqlite3.Connection, until: float | None
    ) -> Progress:
        """Slice by slice of the counter; each is level when it is done. Needs the lock."""
        sequence, _ = sequence_of(connection)
        rows, noted = self.rows(at.name), at
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

    def rows(self, name: str) -> Rows:
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


def sequence_of(connection: sqlite3.Connection) -> tuple[int, int]:
    sequence, pruned = connection.execute("SELECT sequence, pruned FROM state").fetchone()
    return int(sequence), int(pruned)
