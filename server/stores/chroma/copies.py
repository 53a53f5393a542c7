"""Copies: the vectors of a generation in ChromaDB, one copy for each process that searches at a time.

ChromaDB is safe for threads and not for processes: two that have one folder open don't see each other's
changes and write over each other's files. So a process takes the first folder that no other holds, and
its copy goes on from where the last holder left it.
"""

import contextlib
import json
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.documents import Vector
from server.stores.embedded.locks import WriteLock
from server.stores.embedded.scoring import vectors_of

Numbers = NDArray[np.int64]

_NAME = "vectors"
_NOTE = "sound.json"
_FORMAT = 1  # of the note, and of how a collection is configured
_BATCH = 1_000
_LEAVING_SECONDS = 1.0
_UNUSED_SECONDS = 7 * 86_400.0
# A query looks at ef_search candidates or more; 1,000 find .99 of the 200 nearest of 20,000 vectors that
# lie badly, and all of the first 10 (DECISIONS.md).
_HNSW = {
    "space": "ip",
    "ef_construction": 100,
    "max_neighbors": 16,
    "ef_search": 1_000,
    "sync_threshold": 5_000,
}


class CopyUnusable(Exception):
    """ChromaDB fails, or can't read what is there; make the copy anew."""


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        # The library raises what it likes: errors of its own, ValueError, and panics of its Rust part,
        # whose class can't be imported.
        if isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime":
            raise CopyUnusable(f"{type(error).__name__}: {error}") from error
        raise


