"""LexiconNotes: collections' lexicons kept in the store, so that one is there right after a restart, and
is made by one server for all."""

import json
import zlib
from base64 import b64encode
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Base64Bytes, TypeAdapter
from pydantic.dataclasses import dataclass as checked

from server.retrieval.lexicon import Entry, Kind, Lexicon
from server.stores.notes import Note, Notes

KEY = "lexicon"
FORMAT = 1  # another one with every change of what is written, and of what the builder finds

_MAX_BYTES = 200_000_000  # of a lexicon as JSON, which packs to a tenth or less


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLexicon:
    """``mark``: the store's when it was begun. ``made``: when it was done, in seconds of the epoch, and
    ``took``: how many it took. ``version``: the note's."""

    lexicon: Lexicon
    mark: str
    made: float
    took: float
    version: int


@checked(frozen=True, slots=True)
class _Header:
    format: Literal[1]
    mark: str
    made: float
    took: float
    packed: Base64Bytes


@checked(frozen=True, slots=True)
class _Content:
    """``entries``: text, kind, and (access class, documents of it)."""

    classes: list[frozenset[str]]
    sizes: list[int]
    entries: list[tuple[str, Kind, tuple[tuple[int, int], ...]]]


_HEADER = TypeAdapter(_Header)
_CONTENT = TypeAdapter(_Content)


class LexiconNotes:
    """Thread-safe, and safe with other processes, the last of which wins. Any method may raise
    CollectionNotFound, StoreUnavailable or StoreTimeout."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def newer(self, collection: str, than: int) -> KeptLexicon | None:
        """The lexicon that is kept, unless its version is ``than`` or it is none that this program
        can read: such a one is made anew."""
        note = self._notes.get(collection, KEY)
        if note is None or note.version == than:
            return None
        try:
            return _read(note)
        except (ValueError, zlib.error):  # pydantic's errors are the former
            return None

    def put(self, collection: str, lexicon: Lexicon, *, mark: str, made: float, took: float) -> int:
        """Keep one; its version. Raises InvalidInput for one that is too big for a note."""
        return self._notes.put(
            collection,
            KEY,
            {
                "format": FORMAT,
                "mark": mark,
                "made": made,
                "took": took,
                "packed": _packed(lexicon),
            },
        ).version


def _packed(lexicon: Lexicon) -> str:
    content: dict[str, Any] = {
        "classes": [sorted(groups or ()) for groups in lexicon.classes],
        "sizes": lexicon.sizes,
        "entries": [(entry.text, entry.kind, entry.counts) for entry in lexicon.entries],
    }
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return b64encode(zlib.compress(data)).decode()


def _read(note: Note) -> KeptLexicon:
    header = _HEADER.validate_python(note.value)
    unpacking = zlib.decompressobj()
    content = _CONTENT.validate_json(unpacking.decompress(header.packed, _MAX_BYTES))
    known = len(content.classes)
    if len(content.sizes) != known or any(
        not 0 <= access < known for _, _, counts in content.entries for access, _ in counts
    ):
        raise ValueError("An access class that is not there is counted.")
    entries = [
        Entry(text=text, kind=kind, counts=counts)
        for text, kind, counts in content.entries
        if counts
    ]
    return KeptLexicon(
        lexicon=Lexicon(entries, content.classes, content.sizes),
        mark=header.mark,
        made=header.made,
        took=header.took,
        version=note.version,
    )
