"""The contract of notes: small JSON values kept with a collection, each changed by compare-and-set.

Locks, progress, versions of the dictionary and the like are notes, so that every store keeps them, every
process sees them and a delete of the collection takes them along.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

MAX_NOTE_BYTES = 20_000_000  # of a value as JSON
MAX_KEY_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """``version``: 1 for the first write, one more at every change."""

    value: Mapping[str, Any]
    version: int


class Notes(Protocol):
    """Thread-safe, and safe with other processes. Durable when a call returns. Any method may raise
    CollectionNotFound, StoreUnavailable or StoreTimeout. Keys are of letters, digits and ``-_.:``."""

    def get(self, collection: str, key: str) -> Note | None:
        """Sees every change that was acknowledged."""

    def under(self, collection: str, prefix: str) -> dict[str, Note]:
        """Key → note of the keys that begin with ``prefix``, by key. Sees every change."""

    def put(
        self, collection: str, key: str, value: Mapping[str, Any], *, expected: int | None = None
    ) -> Note:
        """Write a note. ``expected``: the version that must be there now, 0: none; None: whatever.

        Raises NoteConflict, InvalidInput.
        """

    def delete(self, collection: str, key: str, *, expected: int | None = None) -> bool:
        """Whether there was one. Raises NoteConflict."""
