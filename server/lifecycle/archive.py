"""The archive of a collection: what it holds, and reading it, whoever it comes from.

An archive is a folder, or the same files in one ``.tar`` or ``.tar.gz``, the manifest first:

``manifest.json``
    What is here (``Manifest``), with a SHA-256 of every other file and, as ``checksum``, of itself.
``notes.json``
    Key → value of the notes that go where the collection goes: under ``vocabulary`` its dictionary,
    synonyms and stop words, and ``profile``; with all their versions.
``documents-00001.jsonl`` …
    A document a line: the fields of ``Document.as_json`` with ``content_hash``, ``revision`` and
    ``updated_at`` as the store had them. A file ends after 1,000 documents or 16 MiB.
``vectors-00001.npz`` …
    Where they were asked for, of the documents file of that number: ``keys``, uint8 (n, 32), SHA-256 of
    the keys of passages (``server.ingest.windows.passages_of``: a chunk's is the passage as models read
    it), and row by row ``vectors``, float32 (n, dimensions), with sparse weights where the recipe has
    them (``server.lifecycle.vectors.pack``). Plain arrays: nothing in an archive is unpickled.

While an export goes on its manifest says "partial" and names the files that are whole; only one that
says "whole" can be imported. A document that is changed during an export is in it as it was before or
after; each comes once.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from server.documents import Document, check_collection
from server.errors import InvalidInput
from server.lifecycle.lines import damaged, json_object, read_lines
from server.lifecycle.sources import Source, open_source, read_at_most, reading
from server.lifecycle.vectors import unpack
from server.recipes import Recipe
from server.retrieval import profiles
from server.sparse import Embedded
from server.stores.notes import Notes
from server.texts import check_text

FORMAT = 1
MANIFEST = "manifest.json"
NOTES = "notes.json"
VOCABULARY = "vocabulary"  # what the keys of its notes begin with
_MAX_FILE_BYTES = {
    MANIFEST: 64 * 1024 * 1024,
    NOTES: 512 * 1024 * 1024,
    "documents": 1024**3,
    "vectors": 1024**3,
}
_NAME = re.compile(r"(documents)-\d{5,8}\.jsonl|(vectors)-\d{5,8}\.npz|notes\.json")
_MAX_DESCRIPTION_CHARS = 100_000
_BLOCK = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """``entries``: how many documents, vectors or notes."""

    name: str
    bytes: int
    sha256: str
    entries: int

    @property
    def number(self) -> int:
        """Of a part; 0 of the notes."""
        return int(re.sub(r"\D", "", self.name) or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """``recipe``: of the live generation, whose ``chunks`` are counted. ``digest``: see ``digest_of``.

    ``files``: in the order in which they lie in a tar file.
    """

    format: int = FORMAT
    product: str
    state: Literal["partial", "whole"]
    exported_at: str  # ISO 8601, UTC
    collection: str
    description: str
    recipe: Recipe
    with_vectors: bool
    files: tuple[File, ...] = ()
    documents: int = 0
    chunks: int = 0
    vectors: int = 0
    digest: str = ""

    @property
    def checksum(self) -> str:
        """SHA-256 of the manifest: it names the archive."""
        plain = json.dumps(self._stated(), ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()

    def to_bytes(self) -> bytes:
        stated = self._stated() | {"checksum": self.checksum}
        return json.dumps(stated, ensure_ascii=False, indent=1).encode()

    def _stated(self) -> dict[str, Any]:
        return asdict(self) | {"recipe": self.recipe.as_json()}

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Raises InvalidInput for a damaged one, and for one of a later format."""
        stated = json_object(data, MANIFEST)
        version = stated.get("format")
        if isinstance(version, int) and version > FORMAT:
            raise InvalidInput(
                f"The archive has the format {version} of a newer version of this program, which "
                f"knows {FORMAT}. Update the program."
            )
        checksum = stated.pop("checksum", None)
        try:
            manifest: Manifest = _manifests().validate_python(stated)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise damaged(f"{MANIFEST} says wrong things ({where}: {first['msg']})") from error
        if manifest.checksum != checksum:
            raise damaged(f"{MANIFEST} was changed after it was written")
        manifest.check()
        return manifest

    def check(self) -> None:
        """Raise InvalidInput unless the manifest may be believed as far as it can be by itself."""
        names = [file.name for file in self.files]
        for file in self.files:
            found = _NAME.fullmatch(file.name)
            if found is None:
                raise damaged(f"{MANIFEST} names {file.name[:80]!r}, which no archive has")
            if not 0 <= file.bytes <= _MAX_FILE_BYTES[found[1] or found[2] or NOTES]:
                raise damaged(f"{MANIFEST} says that {file.name} has {file.bytes} bytes")
        if len(set(names)) < len(names) or NOTES not in names:
            raise damaged(f"{MANIFEST} names a file twice, or lacks {NOTES}")
        counts = [
            sum(file.entries for file in self.named(kind)) for kind in ("documents", "vectors")
        ]
        if counts != [self.documents, self.vectors]:
            raise damaged(f"{MANIFEST} counts other documents or vectors than its files have")
        numbers = [file.number for file in self.named("documents")]
        if self.with_vectors and numbers != [file.number for file in self.named("vectors")]:
            raise damaged(f"{MANIFEST} does not name a file of vectors for each of documents")
        check_collection(self.collection)
        check_text(self.description, field="description", max_chars=_MAX_DESCRIPTION_CHARS)

    def named(self, kind: str) -> list[File]:
        """The files of documents, or of vectors, by number."""
        files = (file for file in self.files if file.name.startswith(f"{kind}-"))
        return sorted(files, key=lambda file: file.number)


