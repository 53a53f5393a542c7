"""Rebuild records: what a rebuild, a roll back or a dictionary change has done so far, for all to see."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from server.errors import InvalidInput, RebuildNotFound, Stopped
from server.stores.notes import Notes

Kind = Literal["rebuild", "rollback", "dictionary"]
State = Literal["filling", "catching_up", "verifying", "promoted", "failed", "abandoned"]

PREFIX = "rebuild:"
KEPT = 20  # records of a collection
_SAVE_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuild:
    """``done`` of ``total`` documents are in ``generation``, which takes the place of ``replaced``.
    ``embedded`` counts the passages that the
    embedder was asked for, ``reused`` those whose vectors were taken over. ``error`` says why it
    failed. Times are ISO 8601, UTC; ``seconds`` is the work's own time, over all its runs."""

    id: str
    collection: str
    kind: Kind
    state: State
    generation: str
    replaced: str
    by: str
    started_at: str
    updated_at: str
    done: int = 0
    total: int = 0
    embedded: int = 0
    reused: int = 0
    seconds: float = 0.0
    error: str = ""

    @property
    def ended(self) -> bool:
        return self.state in {"promoted", "failed", "abandoned"}


class Rebuilds:
    """The records of one collection."""

    def __init__(self, notes: Notes, collection: str) -> None:
        self._notes = notes
        self._collection = collection

    def all(self) -> list[Rebuild]:
        """The latest first."""
        found = self._notes.under(self._collection, PREFIX)
        return [_record(note.value) for _, note in sorted(found.items(), reverse=True)]

    def get(self, rebuild_id: str) -> Rebuild:
        """Raises RebuildNotFound."""
        note = self._notes.get(self._collection, _key(rebuild_id))
        if note is None:
            raise RebuildNotFound(
                f"Collection {self._collection!r} has no rebuild {rebuild_id[:80]!r}; the latest "
                f"{KEPT} are kept."
            )
        return _record(note.value)

    def start(
        self, kind: Kind, *, generation: str, replaced: str, by: str, total: int = 0
    ) -> "Progress":
        """A new record, and the oldest ones go."""
        now = _now()
        record = Rebuild(
            id=f"{datetime.now(UTC):%Y%m%dt%H%M%S%f}-{secrets.token_hex(2)}",
            collection=self._collection,
            kind=kind,
            state="filling",
            generation=generation,
            replaced=replaced,
            by=by,
            started_at=now,
            updated_at=now,
            total=total,
        )
        for old in self.all()[KEPT - 1 :]:
            self._notes.delete(self._collection, _key(old.id))
        return Progress(self._notes, record)

    def resume(self, rebuild_id: str) -> "Progress":
        """Go on with a record whose process ended."""
        record = replace(self.get(rebuild_id), error="")
        return Progress(self._notes, record)

    def stop(self, rebuild_id: str) -> None:
        """Ask the process that is at it, wherever it runs, to stop."""
        self.get(rebuild_id)
        self._notes.put(self._collection, _stop_key(rebuild_id), {"stop": True})


class Progress:
    """A record in the making; kept twice a second, and at every change of state."""

    def __init__(self, notes: Notes, record: Rebuild) -> None:
        self.record = record
        self._notes = notes
        self._began = time.monotonic() - record.seconds
        self._saved = 0.0
        notes.delete(record.collection, _stop_key(record.id))
        self._save()

    def add(self, *, done: int = 0, embedded: int = 0, reused: int = 0) -> None:
        """Count. Raises Stopped when somebody asked for it."""
        record = self.record
        self.record = replace(
            record,
            done=record.done + done,
            total=max(record.total, record.done + done),
            embedded=record.embedded + embedded,
            reused=record.reused + reused,
        )
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self._save()
            if self._notes.get(record.collection, _stop_key(record.id)) is not None:
                raise Stopped(f"The {record.kind} {record.id} was asked to stop.")

    def set(self, **changes: Any) -> None:
        self.record = replace(self.record, **changes)
        self._save()

    def _save(self) -> None:
        self._saved = time.monotonic()
        seconds = round(self._saved - self._began, 1)
        self.record = replace(self.record, updated_at=_now(), seconds=seconds)
        key = _key(self.record.id)
        self._notes.put(self.record.collection, key, asdict(self.record))
        if self.record.ended:
            self._notes.delete(self.record.collection, _stop_key(self.record.id))


def _key(rebuild_id: str) -> str:
    if not rebuild_id.replace("-", "").isalnum() or not rebuild_id.isascii():
        raise InvalidInput("A rebuild's id has letters, digits and '-'.", field="id")
    return f"{PREFIX}{rebuild_id}"


def _stop_key(rebuild_id: str) -> str:
    return f"stop:{rebuild_id}"


def _record(value: Mapping[str, Any]) -> Rebuild:
    return Rebuild(**value)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
