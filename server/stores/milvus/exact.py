"""What the database says of the hits that Milvus found; and a search in the database alone."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.documents import Vector
from server.stores.embedded import rows
from server.stores.embedded.filters import LabelCondition, Mask, mask, versions_with
from server.stores.embedded.scoring import ranked, scored
from server.stores.filters import Filter

_FEW = 2_000  # versions whose labels are looked up one by one


@dataclass(frozen=True, slots=True)
class Checked:
    """``hits``: chunk id → cosine, of those that pass; ``refused``: that the filter does not let pass, or
    whose vector is damaged; ``unknown``: that the generation does not have."""

    hits: dict[str, float]
    refused: list[int]
    unknown: list[int]


def check(
    numbers: Sequence[int],
    vector: Vector,
    condition: Filter | None,
    connection: sqlite3.Connection,
    generation: int,
) -> Checked:
    found = connection.execute(
        "SELECT c.id, c.version, d.document_id || ':' || c.position FROM json_each(?) j "
        "CROSS JOIN chunks c ON c.id = j.value AND c.generation = ? "
        "JOIN documents d ON d.version = c.version",
        (json.dumps(list(numbers)), generation),
    ).fetchall()
    names = {chunk: name for chunk, _, name in found}
    present = np.array([chunk for chunk, _, _ in found], dtype=np.int64)
    versions = np.array([version for _, version, _ in found], dtype=np.int64)
    allowed = present[_passing(condition, versions, connection)]
    sound, cosines = scored(connection, allowed, vector)
    good = sound.tolist()
    return Checked(
        hits=dict(zip([names[chunk] for chunk in good], cosines.tolist(), strict=True)),
        refused=sorted(names.keys() - set(good)),
        unknown=[number for number in numbers if number not in names],
    )


def search(
    vector: Vector,
    condition: Filter | None,
    k: int,
    connection: sqlite3.Connection,
    generation: int,
) -> list[tuple[str, float]]:
    """(chunk id, cosine) in order, over every vector that passes, for what no expression can say."""
    found = connection.execute(
        "SELECT id, version FROM chunks WHERE generation = ?", (generation,)
    ).fetchall()
    chunks, versions = np.array(found, dtype=np.int64).reshape(-1, 2).T
    numbers, cosines = scored(connection, chunks[_passing(condition, versions, connection)], vector)
    if len(numbers) > k:  # with all that tie at the cut
        near = cosines >= np.partition(cosines, len(cosines) - k)[len(cosines) - k]
        numbers, cosines = numbers[near], cosines[near]
    return ranked(numbers, cosines, lambda wanted: rows.chunk_ids(connection, wanted))[:k]


def _passing(
    condition: Filter | None, versions: NDArray[np.int64], connection: sqlite3.Connection
) -> Mask:
    if condition is None:
        return np.ones(len(versions), dtype=np.bool_)
    few = json.dumps(np.unique(versions).tolist()) if len(versions) <= _FEW else None

    def leaf(wanted: LabelCondition) -> Mask:
        if few is None:
            return np.isin(versions, versions_with(wanted, -1, connection))
        found = connection.execute(
            f"SELECT version FROM labels WHERE key = ? AND {wanted.sql} "  # noqa: S608
            "AND version IN (SELECT value FROM json_each(?))",
            (wanted.key, *wanted.parameters, few),
        )
        return np.isin(versions, np.array([version for (version,) in found], dtype=np.int64))

    return mask(condition, leaf, len(versions))
