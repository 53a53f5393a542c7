"""Filters compiled for the two retrievers: to a tantivy query, and to a mask over vectors.

Both read the same labels, so both are exact. tantivy knows no range over text, so a range becomes the
values within it that the collection has.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from server.errors import InvalidInput
from server.stores.filters import All, Any, Exists, Filter, Not, Range, Terms, encode_value

if TYPE_CHECKING:
    import tantivy

Mask = NDArray[np.bool_]
Leaf = Terms | Range | Exists

LABELS_FIELD = "labels"
_SEPARATOR = "\x1f"  # stands in no key and, being a control character, in no value


def label_terms(labels: Sequence[tuple[str, str]]) -> list[str]:
    """The terms of a chunk's labels field: one a key, for Exists, and one a key and value."""
    keys = dict.fromkeys(key for key, _ in labels)
    return [*keys, *(f"{key}{_SEPARATOR}{value}" for key, value in labels)]


@dataclass(frozen=True, slots=True)
class LabelCondition:
    """A leaf of a filter in SQL over the labels table.

    It names a leaf better than the leaf itself does: in Python, Terms of 1 and of True are equal.
    """

    key: str
    sql: str  # over ``value``
    parameters: tuple[str, ...]


def label_condition(leaf: Leaf) -> LabelCondition:
    match leaf:
        case Terms(key, values):
            encoded = json.dumps(sorted({encode_value(value) for value in values}))
            return LabelCondition(key, "value IN (SELECT value FROM json_each(?))", (encoded,))
        case Range():
            return _range_condition(leaf)
        case Exists(key):
            return LabelCondition(key, "1", ())


def _range_condition(leaf: Range) -> LabelCondition:
    sql: list[str] = []
    parameters: list[str] = []
    for operator, bound in (
        (">=", leaf.gte),
        (">", leaf.gt),
        ("<=", leaf.lte),
        ("<", leaf.lt),
    ):
        if bound is not None:
            sql.append(f"value {operator} ?")
            parameters.append(encode_value(bound))
    kinds = {encoded[0] for encoded in parameters}
    if len(kinds) > 1:
        raise InvalidInput(f"The range over {leaf.key} mixes types of bounds.", field="filters")
    # One bound alone would reach into the types that sort before or after its own.
    for kind in kinds:
        sql += ["value >= ?", "value < ?"]
        parameters += [kind, chr(ord(kind) + 1)]
    return LabelCondition(leaf.key, " AND ".join(sql) or "1", tuple(parameters))


def text_query(
    condition: Filter, schema: "tantivy.Schema", connection: sqlite3.Connection
) -> "tantivy.Query":
    """The filter as a query whose scores are to be left out."""
    import tantivy  # noqa: PLC0415 - loaded with the store only

    query, occur = tantivy.Query, tantivy.Occur

    def compiled(part: Filter) -> "tantivy.Query":
        match part:
            case Terms(key, values):
                found = [f"{key}{_SEPARATOR}{encode_value(value)}" for value in values]
                return query.term_set_query(schema, LABELS_FIELD, found)
            case Exists(key):
                return query.term_query(schema, LABELS_FIELD, key, "basic")
            case Range():
                found = [f"{part.key}{_SEPARATOR}{value}" for value in values_within(part)]
                return query.term_set_query(schema, LABELS_FIELD, found)
            case Not(inner):
                # A query of exclusions alone matches nothing, so everything is let in first.
                return query.boolean_query(
                    [(occur.Must, query.all_query()), (occur.MustNot, compiled(inner))]
                )
            case All(parts):
                everything = (occur.Must, query.all_query())
                return query.boolean_query(
                    [everything, *((occur.Must, compiled(each)) for each in parts)]
                )
            case Any(parts):
                return query.boolean_query([(occur.Should, compiled(each)) for each in parts])

    def values_within(part: Range) -> list[str]:
        wanted = label_condition(part)
        rows = connection.execute(
            f"SELECT DISTINCT value FROM labels WHERE key = ? AND {wanted.sql}",  # noqa: S608
            (wanted.key, *wanted.parameters),
        )
        return [value for (value,) in rows]

    return compiled(condition)


def versions_with(
    wanted: LabelCondition, after: int, connection: sqlite3.Connection
) -> NDArray[np.int64]:
    """Document versions above ``after`` that have the label, ascending."""
    rows = connection.execute(
        f"SELECT version FROM labels WHERE key = ? AND {wanted.sql} AND version > ?",  # noqa: S608
        (wanted.key, *wanted.parameters, after),
    )
    return np.unique(np.fromiter((version for (version,) in rows), dtype=np.int64))


def mask(condition: Filter, leaf_mask: Callable[[LabelCondition], Mask], size: int) -> Mask:
    """The filter over ``size`` items, from masks of its leaves. The result is not to be changed."""
    match condition:
        case Not(inner):
            return ~mask(inner, leaf_mask, size)
        case All(parts):
            result = np.ones(size, dtype=np.bool_)
            for part in parts:
                result = result & mask(part, leaf_mask, size)
            return result
        case Any(parts):
            result = np.zeros(size, dtype=np.bool_)
            for part in parts:
                result = result | mask(part, leaf_mask, size)
            return result
        case Terms() | Range() | Exists():
            return leaf_mask(label_condition(condition))


def labels_by_key(labels: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    """(key, encoded value) pairs."""
    return [(key, value) for key, values in labels.items() for value in values]
