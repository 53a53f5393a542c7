"""One writer at a time, across threads and processes."""

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from server.errors import StoreTimeout

_POLL_SECONDS = 0.002


class WriteLock:
    """A lock on a file, which the system releases when its holder dies.

    ``flock`` alone is unfair: a writer in a loop takes it again before a poller looks. So there are
    two: whoever waits holds the gate, and a writer that comes back has to pass the gate first.
    Not reentrant.
    """

    def __init__(self, folder: Path, *, timeout: float) -> None:
        self._path = folder / "write.lock"
        self._gate_path = folder / "gate.lock"
        self._timeout = timeout
        self._threads = threading.Lock()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the lock. Raises StoreTimeout; FileNotFoundError when the folder is gone."""
        deadline = time.monotonic() + self._timeout
        if not self._threads.acquire(timeout=self._timeout):
            raise self._late()
        try:
            with self._locked(self._gate_path, deadline) as gate:
                stack = contextlib.ExitStack()
                stack.enter_context(self._locked(self._path, deadline))
                fcntl.flock(gate, fcntl.LOCK_UN)
            with stack:
                yield
        finally:
            self._threads.release()

    @contextlib.contextmanager
    def tried(self) -> Iterator[bool]:
        """Take the lock if it is free now; yields whether it was."""
        if not self._threads.acquire(blocking=False):
            yield False
            return
        try:
            try:
                holder = self._locked(self._path, deadline=0.0)
                holder.__enter__()
            except StoreTimeout:
                yield False
                return
            try:
                yield True
            finally:
                holder.__exit__(None, None, None)
        finally:
            self._threads.release()

    @contextlib.contextmanager
    def _locked(self, path: Path, deadline: float) -> Iterator[int]:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise self._late() from None
                    time.sleep(_POLL_SECONDS)
            yield descriptor
        finally:
            os.close(descriptor)

    def _late(self) -> StoreTimeout:
        return StoreTimeout(
            f"Another writer held the store for more than {self._timeout:g} s; try again."
        )
