"""Filters on a document's labels, the same for every retriever and every store.

A *label* is a key with a value of a document: every metadata entry, and ``acl``, ``document_id`` and
``source``. A value is encoded as a string that keeps its type and order, so that one keyword index
serves exact and range filters: ``s`` + text, ``n`` + 16 hex digits that sort as the numbers do,
``b0``/``b1``.
"""

import struct
from dataclasses import dataclass

from server.documents import Document, Scalar


@dataclass(frozen=True, slots=True)
class Terms:
    """The document has one of ``values`` under ``key``; no values: nothing matches."""

    key: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A value under ``key`` lies within the bounds that are not None.

    Bounds are all numbers or all strings (ISO dates sort as strings do).
    """

    key: str
    gte: Scalar | None = None
    gt: Scalar | None = None
    lte: Scalar | None = None
    lt: Scalar | None = None


@dataclass(frozen=True, slots=True)
class Exists:
    """The document has a value under ``key``."""

    key: str


@dataclass(frozen=True, slots=True)
class Not:
    filter: "Filter"


@dataclass(frozen=True, slots=True)
class All:
    """Every one holds; with none, everything matches."""

    filters: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Any:
    """At least one holds; with none, nothing matches."""

    filters: tuple["Filter", ...]


Filter = Terms | Range | Exists | Not | All | Any

ALWAYS = "document_id"  # a key that every chunk is labelled with


def encode_value(value: Scalar) -> str:
    """The label form of a value. Integers and floats that are equal encode equally."""
    if isinstance(value, bool):
        return f"b{int(value)}"
    if isinstance(value, str):
        return f"s{value}"
    # IEEE 754 bits in an order that unsigned comparison keeps: flip all bits of negatives, the sign
    # bit of the others. -0.0 is made 0.0 first.
    bits = struct.unpack(">Q", struct.pack(">d", float(value) + 0.0))[0]
    bits = bits ^ 0xFFFFFFFFFFFFFFFF if bits >> 63 else bits | 1 << 63
    return f"n{bits:016x}"


def labels_of(document: Document) -> dict[str, tuple[str, ...]]:
    """Key → encoded values of a document, metadata, acl, document_id and source together."""
    labels = {
        key: tuple(
            sorted({encode_value(v) for v in (value if isinstance(value, tuple) else (value,))})
        )
        for key, value in document.metadata.items()
    }
    labels["acl"] = tuple(encode_value(group) for group in document.acl)
    labels[ALWAYS] = (encode_value(document.id),)
    if document.source:
        labels["source"] = (encode_value(document.source),)
    return {key: values for key, values in labels.items() if values}
