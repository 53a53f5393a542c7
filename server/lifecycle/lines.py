"""The lines of an archive: a document each, as JSON."""

import json
from collections.abc import Iterator
from typing import IO, Any

from server.documents import Document, StoredDocument
from server.errors import InvalidInput, TanyuanError
from server.ingest.bulk import document_from_json

MAX_LINE_BYTES = 128 * 1024 * 1024
_STATE_FIELDS = frozenset({"content_hash", "revision", "updated_at"})


def damaged(what: str) -> InvalidInput:
    return InvalidInput(
        f"The archive is damaged: {what}. Take another copy of it, or export the collection again.",
        field="archive",
    )


def json_object(data: bytes, where: str) -> dict[str, Any]:
    """Raises InvalidInput, naming where the bytes stand."""
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise damaged(f"{where} is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise damaged(f"{where} is not a JSON object")
    return value


def read_lines(stream: IO[bytes], name: str) -> Iterator[tuple[Document, str, bytes]]:
    """Document, content hash and the line itself, of a documents file. Memory: one line.

    Raises InvalidInput for a line that is no document, or not the one that was exported.
    """
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        where = f"{name}, line {number}"
        if not line.endswith(b"\n"):
            raise damaged(f"{where} is cut off or longer than {MAX_LINE_BYTES:,} bytes")
        fields = json_object(line, where)
        stated = str(fields.get("content_hash"))
        try:
            document = document_from_json(
                {name: value for name, value in fields.items() if name not in _STATE_FIELDS}
            )
        except TanyuanError as error:
            raise damaged(f"{where}: {error.message.rstrip('.')}") from error
        if document.content_hash != stated:
            raise damaged(f"{where}: {document.id!r} is not the document that was exported")
        yield document, stated, line


def write_line(stored: StoredDocument, content_hash: str) -> bytes:
    fields = stored.document.as_json() | {
        "content_hash": content_hash,
        "revision": stored.revision,
        "updated_at": stored.updated_at,
    }
    line = json.dumps(fields, ensure_ascii=False).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise InvalidInput(
            f"Document {stored.document.id!r} has {len(line):,} bytes as a line of JSON; an archive "
            f"takes {MAX_LINE_BYTES:,}.",
            field="document",
        )
    return line
