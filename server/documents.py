"""Document and Chunk: what a user submits, and the indexed unit derived from it."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.errors import InvalidInput
from server.sparse import SparseWeights
from server.texts import check_text

MAX_TEXT_CHARS = 10_000_000
MAX_TITLE_CHARS = 1_000
MAX_SOURCE_CHARS = 2_000
MAX_ID_BYTES = 400  # Elasticsearch takes 512 for a chunk id, which adds a position.
MAX_GROUPS = 1_000
MAX_METADATA_KEYS = 100
MAX_METADATA_VALUES = 1_000
MAX_VALUE_CHARS = 2_000
MAX_PATH_CHARS = 200  # of the heading path, in what models read
PUBLIC = "public"

# Names that filters use for a document's own parts, so metadata may not use them.
RESERVED_KEYS = frozenset({"acl", "document_id", "source", "title", "text"})

# The text fields of an indexed chunk, each a sequence of terms made by the one analyzer.
# "title_*" hold the document's title and the chunk's heading path.
TEXT_FIELDS = ("words", "bigrams", "title_words", "title_bigrams")

Scalar = str | int | float | bool
MetadataValue = Scalar | tuple[Scalar, ...]
Vector = NDArray[np.float32]
Vectors = NDArray[np.float32]  # one a row

_KEY = re.compile(r"[^\W_][\w.-]{0,63}")
_COLLECTION = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def check_collection(name: str) -> str:
    """Return a collection's name, or raise InvalidInput."""
    if not _COLLECTION.fullmatch(name):
        raise InvalidInput(
            "A collection's name has 1 to 64 of a-z, 0-9, '_' and '-' and starts with a letter or "
            f"digit; got {name[:80]!r}.",
            field="collection",
        )
    return name


def check_document_id(document_id: str) -> str:
    """Return a document's id, or raise InvalidInput."""
    check_text(document_id, field="id", max_chars=MAX_ID_BYTES)
    if not document_id or document_id != document_id.strip() or "\n" in document_id:
        raise InvalidInput("id is empty, holds a line break, or starts or ends blank.", field="id")
    if len(document_id.encode()) > MAX_ID_BYTES:
        raise InvalidInput(f"id has more than {MAX_ID_BYTES} bytes in UTF-8.", field="id")
    if any(part in {".", ".."} for part in document_id.split("/")):
        raise InvalidInput("id has '.' or '..' as a path part, which URLs drop.", field="id")
    return document_id


def check_group(group: str) -> str:
    """Return a permission group's name, or raise InvalidInput."""
    check_text(group, field="acl", max_chars=200)
    if not group or group != group.strip() or "," in group or "\n" in group:
        raise InvalidInput(
            f"acl holds {group!r}: a group is not empty and has no comma, line break or outer blank.",
            field="acl",
        )
    return group


def _check_scalar(key: str, value: object) -> Scalar:
    if isinstance(value, str):
        return check_text(value, field=f"metadata.{key}", max_chars=MAX_VALUE_CHARS)
    if isinstance(value, bool | int):
        if abs(value) > 2**53:
            raise InvalidInput(
                f"metadata.{key} is past 2^53; send it as a string.", field="metadata"
            )
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise InvalidInput(
        f"metadata.{key} must be a string, a finite number, a boolean, or a list of these.",
        field="metadata",
    )


