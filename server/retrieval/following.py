"""Followed: what each collection's notes say now, for searches, which can't ask at every query."""

import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from server.errors import CollectionNotFound, StoreUnavailable

T = TypeVar("T")


class Followed(Generic[T]):
    """A value a collection, whose version is asked at most every ``seconds`` and which is read again
    only when that changed. Thread-safe."""

    def __init__(
        self,
        version: Callable[[str], Hashable],
        read: Callable[[str], T],
        *,
        seconds: float,
    ) -> None:
        self._version = version
        self._read = read
        self._seconds = seconds
        self._known: dict[str, tuple[float, Hashable, T]] = {}

    def of(self, collection: str) -> T:
        """The value, at most ``seconds`` old, or as last read where the store can't be asked.

        Raises CollectionNotFound, and StoreUnavailable where it was never read.
        """
        now = time.monotonic()
        known = self._known.get(collection)
        if known is not None and now - known[0] < self._seconds:
            return known[2]
        try:
            latest = self._version(collection)
            same = known is not None and known[1] == latest
            value = known[2] if known is not None and same else self._read(collection)
        except CollectionNotFound:
            self._known.pop(collection, None)  # another one of this name has its own
            raise
        except StoreUnavailable:
            if known is None:
                raise
            return known[2]
        self._known[collection] = (now, latest, value)
        return value
