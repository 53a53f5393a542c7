"""Exact cosines from the database: of the hits that Milvus found, or of every vector."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.documents import Vector
from server.stores.embedded.filters import label_condition
from server.stores.filters import All, Any, Filter, Not

_BATCH = 5_000
_COLUMNS = "c.id, d.document_id || ':' || c.position, CAST(v.vector AS BLOB)"
_JOINED = "JOIN vectors v ON v.chunk = c.id JOIN documents d ON d.version = c.version"


@dataclass(frozen=True, slots=True)
class Scored:
    """What the database says of hits: those that pass, by chunk number; and those that don't."""

    hits: dict[int, tuple[str, float]]  # chunk id and cosine
    refused: frozenset[int]  # that the filter does not let pass, or whose vector is damaged


def score(
    numbers: Sequence[int],
    vector: Vector,
    condition: Filter | None,
    connection: sqlite3.Connection,
    generation: int,
) -> Scored:
    """Numbers that the generation does not have are in neither part."""
    passing, parameters = _sql(condition)
    rows = connection.execute(
        f"SELECT {_COLUMNS}, {passing} FROM json_each(?) j "  # noqa: S608
        f"CROSS JOIN chunks c ON c.id = j.value AND c.generation = ? {_JOINED}",
        (*parameters, json.dumps(list(numbers)), generation),
    ).fetchall()
    allowed = [row for row in rows if row[3]]
    cosines, sound = _cosines([row[2] for row in allowed], vector)
    hits = {
        number: (chunk_id, cosine)
        for (number, chunk_id, *_), cosine, good in zip(
            allowed, cosines.tolist(), sound.tolist(), strict=True
        )
        if good
    }
    return Scored(hits, frozenset(row[0] for row in rows) - hits.keys())


def search(
    vector: Vector,
    condition: Filter | None,
    k: int,
    connection: sqlite3.Connection,
    generation: int,
) -> list[tuple[str, float]]:
    """(chunk id, cosine) over every vector that passes: a pass over the table, for what no expression
    can say."""
    found: list[tuple[str, float]] = []
    for batch in _all(condition, connection, generation):
        cosines, sound = _cosines([row[2] for row in batch], vector)
        found += [
            (row[1], cosine)
            for row, cosine, good in zip(batch, cosines.tolist(), sound.tolist(), strict=True)
            if good
        ]
        found = ranked(found, k)
    return found


def ranked(hits: list[tuple[str, float]], k: int) -> list[tuple[str, float]]:
    """By falling cosine, ties by chunk id."""
    return sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:k]


def matrix(stored: Sequence[bytes], dimensions: int) -> tuple[Vector, NDArray[np.bool_]]:
    """Vectors as float32 (n, dimensions), and which are sound; a damaged one is zeros."""
    size = 4 * dimensions
    sized = np.array([len(vector) == size for vector in stored], dtype=np.bool_)
    whole = b"".join(vector if len(vector) == size else bytes(size) for vector in stored)
    vectors = np.frombuffer(whole, "<f4").reshape(len(stored), dimensions)
    finite = np.isfinite(vectors).all(axis=1)
    return np.where(finite[:, np.newaxis], vectors, np.float32(0)), sized & finite


def _all(
    condition: Filter | None, connection: sqlite3.Connection, generation: int
) -> Iterator[list[tuple[int, str, bytes]]]:
    passing, parameters = _sql(condition)
    cursor = connection.execute(
        f"SELECT {_COLUMNS} FROM chunks c {_JOINED} "  # noqa: S608
        f"WHERE c.generation = ? AND {passing}",
        (generation, *parameters),
    )
    while rows := cursor.fetchmany(_BATCH):
        yield rows


def _cosines(
    stored: Sequence[bytes], vector: Vector
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    vectors, sound = matrix(stored, len(vector))
    # Not a product of matrices: there, equal vectors may differ in the last bit by their place.
    return np.einsum("ij,j->i", vectors, vector), sound


def _sql(condition: Filter | None) -> tuple[str, tuple[str, ...]]:
    """The filter over ``c.version``."""
    if condition is None:
        return "1", ()
    match condition:
        case Not(inner):
            sql, parameters = _sql(inner)
            return f"NOT ({sql})", parameters
        case All(parts) | Any(parts):
            each = [_sql(part) for part in parts]
            word, empty = (" AND ", "1") if isinstance(condition, All) else (" OR ", "0")
            return (
                word.join(f"({sql})" for sql, _ in each) or empty,
                tuple(parameter for _, parameters in each for parameter in parameters),
            )
        case _:
            wanted = label_condition(condition)
            return (
                "EXISTS (SELECT 1 FROM labels WHERE version = c.version AND key = ? "  # noqa: S608
                f"AND {wanted.sql})",
                (wanted.key, *wanted.parameters),
            )
