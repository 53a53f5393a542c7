"""ArchiveFolder: an archive while it is written, so that it can be cut off at any point and gone on with.

Every file is written under a temporary name, made safe and renamed, and then the manifest that names it.
"""

import errno
import fcntl
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from server.documents import StoredDocument
from server.errors import InvalidInput, StoreFull
from server.lifecycle.archive import (
    MANIFEST,
    NOTES,
    File,
    Manifest,
    digest_of,
    is_file_name,
)
from server.lifecycle.lines import read_lines, write_line
from server.lifecycle.vectors import pack
from server.sparse import Embedded

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_IDS_AT_ONCE = 500

# Ids → content hash, of the documents that are there now.
Current = Callable[[Sequence[str]], Mapping[str, str]]


class ArchiveFolder:
    """The folder of one archive. ``hashes``: by id, the content hashes of the documents that are in it."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self.manifest = manifest
        self.hashes: dict[str, str] = {}

    def begin(self, notes: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the notes and a manifest that names only what was taken over; other parts go."""
        data = json.dumps(notes, ensure_ascii=False).encode()
        self._name(self._put(NOTES, data, entries=len(notes)))
        self._put_manifest()
        kept = {file.name for file in self.manifest.files}
        for path in self._folder.iterdir():
            ours = is_file_name(path.name.removeprefix(".").removesuffix(".tmp"))
            if ours and path.name not in kept:
                path.unlink()

    def take_over(self, begun: Manifest, current: Current) -> None:
        """Keep the parts of an export that was cut off, but for documents that are others by now."""
        vectors = {file.number: file for file in begun.named("vectors")}
        for file in begun.named("documents"):
            beside = vectors.get(file.number)
            if self.manifest.with_vectors and (beside is None or not self._is_whole(beside)):
                continue
            if not self._is_whole(file):
                continue
            kept = self._still_current(file, current)
            if not kept.entries:
                continue
            self._name(kept, documents=kept.entries)
            if beside is not None and self.manifest.with_vectors:
                self._name(beside, vectors=beside.entries)

    def add(self, documents: Sequence[StoredDocument], vectors: Mapping[bytes, Embedded]) -> None:
        """One more part; ``vectors`` are left out of an archive without them."""
        number = max((file.number for file in self.manifest.files), default=0) + 1
        hashes = {each.document.id: each.document.content_hash for each in documents}
        lines = b"".join(write_line(each, hashes[each.document.id]) for each in documents)
        name = f"documents-{number:05}.jsonl"
        if self.manifest.with_vectors:
            packed = pack(vectors, self.manifest.recipe.dimensions)
            beside = self._put(f"vectors-{number:05}.npz", packed, entries=len(vectors))
        self._name(self._put(name, lines, entries=len(documents)), documents=len(documents))
        if self.manifest.with_vectors:
            self._name(beside, vectors=len(vectors))
        self.hashes |= hashes
        self._put_manifest()

    def finish(self) -> Manifest:
        self.manifest = replace(
            self.manifest, state="whole", exported_at=now(), digest=digest_of(self.hashes)
        )
        self._put_manifest()
        return self.manifest

    def _is_whole(self, file: File) -> bool:
        path = self._folder / file.name
        if not path.is_file() or path.stat().st_size != file.bytes:
            return False
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256

    def _still_current(self, file: File, current: Current) -> File:
        """The documents file without what was changed or deleted since."""
        hashes: dict[str, str] = {}
        with (self._folder / file.name).open("rb") as stream:
            for document, content_hash, _ in read_lines(stream, file.name):
                hashes[document.id] = content_hash
        present: dict[str, str] = {}
        ids = list(hashes)
        for start in range(0, len(ids), _IDS_AT_ONCE):
            present |= current(ids[start : start + _IDS_AT_ONCE])
        kept = {each: found for each, found in hashes.items() if present.get(each) == found}
        self.hashes |= kept
        if len(kept) == len(hashes):
            return file
        rest = io.BytesIO()
        with (self._folder / file.name).open("rb") as stream:
            rest.writelines(
                line for document, _, line in read_lines(stream, file.name) if document.id in kept
            )
        return self._put(file.name, rest.getvalue(), entries=len(kept))

    def _name(self, file: File, *, documents: int = 0, vectors: int = 0) -> None:
        """Count a file as part of the archive."""
        others = (each for each in self.manifest.files if each.name != file.name)
        self.manifest = replace(
            self.manifest,
            files=(*others, file),
            documents=self.manifest.documents + documents,
            vectors=self.manifest.vectors + vectors,
        )

    def _put_manifest(self) -> None:
        put_file(self._folder / MANIFEST, self.manifest.to_bytes())

    def _put(self, name: str, data: bytes, *, entries: int) -> File:
        put_file(self._folder / name, data)
        sha256 = hashlib.sha256(data).hexdigest()
        return File(name=name, bytes=len(data), sha256=sha256, entries=entries)


def manifest_in(folder: Path) -> Manifest | None:
    """Of the archive in a folder, or None. Raises InvalidInput for a damaged one."""
    path = folder / MANIFEST
    return Manifest.from_bytes(path.read_bytes()) if path.is_file() else None


def require_empty(folder: Path) -> None:
    """Raise InvalidInput where something lies in the folder that is no archive."""
    left = f".{MANIFEST}.tmp"
    if folder.exists() and any(path.name != left for path in folder.iterdir()):
        raise InvalidInput(
            f"{folder} holds other things than an archive; name a new or an empty folder.",
            field="folder",
        )


def put_file(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write a file whole or not at all, and safe when this returns. ``private``: for its owner alone."""
    with replacing(path) as stream:
        if private:
            os.fchmod(stream.fileno(), 0o600)
        stream.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[io.BufferedWriter]:
    """A stream whose file takes the place of ``path`` at the end, safe, or goes."""
    draft = path.with_name(f".{path.name}.tmp")
    try:
        with draft.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder safe."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other writers out of a folder that is there. Raises InvalidInput where there is one."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidInput(
                f"Another process is writing to {folder}; wait for it.", field="folder"
            ) from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Whatever writing raises, as StoreFull or InvalidInput that name the place."""
    try:
        yield
    except OSError as error:
        where = error.filename or place
        if error.errno in _FULL:
            raise StoreFull(
                f"{where} can't be written: {error.strerror}. Make room; what is whole stays."
            ) from error
        raise InvalidInput(
            f"{where} can't be written: {error.strerror}.", field="folder"
        ) from error


def pack_tar(folder: Path, manifest: Manifest, path: Path) -> None:
    """The archive in a folder as one tar file, gzipped where its name says so."""
    gzipped = path.name.endswith("gz")
    with (
        replacing(path) as stream,
        tarfile.open(
            fileobj=stream, mode="w:gz" if gzipped else "w", format=tarfile.USTAR_FORMAT
        ) as tar,
    ):
        for name in (MANIFEST, *(file.name for file in manifest.files)):
            member = tarfile.TarInfo(name)
            member.size = (folder / name).stat().st_size
            member.mode = 0o600
            with (folder / name).open("rb") as content:
                tar.addfile(member, content)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
