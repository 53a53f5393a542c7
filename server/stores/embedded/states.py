"""A collection's own row, and those of its generations."""

import json
import sqlite3
from dataclasses import dataclass
from typing import get_args

from server.errors import GenerationNotFound
from server.recipes import Recipe
from server.stores.generations import Generation, GenerationState

DROPPED = "dropped"  # a generation that is being removed and that nobody sees any more
_STATES = get_args(GenerationState)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A collection's own row and that of one of its generations.

    ``live`` is the live generation's number, ``generation`` this one's. ``sequence`` is the last number
    given out, ``text_sequence`` how far the generation's text index follows, ``pruned`` up to where
    removals were forgotten. ``documents`` and ``chunks`` are their counts.
    """

    description: str
    live: int
    fence: str
    sequence: int
    pruned: int
    documents: int
    generation: int
    edition: int
    state: GenerationState
    created_at: str
    recipe: Recipe
    text_folder: str
    text_sequence: int
    chunks: int

    def as_generation(self) -> Generation:
        return Generation(
            id=named(self.generation),
            edition=self.edition,
            recipe=self.recipe,
            state=self.state,
            created_at=self.created_at,
            fence=self.fence if self.generation == self.live else "",
        )


_SELECT = """
    SELECT s.description, s.generation, s.fence, s.sequence, s.pruned, s.documents, g.id, g.edition,
        g.state, g.created_at, g.recipe, g.text_folder, g.text_sequence, g.chunks
    FROM state s, generations g
"""


def read_state(connection: sqlite3.Connection, generation: int | None = None) -> State:
    """Of a generation, or of the live one. Raises GenerationNotFound."""
    row = connection.execute(
        f"{_SELECT} WHERE g.id = coalesce(?, s.generation) AND g.state != ?", (generation, DROPPED)
    ).fetchone()
    if row is None:
        raise unknown(named(generation or 0))
    return _state(row)


def read_states(connection: sqlite3.Connection) -> list[State]:
    """Of all generations, by id."""
    rows = connection.execute(f"{_SELECT} WHERE g.state != ? ORDER BY g.id", (DROPPED,))
    return [_state(row) for row in rows]


def named(generation: int) -> str:
    return f"{generation:06}"


def numbered(generation: str) -> int:
    """The number in a generation's id. Raises GenerationNotFound."""
    if not (generation.isascii() and generation.isdigit()) or len(generation) > 18:
        raise unknown(generation)
    number = int(generation)
    if named(number) != generation:
        raise unknown(generation)
    return number


def unknown(generation: str) -> GenerationNotFound:
    return GenerationNotFound(f"There is no generation {generation[:40]!r}.")


def _state(
    row: tuple[str, int, str, int, int, int, int, int, str, str, str, str, int, int],
) -> State:
    (
        description,
        live,
        fence,
        sequence,
        pruned,
        documents,
        generation,
        edition,
        state,
        created_at,
        recipe,
        text_folder,
        text_sequence,
        chunks,
    ) = row
    return State(
        description=description,
        live=live,
        fence=fence,
        sequence=sequence,
        pruned=pruned,
        documents=documents,
        generation=generation,
        edition=edition,
        state=next(known for known in _STATES if known == state),
        created_at=created_at,
        recipe=Recipe.from_json(json.loads(recipe)),
        text_folder=text_folder,
        text_sequence=text_sequence,
        chunks=chunks,
    )