def check_metadata(metadata: Mapping[str, Any]) -> dict[str, MetadataValue]:
    """Return metadata with lists as tuples and nulls left out, or raise InvalidInput."""
    if len(metadata) > MAX_METADATA_KEYS:
        raise InvalidInput(f"metadata has more than {MAX_METADATA_KEYS} keys.", field="metadata")
    checked: dict[str, MetadataValue] = {}
    for key, value in metadata.items():
        if not _KEY.fullmatch(key) or key in RESERVED_KEYS or ".." in key or key.endswith("."):
            raise InvalidInput(
                f"metadata has the key {key[:80]!r}: a key has 1 to 64 letters, digits, '_', '-' "
                f"or single dots, starts with a letter or digit and is none of "
                f"{', '.join(sorted(RESERVED_KEYS))}.",
                field="metadata",
            )
        if value is None:
            continue
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            if len(value) > MAX_METADATA_VALUES:
                raise InvalidInput(
                    f"metadata.{key} has more than {MAX_METADATA_VALUES} values.", field="metadata"
                )
            checked[key] = tuple(_check_scalar(key, item) for item in value)
        else:
            checked[key] = _check_scalar(key, value)
    return checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A whole document as submitted. Construct with ``Document.create``, which validates."""

    id: str
    text: str
    title: str = ""
    source: str = ""
    acl: tuple[str, ...] = (PUBLIC,)
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        *,
        id: str,  # noqa: A002 - the API's own name
        text: str,
        title: str = "",
        source: str = "",
        acl: Sequence[str] = (PUBLIC,),
        metadata: Mapping[str, Any] | None = None,
    ) -> "Document":
        """Validate and return. An empty ``acl`` means that nobody but an admin may see it.

        Raises InvalidInput.
        """
        if len(acl) > MAX_GROUPS:
            raise InvalidInput(f"acl has more than {MAX_GROUPS} groups.", field="acl")
        return cls(
            id=check_document_id(id),
            text=check_text(text, field="text", max_chars=MAX_TEXT_CHARS),
            title=check_text(title, field="title", max_chars=MAX_TITLE_CHARS),
            source=check_text(source, field="source", max_chars=MAX_SOURCE_CHARS),
            acl=tuple(sorted({check_group(group) for group in acl})),
            metadata=check_metadata(metadata or {}),
        )

    @property
    def content_hash(self) -> str:
        """SHA-256, as hex, of everything that was submitted."""
        canonical = json.dumps(self.as_json(), ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """The document as plain JSON values, as ``create`` takes them."""
        return {
            "id": self.id,
            "title": self.title,
            "text": self.text,
            "source": self.source,
            "acl": list(self.acl),
            "metadata": {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in self.metadata.items()
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDocument:
    """A document as the store keeps it."""

    document: Document
    revision: int  # 1 for the first write of an id, one more at every change or delete
    chunks: int
    updated_at: str  # ISO 8601, UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A part of a document; ``start`` and ``end`` are code-point offsets into the document's text.

    ``text`` is exactly ``document.text[start:end]``.
    """

    document_id: str
    position: int  # 0 for the first chunk of its document
    text: str
    start: int
    end: int
    headings: tuple[str, ...] = ()  # outermost first

    @property
    def id(self) -> str:
        return f"{self.document_id}:{self.position}"


def document_id_of(chunk_id: str) -> str:
    """The document's id in a chunk's id (``document_id:position``)."""
    return chunk_id.rpartition(":")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedChunk:
    """A chunk with what was derived from it.

    ``terms``: TEXT_FIELDS → terms in order, none empty, none with white space in it.
    ``vector``: float32 of shape (dimensions,), of length 1, or None where the recipe has no embedder.
    ``windows``: vectors of the chunk's sentence windows, float32 of shape (n, dimensions), n at least
    2, rows of length 1; None where it has no two windows or the recipe none.
    ``sparse``: the chunk's sparse weights, None where the recipe has none.
    """

    chunk: Chunk
    terms: Mapping[str, tuple[str, ...]]
    vector: Vector | None
    windows: Vectors | None = None
    sparse: SparseWeights | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A chunk with what a hit shows of its document.

    ``windows``: as of an IndexedChunk, rounded, where they were asked for.
    """

    chunk: Chunk
    title: str
    source: str
    metadata: Mapping[str, MetadataValue]
    revision: int
    windows: Vectors | None = None

    @property
    def full_text(self) -> str:
        """As models read it."""
        return passage_text(self.title, self.chunk.headings, self.chunk.text)


def heading_path(title: str, headings: tuple[str, ...]) -> str:
    """The title and the headings, outermost first, joined by " > "; a repeated one stands once."""
    path = [part for part in (title, *headings) if part]
    return " > ".join(part for at, part in enumerate(path) if at == 0 or part != path[at - 1])


def passage_text(title: str, headings: tuple[str, ...], text: str) -> str:
    """A chunk as models read it, for the embedder and the reranker alike.

    The heading path stands on a line before the text, cut at MAX_PATH_CHARS so that it never crowds
    the text out of what a model reads; without a path there is no such line.
    """
    path = heading_path(title, headings)[:MAX_PATH_CHARS]
    return f"{path}\n{text}" if path else text
