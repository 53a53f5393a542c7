"""Exact cosines over vectors as they lie in the database."""

import json
import sqlite3
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from server.documents import Vector

_BATCH = 2_000


def scored(
    connection: sqlite3.Connection, chunks: NDArray[np.int64], vector: Vector
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(chunk numbers, cosines) of those chunks that have a sound vector, by number.

    Equal vectors have equal cosines wherever they stand. 1,000 of 384 dimensions take some 3 ms.
    """
    numbers: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    scores: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)]
    for found, block in _blocks(connection, chunks, len(vector)):
        # Row by row, where a product of matrices adds up the last rows of a block in another order.
        of = np.einsum("ij,j->i", block, vector)
        sound = np.isfinite(of)
        numbers.append(found[sound])
        scores.append(of[sound])
    return np.concatenate(numbers), np.concatenate(scores)


def vectors_of(
    connection: sqlite3.Connection, chunks: NDArray[np.int64], dimensions: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(chunk numbers, vectors) of those chunks that have a sound vector."""
    numbers = [np.empty(0, dtype=np.int64)]
    vectors = [np.empty((0, dimensions), dtype=np.float32)]
    for found, block in _blocks(connection, chunks, dimensions):
        sound = np.isfinite(block).all(axis=1)
        numbers.append(found[sound])
        vectors.append(block[sound])
    return np.concatenate(numbers), np.concatenate(vectors)


def _blocks(
    connection: sqlite3.Connection, chunks: NDArray[np.int64], dimensions: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Those that have a vector of the right size, in batches."""
    ordered = np.sort(chunks)
    for start in range(0, len(ordered), _BATCH):
        rows = connection.execute(
            "SELECT chunk, vector FROM vectors "
            "WHERE chunk IN (SELECT value FROM json_each(?)) AND typeof(vector) = 'blob' "
            "AND length(vector) = ? ORDER BY chunk",
            (json.dumps(ordered[start : start + _BATCH].tolist()), 4 * dimensions),
        ).fetchall()
        numbers = np.array([row[0] for row in rows], dtype=np.int64)
        block = np.frombuffer(b"".join(row[1] for row in rows), "<f4").reshape(-1, dimensions)
        yield numbers, block.astype(np.float32, copy=False)


def ranked(
    numbers: NDArray[np.int64],
    scores: NDArray[np.float32],
    names: Callable[[list[int]], dict[int, str]],
) -> list[tuple[str, float]]:
    """(chunk id, cosine) by falling cosine and then chunk id, of chunks that still have a name."""
    named = names(numbers.tolist())
    hits = [
        (named[number], score)
        for number, score in zip(numbers.tolist(), scores.tolist(), strict=True)
        if number in named
    ]
    hits.sort(key=lambda hit: (-hit[1], hit[0]))
    return hits
