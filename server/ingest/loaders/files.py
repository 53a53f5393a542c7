"""Files to documents: which loader reads a file, and which files a folder holds."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from server.documents import MAX_ID_BYTES, PUBLIC, Document
from server.errors import InvalidInput, PayloadTooLarge
from server.ingest.bulk import LineError, read_documents
from server.ingest.loaders.decoding import decode
from server.ingest.loaders.html import load_html
from server.ingest.loaders.markdown import load_markdown
from server.ingest.loaders.table import Columns, load_table

MAX_FILE_BYTES = 64 * 1024 * 1024  # of a file that is read as a whole; JSONL has no limit
_KINDS = {
    **dict.fromkeys((".txt", ".text"), "txt"),
    **dict.fromkeys((".md", ".markdown"), "md"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    **dict.fromkeys((".csv", ".tsv"), "csv"),
}


@dataclass(frozen=True, slots=True)
class Found:
    """A file and the name that its documents are known by: its path below the folder that was
    given, in POSIX form, or its own name."""

    path: Path
    name: str

    @property
    def kind(self) -> str | None:
        """ "txt", "md", "html", "jsonl" or "csv"; None where no loader reads it."""
        return kind_of(self.name)


def kind_of(name: str) -> str | None:
    """The kind of file that a name's ending tells of; None where no loader reads it."""
    return _KINDS.get(PurePosixPath(name).suffix.lower())


def find_files(paths: Sequence[Path]) -> Iterator[Found]:
    """The files given and those in the folders given, in an order that depends on names alone.

    Hidden files and folders in a folder are left out, and links to folders aren't followed. Raises
    InvalidInput for a path that doesn't exist, and OSError for a folder that can't be read.
    """
    for path in paths:
        if not path.exists():
            raise InvalidInput(f"There is no file or folder {path}.")
        if not path.is_dir():
            yield Found(path, path.name)
            continue
        for folder, folders, names in os.walk(path, onerror=_raise):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                file = Path(folder, name)
                if not name.startswith(".") and file.is_file():
                    yield Found(file, file.relative_to(path).as_posix())


def _raise(error: OSError) -> None:
    raise error


def load_documents(
    stream: IO[bytes],
    *,
    name: str,
    acl: Sequence[str] = (PUBLIC,),
    columns: Columns | None = None,
) -> Iterator[Document | LineError]:
    """The documents of a file, or the errors of its lines or rows.

    ``name``: a path in POSIX form; its ending tells the kind, and ids and titles are made of it.
    ``acl``: for documents that don't state their own. Raises InvalidInput where the file as a whole
    can't be read, PayloadTooLarge.
    """
    kind = kind_of(name)
    if kind is None:
        known = ", ".join(suffix.removeprefix(".") for suffix in _KINDS)
        raise InvalidInput(f"{name} is of a kind that can't be read; these can: {known}.")
    if kind == "jsonl":
        yield from read_documents(stream, clean=True, acl=acl)
        return
    data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise PayloadTooLarge(
            f"{name} has more than {MAX_FILE_BYTES:,} bytes; split it, or turn it into JSONL."
        )
    own_id = file_id(name)
    title = PurePosixPath(name).stem
    if kind == "csv":
        yield from load_table(data, document_id=own_id, acl=acl, columns=columns)
    elif kind == "md":
        yield load_markdown(data, document_id=own_id, title=title, acl=acl)
    elif kind == "html":
        yield load_html(data, document_id=own_id, title=title, acl=acl)
    else:
        yield Document.create(id=own_id, text=decode(data), title=title, source=own_id, acl=acl)


def file_id(name: str) -> str:
    """A document's id made of its file's name; a name that is too long ends in its hash."""
    if len(name.encode(errors="surrogatepass")) <= MAX_ID_BYTES:
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"{name.encode()[: MAX_ID_BYTES - 17].decode(errors='ignore').rstrip()}~{digest}"
