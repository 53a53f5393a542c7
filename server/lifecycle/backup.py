"""Backups of a store that is a folder: copies of its collections, whole and at one moment each.

A backup is a folder with ``backup.json`` (``Backup``), a file for each collection, which holds all of
it (documents, generations with terms and vectors, notes), and such files of the data folder as keys. It
is made under a hidden name and renamed when all of it is safe, so that it is there whole or not at all.
"""

import hashlib
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from server import __version__
from server.documents import check_collection
from server.errors import CollectionExists, CollectionNotFound, InvalidInput
from server.lifecycle.archive_folder import alone_in, now, put_file, sync_folder, writing
from server.lifecycle.lines import json_object
from server.stores.contract import Collection

FORMAT = 1
MANIFEST = "backup.json"
_COLLECTIONS = "collections"
_FILES = "files"
_DRAFT = ".draft-"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class CopyingStore(Protocol):
    """What a store has to have so that its collections can be copied as files."""

    def collection(self, name: str) -> Collection: ...

    def backup(self, collection: str, folder: Path) -> Path: ...

    def restore(self, name: str, file: Path) -> Collection: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """A file of a backup. ``documents``: about how many, since others may write meanwhile."""

    name: str  # of the collection, or of the file in the data folder
    file: str  # path within the backup, or the snapshot
    bytes: int = 0
    sha256: str = ""
    documents: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    name: str
    format: int = FORMAT
    product: str = __version__
    created_at: str  # ISO 8601, UTC
    collections: tuple[Copied, ...]
    files: tuple[Copied, ...] = ()


class Backups:
    """The backups that lie in one folder."""

    def __init__(self, store: CopyingStore, place: Path) -> None:
        self._store = store
        self._place = place

    def create(
        self,
        name: str,
        collections: Sequence[str],
        files: Mapping[str, Path],
        *,
        progress: Callable[[], None] = lambda: None,
    ) -> Backup:
        """Copy collections, and files by name (those that are there), while others write.

        Every write that was acknowledged before the call is in it. ``progress`` is called after each
        collection. Raises InvalidInput for a name that is taken, CollectionNotFound, StoreFull.
        """
        check_name(name)
        with writing(self._place):
            self._place.mkdir(parents=True, exist_ok=True)
            with alone_in(self._place):
                if (self._place / name).exists():
                    raise InvalidInput(f"There is a backup {name!r} already.", field="name")
                with self._draft(name) as draft:
                    return self._fill(draft, name, collections, files, progress)

    def all(self) -> list[Backup]:
        """By time. Raises InvalidInput for one that is damaged."""
        names = [path.parent.name for path in self._place.glob(f"*/{MANIFEST}")]
        found = [self.one(name) for name in names if _NAME.fullmatch(name)]
        return sorted(found, key=lambda backup: (backup.created_at, backup.name))

    def one(self, name: str) -> Backup:
        """Raises InvalidInput where there is none, or it is damaged."""
        path = self._place / check_name(name) / MANIFEST
        if not path.is_file():
            raise InvalidInput(f"There is no backup {name!r} in {self._place}.", field="name")
        stated = json_object(path.read_bytes(), str(path))
        try:
            backup = TypeAdapter(Backup).validate_python(stated | {"name": name})
        except ValidationError as error:
            raise InvalidInput(f"{path} is damaged.", field="name") from error
        if backup.format > FORMAT:
            raise InvalidInput(f"The backup {name!r} is of a newer program. Update the program.")
        return backup

    def restore(
        self,
        name: str,
        collections: Mapping[str, str],
        *,
        files: Mapping[str, Path] | None = None,
        progress: Callable[[], None] = lambda: None,
    ) -> list[Collection]:
        """Make new collections of those in a backup: name there → name here; and put back its ``files``:
        name → path. Everything is checked before anything is made.

        Raises CollectionExists, CollectionNotFound; InvalidInput for a damaged backup, or for a file
        that is there already.
        """
        backup = self.one(name)
        require_free(self._store.collection, backup, collections)
        held = {each.name: each for each in backup.collections}
        paths = {here: self._checked(name, held[there]) for there, here in collections.items()}
        back = [each for each in backup.files if each.name in (files or {})]
        contents = {(files or {})[each.name]: self._checked(name, each) for each in back}
        for target in contents:
            if target.exists():
                raise InvalidInput(
                    f"{target} is there already, and a restore never overwrites a file.",
                    field="files",
                )
        with writing(self._place):
            for target, path in contents.items():
                target.parent.mkdir(parents=True, exist_ok=True)
                put_file(target, path.read_bytes(), private=True)
        restored = []
        for here, path in paths.items():
            restored.append(self._store.restore(here, path))
            progress()
        return restored

    def _checked(self, name: str, copied: Copied) -> Path:
        """The file of a collection, which is as it was written."""
        folder = self._place / name
        path = folder / copied.file
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            raise InvalidInput(f"The backup {name!r} lacks {copied.file}.", field="name")
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != copied.sha256:
            raise InvalidInput(
                f"The backup {name!r} is damaged: {copied.file} is not as it was written.",
                field="name",
            )
        return path

    @contextmanager
    def _draft(self, name: str) -> Iterator[Path]:
        """A folder that becomes the backup, or goes."""
        for left in self._place.glob(f"{_DRAFT}*"):  # of a process that was killed
            shutil.rmtree(left)
        draft = self._place / f"{_DRAFT}{name}"
        draft.mkdir(mode=0o700)
        try:
            yield draft
            draft.rename(self._place / name)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        sync_folder(self._place)

    def _fill(
        self,
        draft: Path,
        name: str,
        collections: Sequence[str],
        files: Mapping[str, Path],
        progress: Callable[[], None],
    ) -> Backup:
        copies = []
        for collection in collections:
            documents = self._store.collection(collection).documents
            path = self._store.backup(collection, draft / _COLLECTIONS)
            copies.append(_copied(draft, path, collection, documents))
            progress()
        (draft / _FILES).mkdir()
        kept = []
        for file, source in files.items():
            if source.is_file():
                copy = draft / _FILES / file
                _copy_file(source, copy)
                kept.append(_copied(draft, copy, file, 0))
        backup = Backup(
            name=name,
            created_at=now(),
            collections=tuple(copies),
            files=tuple(kept),
        )
        put_file(draft / MANIFEST, json.dumps(asdict(backup), indent=1).encode())
        for folder in (draft / _COLLECTIONS, draft / _FILES, draft):
            if folder.exists():
                sync_folder(folder)
        return backup