class Copy:
    """A folder that this process holds. Not thread-safe.

    ``level``: up to which number chunks are in it. ``removed``: up to which number of the counter what
    was removed is out of it. ``count``: how many chunks it has.

    The note says that the files are whole, as of which level, and which sizes they have. It is taken away
    before anything is changed or opened and stands again when that went well; whatever is found without
    a note that fits is made anew. So neither a kill nor damage that ends the process is met twice.
    """

    def __init__(self, folder: Path, dimensions: int, holding: contextlib.ExitStack) -> None:
        self.level = self.removed = self.count = 0
        self._folder = folder
        self._dimensions = dimensions
        self._holding = holding
        self._client: Any = None
        self._collection: Any = None

    @classmethod
    def open(cls, place: Path, dimensions: int) -> "Copy":
        """The first copy at the place that no other process holds; a new one where it isn't sound."""
        deadline = time.monotonic() + _LEAVING_SECONDS
        number = 0
        while True:
            number += 1
            folder = place / f"copy-{number}"
            if number > 1 and not folder.exists() and time.monotonic() < deadline:
                number = 0  # a holder that was killed may still be on its way out
                time.sleep(0.05)
                continue
            folder.mkdir(parents=True, exist_ok=True)
            holding = contextlib.ExitStack()
            if holding.enter_context(WriteLock(folder, timeout=0.0).tried()):
                break
            holding.close()
        copy = cls(folder, dimensions, holding)
        try:
            _clear_unused(place, above=number)
            if not copy._resume():
                copy.clear()
        except BaseException:
            copy.close()
            raise
        return copy

    def nearest(self, vector: Vector, limit: int, among: Numbers | None) -> Numbers:
        """Numbers of about the ``limit`` nearest chunks, of those in ``among`` where it is given.

        Raises CopyUnusable, also where it has not all of ``among``.
        """
        with _failures():
            found = self._collection.query(
                query_embeddings=vector[np.newaxis],
                n_results=limit,
                ids=None if among is None else [str(number) for number in among.tolist()],
                include=[],
            )["ids"][0]
        return np.array([int(number) for number in found], dtype=np.int64)

    def add(self, numbers: Numbers, vectors: NDArray[np.float32]) -> None:
        self._unsettle()
        for start in range(0, len(numbers), _BATCH):
            part = slice(start, start + _BATCH)
            with _failures():
                self._collection.add(
                    ids=[str(number) for number in numbers[part].tolist()],
                    embeddings=vectors[part],
                )
        self.count += len(numbers)

    def remove(self, numbers: Sequence[int]) -> None:
        """Those that it has."""
        self._unsettle()
        for start in range(0, len(numbers), _BATCH):
            with _failures():
                self._collection.delete(
                    ids=[str(number) for number in numbers[start : start + _BATCH]]
                )
        with _failures():
            self.count = self._collection.count()

    def step(self, connection: sqlite3.Connection, generation: int, most: int) -> bool:
        """Take over what the database changed since, of new vectors ``most``; whether there are more."""
        sequence, pruned = connection.execute("SELECT sequence, pruned FROM state").fetchone()
        if self.level and self.removed < pruned:
            self.clear()
        gone = [
            chunk
            for (chunk,) in connection.execute(
                "SELECT chunk FROM removals WHERE sequence > ? AND generation = ? AND chunk <= ?",
                (self.removed, generation, self.level),
            )
        ]
        rows = connection.execute(
            "SELECT chunk FROM vectors WHERE chunk > ? AND generation = ? ORDER BY chunk LIMIT ?",
            (self.level, generation, most),
        )
        new = np.fromiter((chunk for (chunk,) in rows), dtype=np.int64)
        if gone:
            self.remove(gone)
        if len(new):
            self.add(*vectors_of(connection, new, self._dimensions))
        more = len(new) == most
        self.level, self.removed = int(new[-1]) if more else sequence, sequence
        return more

    def clear(self) -> None:
        """Begin with an empty one."""
        self._unsettle()
        self._shut()
        self.level = self.removed = self.count = 0
        for old in self._folder.glob("data-*"):
            shutil.rmtree(old, ignore_errors=True)
        # ChromaDB remembers what it opened by the path, so a path never comes back.
        self._connect(self._folder / f"data-{uuid.uuid4().hex[:12]}", new=True)

    def settle(self) -> None:
        """Note that the files are whole."""
        note = self._folder / _NOTE
        if note.exists():
            return
        if self.count:  # the library may put work off to the next query
            self.nearest(np.eye(1, self._dimensions, dtype=np.float32)[0], 1, None)
        data = self._data()
        sizes = {str(file.relative_to(data)): file.stat().st_size for file in _files(data, "*/*")}
        for file in _files(data, "**/*"):
            _sync(file)
        part = note.with_suffix(".part")
        part.write_text(
            json.dumps(
                {
                    "format": _FORMAT,
                    "chromadb": version("chromadb"),
                    "dimensions": self._dimensions,
                    "data": data.name,
                    "level": self.level,
                    "removed": self.removed,
                    "count": self.count,
                    "sizes": sizes,
                }
            ),
            encoding="utf-8",
        )
        _sync(part)
        part.replace(note)

    def spoil(self) -> None:
        """Let nobody go on with it."""
        self._unsettle()

    def close(self) -> None:
        self._shut()
        self._holding.close()

    def _resume(self) -> bool:
        """Go on with what the last holder left; False where it can't be relied on."""
        try:
            note = json.loads((self._folder / _NOTE).read_text(encoding="utf-8"))
            if (note["format"], note["chromadb"], note["dimensions"]) != (
                _FORMAT,
                version("chromadb"),
                self._dimensions,
            ):
                return False
            data = self._folder / str(note["data"])
            for name, size in note["sizes"].items():
                if (data / name).stat().st_size != size:
                    return False
            self.level, self.removed = int(note["level"]), int(note["removed"])
            self.count = int(note["count"])
            self._unsettle()
            self._connect(data, new=False)
            with _failures():
                if self._collection.count() != self.count:
                    return False
            self.settle()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, CopyUnusable):
            return False
        return True

    def _connect(self, data: Path, *, new: bool) -> None:
        import chromadb  # noqa: PLC0415 - loaded with the store only
        from chromadb.config import Settings  # noqa: PLC0415

        with _failures():
            self._client = chromadb.PersistentClient(
                data,
                settings=Settings(
                    _env_file=None,
                    anonymized_telemetry=False,
                    chroma_otel_collection_endpoint="",
                ),
            )
            self._collection = (
                self._client.create_collection(
                    _NAME, configuration={"hnsw": _HNSW}, embedding_function=None
                )
                if new
                else self._client.get_collection(_NAME, embedding_function=None)
            )

    def _data(self) -> Path:
        return Path(self._client.get_settings().persist_directory)

    def _unsettle(self) -> None:
        (self._folder / _NOTE).unlink(missing_ok=True)

    def _shut(self) -> None:
        client, self._client, self._collection = self._client, None, None
        if client is not None:
            with contextlib.suppress(CopyUnusable), _failures():
                client.close()


def _clear_unused(place: Path, *, above: int) -> None:
    """Remove copies that no process took for a week: there were more processes at some time."""
    for folder in place.glob("copy-*"):
        number = folder.name.removeprefix("copy-")
        if not number.isdigit() or int(number) <= above:
            continue
        with WriteLock(folder, timeout=0.0).tried() as free:
            if free and time.time() - folder.stat().st_mtime > _UNUSED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _files(folder: Path, pattern: str) -> list[Path]:
    return [file for file in sorted(folder.glob(pattern)) if file.is_file()]


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