@cache
def _manifests() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)


def digest_of(hashes: Mapping[str, str]) -> str:
    """SHA-256, as hex, over a line ``id``, a line ``content_hash`` of every document, by id."""
    digest = hashlib.sha256()
    for document_id in sorted(hashes):
        digest.update(f"{document_id}\n{hashes[document_id]}\n".encode())
    return digest.hexdigest()


def _whole(manifest: Manifest, path: Path) -> Manifest:
    if manifest.state != "whole":
        raise InvalidInput(
            f"The export to {path} was cut off. Run it again, and it goes on where it was.",
            field="archive",
        )
    return manifest


def is_file_name(name: str) -> bool:
    """Whether a file of an archive has such a name, the manifest left out."""
    return _NAME.fullmatch(name) is not None


def carried_notes(notes: Notes, collection: str) -> dict[str, Mapping[str, Any]]:
    """Key → value of the notes that go where the collection goes."""
    found = notes.under(collection, VOCABULARY)
    profile = notes.get(collection, profiles.KEY)
    return {key: note.value for key, note in found.items()} | (
        {profiles.KEY: profile.value} if profile else {}
    )


def _check_profile(value: Mapping[str, Any]) -> None:
    try:
        profiles.check_note(value)
    except InvalidInput as error:
        raise damaged(f"{NOTES} holds a profile that is none: {error.message}") from error


class Archive:
    """An archive opened for reading. It may come from anybody: nothing in it is believed unchecked, and
    memory stays within one file of it. Methods raise InvalidInput for what is damaged."""

    def __init__(self, path: Path) -> None:
        self._source: Source = open_source(path, MANIFEST)
        try:
            data = self._source.first(_MAX_FILE_BYTES[MANIFEST])
            self.manifest = _whole(Manifest.from_bytes(data), path)
            self._source.expect({file.name: file.bytes for file in self.manifest.files})
        except BaseException:
            self._source.close()
            raise

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._source.close()

    def check(
        self,
        *,
        stop: Callable[[], str] = lambda: "",
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Compare every file with its hash; ``progress`` is told bytes. Ends early where ``stop`` says."""
        stated = {file.name: file.sha256 for file in self.manifest.files}
        with reading():
            for name, stream in self._source.all():
                digest = hashlib.sha256()
                while block := stream.read(_BLOCK):
                    digest.update(block)
                    if progress:
                        progress(len(block))
                    if stop():
                        return
                if digest.hexdigest() != stated.pop(name):
                    raise damaged(f"{name} is not as it was written")
        if stated:
            raise damaged(f"{min(stated)} is missing")

    def notes(self) -> dict[str, Mapping[str, Any]]:
        """Key → value."""
        with self._source.open(NOTES) as stream:
            notes = json_object(read_at_most(stream, _MAX_FILE_BYTES[NOTES]), NOTES)
        for key, value in notes.items():
            if not (key.startswith(VOCABULARY) or key == profiles.KEY) or not isinstance(
                value, dict
            ):
                raise damaged(
                    f"{NOTES} holds {key[:80]!r}, which is no note of a vocabulary or profile"
                )
        if profiles.KEY in notes:
            _check_profile(notes[profiles.KEY])
        return notes

    def parts(self) -> Iterator["Part"]:
        """The documents, file by file."""
        for file in self.manifest.named("documents"):
            yield Part(self._source, file, self.manifest)


class Part:
    """A file of documents, and of their vectors."""

    def __init__(self, source: Source, file: File, manifest: Manifest) -> None:
        self._source = source
        self._file = file
        self._manifest = manifest

    def documents(self) -> Iterator[Document]:
        count = 0
        with self._source.open(self._file.name) as stream:
            for document, _, _ in read_lines(stream, self._file.name):
                count += 1
                yield document
        if count != self._file.entries:
            raise damaged(f"{self._file.name} holds {count} documents, not {self._file.entries}")

    def vectors(self) -> dict[bytes, Embedded]:
        """Key of a passage → what was embedded; empty in an archive without vectors."""
        if not self._manifest.with_vectors:
            return {}
        name = self._file.name.replace("documents", "vectors").replace(".jsonl", ".npz")
        with self._source.open(name) as stream:
            packed = read_at_most(stream, _MAX_FILE_BYTES["vectors"])
        try:
            return unpack(packed, self._manifest.recipe.dimensions)
        except InvalidInput as error:
            raise damaged(f"{name}: {error.message.rstrip('.')}") from error
