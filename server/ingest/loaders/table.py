"""CSV files: a document a row."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from server.documents import MAX_TEXT_CHARS, RESERVED_KEYS, Document
from server.errors import InvalidInput, TanyuanError
from server.ingest.bulk import LineError
from server.ingest.loaders.decoding import decode

_NAMES: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "_id", "document_id", "编号"),
    "title": ("title", "标题", "题目", "名称"),
    "text": ("text", "content", "body", "正文", "内容", "文本"),
    "source": ("source", "来源"),
    "acl": ("acl",),
}
_NOT_IN_KEYS = re.compile(r"[^\w.-]+|\.(?=\.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Headers of the columns that hold a row's id, title and text; empty: chosen by their names."""

    document_id: str = ""
    title: str = ""
    text: str = ""


def load_table(
    data: bytes,
    *,
    document_id: str,
    acl: Sequence[str],
    columns: Columns | None = None,
) -> Iterator[Document | LineError]:
    """A document for each row under the header, or the row's error.

    Columns that are none of id, title, text, source and acl (groups parted by ";") become metadata.
    Without a text column, the text is a line "header: value" for each cell. Without an id column, the
    row's number follows the file's ``document_id``, as in "prices.csv#3". Raises InvalidInput for a file
    without a usable header.
    """
    text = decode(data)
    csv.field_size_limit(MAX_TEXT_CHARS)  # the csv module has one limit for the whole process
    rows = csv.reader(io.StringIO(text), delimiter=_delimiter(text))
    header = _header(rows)
    places = _places(header, columns or Columns())
    number = 0
    while True:
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            unreadable = InvalidInput(f"The row can't be read: {error}.")
            yield LineError(line=rows.line_num, id=None, error=unreadable)
            continue
        if not any(cell.strip() for cell in cells):
            continue
        number += 1
        try:
            yield _document(
                header, places, cells, row_id=f"{document_id}#{number}", source=document_id, acl=acl
            )
        except TanyuanError as error:
            yield LineError(line=rows.line_num, id=None, error=error)


def _delimiter(text: str) -> str:
    first = text[: text.find("\n")] if "\n" in text else text
    return max(",\t;", key=first.count)


def _header(rows: Iterator[list[str]]) -> list[str]:
    try:
        header = [name.strip() for name in next(rows)]
    except (StopIteration, csv.Error) as error:
        raise InvalidInput("The file has no header row that can be read.") from error
    header = [name or f"column{at}" for at, name in enumerate(header, start=1)]
    twice = {name for name in header if header.count(name) > 1} if len(header) < 1000 else set()
    if twice or len(header) >= 1000:
        raise InvalidInput(
            f"The header names {min(twice)!r} twice."
            if twice
            else "The header has over 1,000 columns."
        )
    return header


def _places(header: Sequence[str], columns: Columns) -> dict[str, int]:
    """Which column holds what."""
    chosen = {"id": columns.document_id, "title": columns.title, "text": columns.text}
    lower = [name.lower() for name in header]
    places: dict[str, int] = {}
    for part, names in _NAMES.items():
        wanted = chosen.get(part)
        if wanted:
            if wanted not in header:
                raise InvalidInput(f"There is no column {wanted!r} for the {part}.", field=part)
            places[part] = header.index(wanted)
        else:
            found = [lower.index(name) for name in names if name in lower]
            if found and found[0] not in places.values():
                places[part] = found[0]
    return places


def _document(
    header: Sequence[str],
    places: Mapping[str, int],
    cells: Sequence[str],
    *,
    row_id: str,
    source: str,
    acl: Sequence[str],
) -> Document:
    if len(cells) > len(header):
        raise InvalidInput(f"The row has {len(cells)} cells under {len(header)} headers.")
    values = [cell.strip() for cell in cells] + [""] * (len(header) - len(cells))
    part = {name: values[at] for name, at in places.items()}
    rest = {
        name: value
        for at, (name, value) in enumerate(zip(header, values, strict=True))
        if value and at not in places.values()
    }
    if "text" in part:
        text = part["text"]
    else:
        left_out = {places.get("id"), places.get("acl")}
        text = "\n".join(
            f"{name}: {value}"
            for at, (name, value) in enumerate(zip(header, values, strict=True))
            if value and at not in left_out
        )
    if "acl" in part:
        acl = [group.strip() for group in part["acl"].split(";") if group.strip()]
    return Document.create(
        id=part.get("id") or row_id,
        text=text,
        title=part.get("title", ""),
        source=part.get("source") or source,
        acl=acl,
        metadata={_key(name, header): value for name, value in rest.items()},
    )


def _key(name: str, header: Sequence[str]) -> str:
    """The header as metadata's key, which has no blanks or signs in it."""
    key = _NOT_IN_KEYS.sub("_", name).strip("._-")[:60].rstrip(".")
    key = key or f"column{header.index(name) + 1}"
    return f"{key}_" if key in RESERVED_KEYS else key
