"""Backups of a store that takes snapshots by itself, as Elasticsearch does.

A backup ``nightly`` of the collection ``default`` is the snapshot ``nightly.default`` in a repository, so
that each collection is there whole or not at all. Keys and other files of the data folder are not in it.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from server.errors import InvalidInput
from server.lifecycle.backup import Backup, Copied, check_name, require_free
from server.stores.contract import Collection

_REPOSITORY = "repository:"
_SNAPSHOT = re.compile(r"([a-z0-9][a-z0-9_-]*)\.([a-z0-9][a-z0-9_-]*)")


class TakenSnapshot(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def state(self) -> str: ...

    @property
    def taken_at(self) -> str: ...


class SnapshotStore(Protocol):
    """What a store has to have so that it can be asked for snapshots."""

    def collection(self, name: str) -> Collection: ...

    def register_repository(self, name: str, location: str) -> None: ...

    def backup(self, collection: str, repository: str, snapshot: str) -> None: ...

    def restore(self, collection: str, repository: str, snapshot: str) -> int: ...

    def snapshots(self, repository: str) -> Sequence[TakenSnapshot]: ...


class Snapshots:
    """The backups in one repository.

    ``place``: the folder, as every node of the store sees it, or ``repository:`` and the name of one
    that is registered. ``pending``: after ``restore``, by collection, how many documents were written
    while the snapshot was taken, so that their chunks have to be derived anew.
    """

    def __init__(self, store: SnapshotStore, place: str) -> None:
        self._store = store
        self.pending: dict[str, int] = {}
        if place.startswith(_REPOSITORY):
            self._repository = place.removeprefix(_REPOSITORY)
        else:
            self._repository = f"tanyuan-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
            store.register_repository(self._repository, place)

    def create(
        self,
        name: str,
        collections: Sequence[str],
        files: Mapping[str, Path],  # noqa: ARG002 - a snapshot holds none
        *,
        progress: Callable[[], None] = lambda: None,
    ) -> Backup:
        """Snapshot collections, one after the other; what is done stays when a later one fails.

        Raises InvalidInput for a name that is taken, CollectionNotFound, StoreUnavailable.
        """
        check_name(name)
        if any(backup.name == name for backup in self.all()):
            raise InvalidInput(f"There is a backup {name!r} already.", field="name")
        for collection in collections:
            self._store.backup(collection, self._repository, f"{name}.{collection}")
            progress()
        return self.one(name)

    def all(self) -> list[Backup]:
        """By time; of each the collections whose snapshot is whole."""
        taken: dict[str, list[tuple[str, str]]] = {}
        for snapshot in self._store.snapshots(self._repository):
            named = _SNAPSHOT.fullmatch(snapshot.name)
            if named and snapshot.state == "SUCCESS":
                taken.setdefault(named[1], []).append((snapshot.taken_at, named[2]))
        backups = [
            Backup(
                name=name,
                created_at=min(found)[0],
                collections=tuple(
                    Copied(name=collection, file=f"{name}.{collection}")
                    for _, collection in sorted(found)
                ),
            )
            for name, found in taken.items()
        ]
        return sorted(backups, key=lambda backup: (backup.created_at, backup.name))

    def one(self, name: str) -> Backup:
        """Raises InvalidInput where there is none."""
        check_name(name)
        for backup in self.all():
            if backup.name == name:
                return backup
        raise InvalidInput(f"There is no backup {name!r} in {self._repository}.", field="name")

    def restore(
        self,
        name: str,
        collections: Mapping[str, str],
        *,
        files: Mapping[str, Path] | None = None,
        progress: Callable[[], None] = lambda: None,
    ) -> list[Collection]:
        """Bring collections back, each under its own name: name there → name here. There are no
        ``files`` to put back.

        Raises CollectionExists, CollectionNotFound, InvalidInput, StoreUnavailable.
        """
        if files:
            raise InvalidInput("A snapshot holds no files of the data folder.", field="files")
        require_free(self._store.collection, self.one(name), collections)
        for there, here in collections.items():
            if there != here:
                raise InvalidInput(
                    "A snapshot brings a collection back under its own name. Copy it afterwards: "
                    "scripts/copy_collection --as.",
                    field="name",
                )
        restored = []
        for collection in collections:
            snapshot = f"{name}.{collection}"
            self.pending[collection] = self._store.restore(collection, self._repository, snapshot)
            restored.append(self._store.collection(collection))
            progress()
        return restored
