"""Documents from NDJSON: one JSON object a line, for the bulk route and for JSONL files alike.

A bad line is one LineError; the lines after it are read as if it weren't there.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, NoReturn

from server.documents import PUBLIC, Document, check_document_id
from server.errors import InvalidInput, PayloadTooLarge, TanyuanError
from server.texts import clean_text

MAX_LINE_BYTES = 32 * 1024 * 1024
_SKIP_BYTES = 1024 * 1024  # how much of an overlong line is read at a time
_BOM = b"\xef\xbb\xbf"
_TEXT_FIELDS = ("title", "text", "source")
_FIELDS = frozenset({"id", "_id", "title", "text", "source", "acl", "metadata"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LineError:
    """A line that is no document. ``line`` counts from 1; ``id`` is None where it can't be told."""

    line: int
    id: str | None
    error: TanyuanError


def read_documents(
    stream: IO[bytes],
    *,
    clean: bool = False,
    acl: Sequence[str] = (PUBLIC,),
    max_line_bytes: int = MAX_LINE_BYTES,
) -> Iterator[Document | LineError]:
    """Each line's document or error, in order; blank lines are passed over. Memory: one line.

    ``clean`` replaces control characters by blanks, for files as found, instead of refusing them.
    ``acl``: for documents that don't state their own.
    """
    for _, item in read_numbered(stream, clean=clean, acl=acl, max_line_bytes=max_line_bytes):
        yield item


def read_numbered(
    stream: IO[bytes],
    *,
    clean: bool = False,
    acl: Sequence[str] = (PUBLIC,),
    max_line_bytes: int = MAX_LINE_BYTES,
) -> Iterator[tuple[int, Document | LineError]]:
    """As ``read_documents``, each with its line's number (from 1), for those that report later."""
    number = 0
    while line := stream.readline(max_line_bytes + 1):
        number += 1
        if len(line) > max_line_bytes and not line.endswith(b"\n"):
            _skip_line(stream)
            too_long = PayloadTooLarge(
                f"The line has more than {max_line_bytes:,} bytes; split the document."
            )
            yield number, LineError(line=number, id=None, error=too_long)
            continue
        if number == 1:
            line = line.removeprefix(_BOM)
        if line.strip():
            yield number, _read_line(number, line, clean=clean, acl=acl)


def document_from_json(
    fields: Mapping[str, Any], *, clean: bool = False, acl: Sequence[str] = (PUBLIC,)
) -> Document:
    """A document from the JSON object that the bulk route and JSONL files hold.

    ``id`` (or ``_id``) and ``text`` are required; ``title``, ``source``, ``acl``, ``metadata`` are
    not. Raises InvalidInput naming the field.
    """
    unknown = sorted(fields.keys() - _FIELDS)
    if unknown:
        raise InvalidInput(
            f"Unknown field {unknown[0][:80]!r}; a document has id, title, text, source, acl and "
            "metadata, and what is your own goes into metadata.",
            field="document",
        )
    if ("id" in fields) == ("_id" in fields):
        raise InvalidInput("A document has exactly one of 'id' and '_id'.", field="id")
    if "text" not in fields:
        raise InvalidInput("'text' is missing; it may be empty.", field="text")
    values = {"title": "", "source": "", **fields}
    parts: dict[str, Any] = {name: _string(values[name], name) for name in _TEXT_FIELDS}
    if clean:
        parts = {name: clean_text(value) for name, value in parts.items()}
    parts["acl"] = fields.get("acl", list(acl))
    if not isinstance(parts["acl"], list) or not all(isinstance(g, str) for g in parts["acl"]):
        raise InvalidInput("'acl' must be a list of strings, the groups.", field="acl")
    if "metadata" in fields:
        if not isinstance(fields["metadata"], dict):
            raise InvalidInput("'metadata' must be an object.", field="metadata")
        parts["metadata"] = fields["metadata"]
    document_id = _string(fields.get("id", fields.get("_id")), "id")
    return Document.create(id=document_id, **parts)


def _string(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{name!r} must be a string.", field=name)
    return value


def _skip_line(stream: IO[bytes]) -> None:
    while (rest := stream.readline(_SKIP_BYTES)) and not rest.endswith(b"\n"):
        pass


def _read_line(
    number: int, line: bytes, *, clean: bool, acl: Sequence[str]
) -> Document | LineError:
    fields: Any = None
    try:
        fields = _parse(line)
        if not isinstance(fields, dict):
            raise InvalidInput("The line must be a JSON object.", field="document")
        return document_from_json(fields, clean=clean, acl=acl)
    except TanyuanError as error:
        return LineError(line=number, id=_known_id(fields), error=error)


def _parse(line: bytes) -> Any:
    try:
        return json.loads(
            line.decode(), object_pairs_hook=_unique_keys, parse_constant=_no_constant
        )
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"The line is not UTF-8: byte {error.start} can't be read.", field="document"
        ) from error
    except RecursionError as error:
        raise InvalidInput("The line is nested too deeply.", field="document") from error
    except ValueError as error:  # broken JSON, or a number of thousands of digits
        raise InvalidInput(f"The line is not JSON: {error}.", field="document") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise InvalidInput(f"The key {twice[:80]!r} stands twice in an object.", field="document")
    return unique


def _no_constant(name: str) -> NoReturn:
    raise InvalidInput(f"{name} is not a JSON number.", field="document")


def _known_id(fields: object) -> str | None:
    """The line's id where it can be told and may be shown."""
    if isinstance(fields, dict):
        document_id = fields.get("id", fields.get("_id"))
        if isinstance(document_id, str):
            try:
                return check_document_id(document_id)
            except InvalidInput:
                return None
    return None
