"""Filters as Milvus expressions over the labels that a row carries.

A row's labels are hashed to tokens of 16 hex digits: whatever a label holds, no expression can be broken
by it, and a row's size is known. A server keeps them as ARRAY<VARCHAR> under an inverted index. Milvus
Lite evaluates arrays row by row in Python, after turning whole rows into lists (0.8 s at 20,000 rows), so
there they stand in one text between bars, which ``like`` finds (0.03 s).

Hashes may meet, once in 10^19 pairs, so a hit counts only after the database has said that its labels pass.
"""

import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from server.stores.embedded.filters import (
    LABELS_FIELD,
    Leaf,
    label_condition,
    label_terms,
    versions_with,
)
from server.stores.filters import All, Exists, Filter, Not, Range, Terms, encode_value
from server.stores.filters import Any as AnyOf

MOST_LABELS = 3_800  # of a row: an array takes 4,096, a text 65,535 bytes
_MOST_ARRAY = 1_000  # tokens of one leaf; past it, the versions that have one of them
_MOST_LIKE = 32  # each is a pass over the texts
_MOST_VERSIONS = 50_000
_MOST_VERSIONS_LITE = 1_000  # it keeps 256 expressions, parsed: 100 bytes a number
_DEEPEST = 20
_EVERYTHING, _NOTHING = "version >= 0", "version < 0"


class BeyondMilvus(Exception):
    """What Milvus can't be asked, or can't answer exactly: the database is passed over instead."""


def tokens_of(labels: Sequence[tuple[str, str]]) -> list[str] | None:
    """A row's tokens; None when they are more than a row takes."""
    terms = label_terms(labels)
    return None if len(terms) > MOST_LABELS else [_token(term) for term in terms]


def stored(tokens: Sequence[str], *, array: bool) -> Any:
    """Tokens as the labels field takes them."""
    return list(tokens) if array else f"|{'|'.join(tokens)}|"


def expression(condition: Filter, connection: sqlite3.Connection, *, array: bool) -> str:
    """Raises BeyondMilvus where it would be too long or too deep."""
    most = _MOST_ARRAY if array else _MOST_LIKE

    def compiled(part: Filter, depth: int) -> str:
        if depth > _DEEPEST:
            raise BeyondMilvus
        match part:
            case Not(inner):
                return f"not ({compiled(inner, depth + 1)})"
            case All(parts):
                inside = [f"({compiled(each, depth + 1)})" for each in parts]
                return " and ".join(inside) or _EVERYTHING
            case AnyOf(parts):
                inside = [f"({compiled(each, depth + 1)})" for each in parts]
                return " or ".join(inside) or _NOTHING
            case Terms() | Range() | Exists():
                terms = _terms(part, connection, most)
                if terms is None:
                    return _versions(part, connection, array=array)
                return _holds(terms, array=array)

    return compiled(condition, 0)


def _terms(leaf: Leaf, connection: sqlite3.Connection, most: int) -> list[str] | None:
    """Label terms of which a row must have one; None when they are more than ``most``."""
    match leaf:
        case Exists(key):
            return [key]
        case Terms(key, values):
            terms = label_terms([(key, encode_value(value)) for value in values])[1:]
        case Range():
            wanted = label_condition(leaf)
            rows = connection.execute(
                f"SELECT DISTINCT value FROM labels WHERE key = ? AND {wanted.sql} LIMIT ?",  # noqa: S608
                (leaf.key, *wanted.parameters, most + 1),
            )
            terms = label_terms([(leaf.key, value) for (value,) in rows])[1:]
    return terms if len(terms) <= most else None


def _holds(terms: Sequence[str], *, array: bool) -> str:
    tokens = [_token(term) for term in terms]
    if not tokens:
        return _NOTHING
    if array:
        listed = ", ".join(f'"{token}"' for token in tokens)
        return f"array_contains_any({LABELS_FIELD}, [{listed}])"
    return " or ".join(f'{LABELS_FIELD} like "%|{token}|%"' for token in tokens)


def _versions(leaf: Leaf, connection: sqlite3.Connection, *, array: bool) -> str:
    versions = versions_with(label_condition(leaf), -1, connection)
    if len(versions) > (_MOST_VERSIONS if array else _MOST_VERSIONS_LITE):
        raise BeyondMilvus
    return f"version in [{', '.join(map(str, versions.tolist()))}]" if len(versions) else _NOTHING


def _token(term: str) -> str:
    return blake2b(term.encode(), digest_size=8).hexdigest()
