"""Exporter: a collection to an archive (``server.lifecycle.archive``), while others search and write."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from server import __version__
from server.documents import StoredDocument
from server.errors import InvalidInput
from server.lifecycle.archive import Archive, Manifest, carried_notes
from server.lifecycle.archive_folder import (
    ArchiveFolder,
    alone_in,
    manifest_in,
    now,
    pack_tar,
    require_empty,
    writing,
)
from server.lifecycle.vectors import key_of, stored_vectors
from server.sparse import Embedded
from server.stores.contract import Store

PART_DOCUMENTS = 1_000
PART_BYTES = 16 * 1024 * 1024
_IDS_AT_ONCE = 64  # documents whose vectors are read together
_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")


class Exporter:
    """Exports one collection.

    ``part_documents``, ``part_bytes``: where a documents file ends. ``stop`` is asked after every part
    and gives the reason to stop, or ""; ``progress`` is told how many documents are safe.
    """

    def __init__(
        self,
        store: Store,
        collection: str,
        *,
        vectors: bool = False,
        overwrite: bool = False,
        part_documents: int = PART_DOCUMENTS,
        part_bytes: int = PART_BYTES,
        stop: Callable[[], str] = lambda: "",
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._collection = collection
        self._vectors = vectors
        self._overwrite = overwrite
        self._part_documents = part_documents
        self._part_bytes = part_bytes
        self._stop = stop
        self._progress = progress

    def run(self, path: Path) -> Manifest:
        """Export to a folder, or to the tar file that ``path`` names; state "partial": it was stopped.

        One that was cut off is gone on with. Raises InvalidInput where something else lies there, or a
        whole archive and not ``overwrite``; StoreFull when the disk is full; CollectionNotFound,
        StoreUnavailable.
        """
        if not path.name.endswith(_TAR_ENDINGS):
            return self._to_folder(path)
        parts = path.with_name(f"{path.name}.parts")
        with writing(parts):
            manifest = manifest_in(parts)
            if path.exists() and not self._overwrite:
                if manifest is None or not _is_packed(manifest, path):
                    raise _finished_already(path)
                shutil.rmtree(parts)  # what a process left that was killed just before its end
                return manifest
        if manifest is None or manifest.state == "partial" or self._overwrite:
            manifest = self._to_folder(parts)
        if manifest.state == "whole":
            with writing(path):
                pack_tar(parts, manifest, path)
                shutil.rmtree(parts)
        return manifest

    def _to_folder(self, folder: Path) -> Manifest:
        described = self._store.collection(self._collection)
        live = self._store.live(self._collection, fresh=True)
        notes = carried_notes(self._store.notes, self._collection)
        manifest = Manifest(
            product=__version__,
            state="partial",
            exported_at=now(),
            collection=self._collection,
            description=described.description,
            recipe=live.recipe,
            with_vectors=self._vectors and live.recipe.dimensions > 0,
            chunks=described.chunks,
        )
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with alone_in(folder):
                found = manifest_in(folder)
                archive = ArchiveFolder(folder, manifest)
                if found is None:
                    require_empty(folder)
                elif not self._overwrite:
                    _require_same(found, manifest, folder)
                    archive.take_over(found, self._current)
                archive.begin(notes)
                return self._fill(archive)

    def _fill(self, archive: ArchiveFolder) -> Manifest:
        self._progress(len(archive.hashes))
        self._store.refresh(self._collection)
        for part in self._parts(archive.hashes):
            archive.add(part, self._vectors_of(part, archive.manifest))
            self._progress(len(archive.hashes))
            if self._stop():
                return archive.manifest
        return archive.finish()

    def _parts(self, written: Mapping[str, str]) -> Iterator[list[StoredDocument]]:
        """The documents that are not written yet, as ``written`` then says, parted."""
        part: dict[str, StoredDocument] = {}
        size = 0
        for stored in self._store.documents(self._collection):
            if stored.document.id in written:
                continue
            part[stored.document.id] = stored
            size += len(stored.document.text.encode())
            if len(part) >= self._part_documents or size >= self._part_bytes:
                yield list(part.values())
                part, size = {}, 0
        if part:
            yield list(part.values())

    def _vectors_of(
        self, part: Sequence[StoredDocument], manifest: Manifest
    ) -> dict[bytes, Embedded]:
        found: dict[bytes, Embedded] = {}
        for start in range(0, len(part) if manifest.with_vectors else 0, _IDS_AT_ONCE):
            some = [stored.document for stored in part[start : start + _IDS_AT_ONCE]]
            vectors = stored_vectors(self._store, self._collection, manifest.recipe, some)
            if vectors is None:
                raise InvalidInput(
                    f"Collection {self._collection!r} was rebuilt with another embedder while it was "
                    "exported with vectors. Run it again with --overwrite.",
                    field="vectors",
                )
            found |= {key_of(passage): vector for passage, vector in vectors.items()}
        return found

    def _current(self, document_ids: Sequence[str]) -> dict[str, str]:
        states = self._store.states(self._collection, document_ids)
        return {document_id: state.content_hash for document_id, state in states.items()}


def _is_packed(manifest: Manifest, path: Path) -> bool:
    """Whether the tar file is that archive."""
    try:
        with Archive(path) as archive:
            return archive.manifest == manifest
    except InvalidInput:
        return False


def _require_same(found: Manifest, manifest: Manifest, folder: Path) -> None:
    """Raise InvalidInput unless what was cut off is the beginning of this export."""
    if found.state == "whole":
        raise _finished_already(folder)
    same = (found.collection, found.with_vectors) == (manifest.collection, manifest.with_vectors)
    if manifest.with_vectors and found.recipe.embedder != manifest.recipe.embedder:
        same = False
    if not same:
        raise InvalidInput(
            f"{folder} holds the beginning of another export: of {found.collection!r}, "
            f"{'with' if found.with_vectors else 'without'} vectors, embedder "
            f"{found.recipe.embedder or 'none'}. Name another place, or use --overwrite.",
            field="folder",
        )


def _finished_already(path: Path) -> InvalidInput:
    return InvalidInput(
        f"{path} holds a whole archive already. Name another place, or use --overwrite.",
        field="folder",
    )