def check_name(name: str) -> str:
    """Return a backup's name, or raise InvalidInput."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            "A backup's name has 1 to 64 of a-z, 0-9, '_' and '-' and starts with a letter or digit; "
            f"got {name[:80]!r}.",
            field="name",
        )
    return name


def require_free(
    find: Callable[[str], Collection], backup: Backup, collections: Mapping[str, str]
) -> None:
    """Raise CollectionNotFound for what a backup does not hold, CollectionExists for a name that is
    taken; ``collections``: name there → name here."""
    held = {each.name for each in backup.collections}
    for there, here in collections.items():
        if there not in held:
            raise CollectionNotFound(f"The backup {backup.name!r} holds no collection {there!r}.")
        try:
            find(check_collection(here))
        except CollectionNotFound:
            continue
        raise CollectionExists(
            f"There is a collection {here!r}, and a restore never overwrites one. Restore it under "
            "another name with --as, or delete that one first."
        )


def _copied(draft: Path, path: Path, name: str, documents: int) -> Copied:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Copied(
        name=name,
        file=str(path.relative_to(draft)),
        bytes=path.stat().st_size,
        sha256=digest,
        documents=documents,
    )


def _copy_file(source: Path, target: Path) -> None:
    """A copy of a small file; of an SQLite database as it is at one moment, while others write."""
    if source.suffix != ".sqlite":
        put_file(target, source.read_bytes(), private=True)
        return
    target.touch(mode=0o600)
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as found,
            closing(sqlite3.connect(target)) as copy,
        ):
            found.backup(copy)
    except sqlite3.Error as error:
        raise InvalidInput(f"{source} can't be copied: {error}", field="files") from error
    with target.open("rb") as stream:
        os.fsync(stream.fileno())
