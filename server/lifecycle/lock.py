"""ChangeLock: one rebuild, roll back or dictionary change of a collection at a time.

The lock is a note with a beat that its holder raises every second. It survives a crash, so that nobody
starts over beside half-done work by chance, and is taken over when its holder is dead: at once where
that can be seen (a process of this machine that is gone), else when the beat has stood still for long
enough by the watcher's own clock. A holder that was taken for dead notices before it changes anything
that search sees: ``check`` raises, and its fence is gone.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from server.errors import CollectionNotFound, NoteConflict, RebuildRunning, TanyuanError
from server.stores.notes import Note, Notes

KEY = "lock"
BEAT_SECONDS = 1.0
STALE_SECONDS = 10.0
_LOOK_SECONDS = 0.2


@dataclass(slots=True)
class Lease:
    """What a holder has. ``check`` is asked before every step that others would see."""

    collection: str
    token: str
    lost: bool = False

    def check(self) -> None:
        """Raises RebuildRunning when another process has taken the lock over."""
        if self.lost:
            raise RebuildRunning(
                f"Another process has taken over the change of collection {self.collection!r}, since "
                "this one gave no sign of life; nothing more is done here."
            )


class ChangeLock:
    """``work``: what it is for, as others shall read it ("rebuild 20261124…")."""

    def __init__(
        self,
        notes: Notes,
        collection: str,
        *,
        beat_seconds: float = BEAT_SECONDS,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        self._notes = notes
        self._collection = collection
        self._beat_seconds = beat_seconds
        self._stale_seconds = stale_seconds

    @contextmanager
    def held(self, work: str) -> Iterator[Lease]:
        """Take the lock, or over from a dead holder, and keep it alive.

        Raises RebuildRunning, which names the holder, within STALE_SECONDS.
        """
        token = secrets.token_hex(8)
        note = self._take(token, work)
        lease = Lease(self._collection, token)
        ended = threading.Event()
        beating = threading.Thread(
            target=self._beat, args=(lease, note, ended), name="change-lock", daemon=True
        )
        beating.start()
        try:
            yield lease
        finally:
            ended.set()
            beating.join()
            self._release(token)

    def holder(self) -> str:
        """What the holder is at, alive or not known to be dead; empty where nobody holds the lock."""
        note = self._notes.get(self._collection, KEY)
        return "" if note is None or _is_dead(note.value) else str(note.value["work"])

    def _take(self, token: str, work: str) -> Note:
        seen: tuple[str, int] | None = None
        since = time.monotonic()
        while True:
            note = self._notes.get(self._collection, KEY)
            if note is None or _is_dead(note.value) or self._stood_still(note, seen, since):
                expected = note.version if note else 0
                try:
                    return self._notes.put(
                        self._collection, KEY, _sign_of_life(token, work, 0), expected=expected
                    )
                except NoteConflict:
                    continue  # somebody else was faster; who is it?
            sign = (str(note.value["token"]), int(note.value["beat"]))
            if seen is not None and sign != seen:
                raise RebuildRunning(_running(self._collection, note.value))
            seen = sign
            time.sleep(_LOOK_SECONDS)

    def _stood_still(self, note: Note, seen: tuple[str, int] | None, since: float) -> bool:
        unchanged = seen == (note.value["token"], note.value["beat"])
        return unchanged and time.monotonic() - since > self._stale_seconds

    def _beat(self, lease: Lease, note: Note, ended: threading.Event) -> None:
        alive = time.monotonic()
        while not ended.wait(self._beat_seconds):
            sign = {**note.value, "beat": int(note.value["beat"]) + 1}
            try:
                note = self._notes.put(self._collection, KEY, sign, expected=note.version)
                alive = time.monotonic()
            except NoteConflict:
                present = self._notes.get(self._collection, KEY)
                if present is None or present.value["token"] != lease.token:
                    lease.lost = True
                    return
                note = present  # a beat of our own whose answer was lost
            except CollectionNotFound:
                lease.lost = True
                return
            except TanyuanError:
                # The store can't be reached; others can't either, or see us stand still.
                lease.lost = time.monotonic() - alive > self._stale_seconds

    def _release(self, token: str) -> None:
        try:
            note = self._notes.get(self._collection, KEY)
            if note is not None and note.value["token"] == token:
                self._notes.delete(self._collection, KEY, expected=note.version)
        except TanyuanError:
            return  # it is taken over when it has stood still, or at once when this process ends


def _sign_of_life(token: str, work: str, beat: int) -> Mapping[str, Any]:
    return {
        "token": token,
        "work": work,
        "beat": beat,
        "host": socket.gethostname(),
        "process": f"{_boot()} {os.getpid()} {_started(os.getpid())}",
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _is_dead(sign: Mapping[str, Any]) -> bool:
    """Whether the holder is a process of this very machine, since its last start, that is gone."""
    boot, _, process = str(sign["process"]).partition(" ")
    pid, _, started = process.partition(" ")
    return boot == _boot() != "" and started != "" and _started(int(pid)) != started


def _boot() -> str:
    """Names this start of this machine; empty where the system doesn't tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process was started, in clock ticks since the boot; empty where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]


def _running(collection: str, sign: Mapping[str, Any]) -> str:
    return (
        f"Collection {collection!r} is being changed already ({sign['work']} by process "
        f"{str(sign['process']).split()[1]} on {sign['host']}, since {sign['since']}). Wait for its end."
    )
