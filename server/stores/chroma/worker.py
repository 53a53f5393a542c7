"""The process that ChromaDB runs in, and the copies in it as the store's own process sees them.

ChromaDB's library keeps Python's interpreter lock while it writes: a thousand vectors would hold up
every thread of a server for half a second. And a file that is damaged in an odd way may end the process
that loads it, which had better not be the server.

``python -m server.stores.chroma.worker DESCRIPTOR`` answers calls, one at a time, until the pipe closes.
"""

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from server.documents import Vector
from server.errors import StoreUnavailable
from server.stores.chroma.copies import Copy, CopyUnusable, Numbers
from server.stores.embedded.database import Database

_LEAVING_SECONDS = 30.0
_SEARCH_SECONDS = 0.5  # that a search waits, before it compares one by one


class CopyBusy(CopyUnusable):
    """ChromaDB is writing, maybe for another collection."""


class Worker:
    """The process, started at the first call and again after it died. Thread-safe."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._closed = False

    def call(self, name: str, *arguments: object, wait: float = -1) -> Any:
        """What the process answers. Raises CopyUnusable for what fails there, and where it dies;
        CopyBusy where it is at something else for more than ``wait`` seconds (-1: however long)."""
        if not self._turn.acquire(timeout=wait):
            raise CopyBusy("ChromaDB is busy")
        try:
            done, answer = self._asked(name, arguments)
        finally:
            self._turn.release()
        if not done:
            raise CopyUnusable(answer)
        return answer

    def _asked(self, name: str, arguments: tuple[object, ...]) -> tuple[bool, Any]:
        if self._closed:
            raise CopyUnusable("the store is closed")
        try:
            pipe = self._pipe or self._start()
            pipe.send((name, arguments))
            done, answer = pipe.recv()
        except (EOFError, OSError) as error:
            self._stop()
            raise CopyUnusable(f"ChromaDB's process is gone ({error!r})") from error
        return bool(done), answer

    def close(self) -> None:
        with self._turn:
            self._closed = True
            self._stop()

    def _start(self) -> Connection:
        ours, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # an interrupt at the terminal is for the server to act on
            )
        self._pipe = ours
        return ours

    def _stop(self) -> None:
        """Let it finish what it is at and leave."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            try:
                self._process.wait(_LEAVING_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._pipe = self._process = None


class RemoteCopy:
    """``copies.Copy`` in the worker, of one generation. Thread-safe, but ``step`` is for one thread."""

    def __init__(
        self, worker: Worker, place: Path, database: Path, generation: int, dimensions: int
    ) -> None:
        """Take a copy. Raises CopyUnusable."""
        self._worker = worker
        self._key, *state = worker.call("open", place, database, generation, dimensions)
        self.level, self.removed, self.count = state

    def nearest(self, vector: Vector, limit: int, among: Numbers | None) -> Numbers:
        """As ``Copy.nearest``; raises CopyBusy as well."""
        found: Numbers = self._worker.call(
            "nearest", self._key, vector, limit, among, wait=_SEARCH_SECONDS
        )
        return found

    def step(self, most: int) -> bool:
        more, self.level, self.removed, self.count = self._worker.call("step", self._key, most)
        return bool(more)

    def settle(self) -> None:
        self._worker.call("settle", self._key)

    def close(self, *, spoiled: bool = False) -> None:
        """Give it back; ``spoiled``: so that nobody goes on with it."""
        with contextlib.suppress(CopyUnusable):  # gone with its process
            self._worker.call("close", self._key, spoiled)


class _Copies:
    """What the process holds."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[Copy, Database, int]] = {}
        self._next = 0
        self._calls: dict[str, Callable[..., Any]] = {
            "open": self._open,
            "nearest": self._nearest,
            "step": self._step,
            "settle": self._settle,
            "close": self._close,
        }

    def answer(self, name: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
        try:
            return True, self._calls[name](*arguments)
        except KeyError:
            return False, "another process began since"
        except (CopyUnusable, OSError, sqlite3.Error) as error:
            return False, f"{type(error).__name__}: {error}"
        except StoreUnavailable as error:
            return False, error.message

    def leave(self) -> None:
        for key in [*self._held]:
            with contextlib.suppress(CopyUnusable, OSError):
                self._held[key][0].settle()
            self._close(key, spoiled=False)

    def _open(self, place: Path, database: Path, generation: int, dimensions: int) -> Any:
        copy = Copy.open(place, dimensions)
        self._next += 1
        self._held[self._next] = copy, Database(database), generation
        return self._next, copy.level, copy.removed, copy.count

    def _nearest(self, key: int, vector: Vector, limit: int, among: Numbers | None) -> Numbers:
        return self._held[key][0].nearest(vector, limit, among)

    def _step(self, key: int, most: int) -> Any:
        copy, database, generation = self._held[key]
        with database.reading() as connection:
            more = copy.step(connection, generation, most)
        return more, copy.level, copy.removed, copy.count

    def _settle(self, key: int) -> None:
        self._held[key][0].settle()

    def _close(self, key: int, spoiled: bool) -> None:
        copy, database, _ = self._held.pop(key)
        with contextlib.suppress(OSError):
            if spoiled:
                copy.spoil()
        copy.close()
        database.close()


def main(descriptor: int) -> None:
    copies = _Copies()
    with Connection(descriptor) as pipe:
        # The other end closes when the server does, however that ends.
        with contextlib.suppress(EOFError, OSError):
            while True:
                name, arguments = pipe.recv()
                pipe.send(copies.answer(name, arguments))
        copies.leave()


if __name__ == "__main__":
    main(int(sys.argv[1]))
    os._exit(0)  # the library's threads are not waited for
