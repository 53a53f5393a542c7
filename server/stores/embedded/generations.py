"""EmbeddedGenerations: the generations of the store's collections."""

import contextlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from server.errors import (
    Fenced,
    FenceLost,
    GenerationNotFound,
    InvalidInput,
    StoreFull,
    TanyuanError,
)
from server.recipes import Recipe
from server.stores.checks import check_writes
from server.stores.contract import Write
from server.stores.embedded import rows
from server.stores.embedded.changes import Change
from server.stores.embedded.collection import OpenCollection, insert_generation
from server.stores.embedded.database import vendor_errors
from server.stores.embedded.states import (
    DROPPED,
    State,
    named,
    numbered,
    read_state,
    read_states,
)
from server.stores.embedded.text_follower import generation_folder
from server.stores.generations import Derivation, Generation, Pending, StoredChunk

_SCAN_CHARS = 4_000_000
_DROP_CHUNKS = 5_000  # removed at once, so that writers get their turn


class EmbeddedGenerations:
    """``server.stores.generations`` over the open collections.

    Chunks of every generation lie in one database, and a document's go with it in all generations, so
    ``pending`` never gives a document that was deleted. Only SQLite is written while a generation is
    filled; ``settle`` and ``promote`` bring its text index up.
    """

    def __init__(self, opened: Callable[[str], AbstractContextManager[OpenCollection]]) -> None:
        self._opened = opened

    def all(self, collection: str) -> list[Generation]:
        with self._opened(collection) as opened, opened.database.reading() as connection:
            return [state.as_generation() for state in read_states(connection)]

    def create(self, collection: str, *, recipe: Recipe) -> Generation:
        with self._opened(collection) as opened, opened.writing():
            with opened.database.writing() as connection:
                number, sequence = connection.execute(
                    "SELECT next_generation, sequence FROM state"
                ).fetchone()
                # What one that was killed before its commit left.
                shutil.rmtree(opened.folder / generation_folder(number), ignore_errors=True)
                insert_generation(
                    connection,
                    opened.folder,
                    number,
                    recipe=recipe,
                    state="building",
                    sequence=sequence,
                )
                connection.execute("UPDATE state SET next_generation = ?", (number + 1,))
            return opened.state(number).as_generation()

    def drop(self, collection: str, generation: str) -> None:
        with self._opened(collection) as opened:
            with contextlib.suppress(GenerationNotFound):
                number = numbered(generation)
                with opened.settling(number), opened.changing() as connection:
                    if read_state(connection, number).state == "live":
                        raise InvalidInput(
                            f"Generation {generation} is live. Make another one live first.",
                            field="generation",
                        )
                    connection.execute(
                        "UPDATE generations SET state = ? WHERE id = ?", (DROPPED, number)
                    )
            self._clear_dropped(opened)

    def sweep(self, collection: str) -> None:
        with self._opened(collection) as opened:
            self._clear_dropped(opened)
            with opened.writing():
                folders = (opened.folder / generation_folder(0)).parent.iterdir()
                with opened.database.reading() as connection:
                    known = {named(state.generation) for state in read_states(connection)}
                for folder in folders:
                    if folder.name not in known:
                        shutil.rmtree(folder, ignore_errors=True)

    def _clear_dropped(self, opened: OpenCollection) -> None:
        """Remove what generations had that nobody sees any more, a part at a time, and folders that
        killed processes left."""
        with opened.database.reading() as connection:
            dropped = connection.execute(
                "SELECT id FROM generations WHERE state = ?", (DROPPED,)
            ).fetchall()
        for (number,) in dropped:
            left = True
            while left:
                with opened.changing() as connection:
                    removed = connection.execute(
                        "DELETE FROM chunks WHERE id IN "
                        "(SELECT id FROM chunks WHERE generation = ? LIMIT ?)",
                        (number, _DROP_CHUNKS),
                    )
                    left = removed.rowcount > 0
            with opened.changing() as connection:
                connection.execute("DELETE FROM removals WHERE generation = ?", (number,))
                connection.execute("DELETE FROM generations WHERE id = ?", (number,))
            opened.searches.forget(number)
        with opened.changing() as connection:
            known = {state.generation for state in read_states(connection)}
            keep = {opened.folder / generation_folder(number) for number in known}
            for folder in {*opened.folder.glob("generations/*")} - keep:
                shutil.rmtree(folder, ignore_errors=True)
            opened.engine.keep(opened.folder, known)

    def pending(self, collection: str, generation: str) -> Iterator[Pending]:
        with self._opened(collection) as opened:
            number, last = numbered(generation), ""
            while True:
                with opened.database.reading() as connection:
                    read_state(connection, number)
                    batch = rows.pending_after(connection, number, last, max_chars=_SCAN_CHARS)
                if not batch:
                    return
                yield from batch
                last = batch[-1].document_id

    def pending_count(self, collection: str, generation: str) -> int:
        with self._opened(collection) as opened, opened.database.reading() as connection:
            state = read_state(connection, numbered(generation))
            return rows.pending_count(connection, state.generation)

    def derive(
        self,
        collection: str,
        generation: str,
        derivations: Sequence[Derivation],
        *,
        edition: int | None = None,  # noqa: ARG002 - no write of an older edition is ever late here
    ) -> list[bool | TanyuanError]:
        """As the contract, in one transaction; search sees at once what the live one gets."""
        with self._opened(collection) as opened, opened.writing():
            writes = _as_writes(derivations)
            state = opened.state(numbered(generation))
            check_writes(writes, state.recipe)
            live = state.state == "live"
            try:
                with vendor_errors(opened.folder):
                    opened.require_room(writes)
                    # What a loss of power takes from a generation is pending again.
                    with opened.database.writing(durable=live) as connection:
                        change = Change(connection, read_state(connection, state.generation))
                        results: list[bool | TanyuanError] = [
                            change.derive(derivation) for derivation in derivations
                        ]
                        change.finish()
                if live:
                    opened.follow()
            except StoreFull as error:
                return [error] * len(derivations)
            return results

    def chunks(
        self, collection: str, generation: str, document_ids: Sequence[str]
    ) -> dict[str, tuple[StoredChunk, ...]]:
        with self._opened(collection) as opened, opened.database.reading() as connection:
            state = read_state(connection, numbered(generation))
            return rows.chunks(
                connection,
                state.generation,
                document_ids,
                dimensions=state.recipe.dimensions,
            )

    def containing(self, collection: str, terms: Sequence[str]) -> Iterator[str]:
        with self._opened(collection) as opened:
            opened.refresh()
            yield from opened.searches.containing(tuple(terms))

    def settle(self, collection: str, generation: str) -> None:
        with self._opened(collection) as opened:
            number = numbered(generation)
            with opened.settling(number):
                live = opened.state(number).state == "live"
                if not live:
                    opened.searches.text(number).settle()
                    opened.searches.follow_vectors(number)
            if live:
                opened.refresh()

    def fence(self, collection: str) -> str:
        token = uuid.uuid4().hex
        with self._opened(collection) as opened, opened.changing() as connection:
            if read_state(connection).fence:
                raise Fenced(
                    f"Another generation of {collection} is about to become live; try again."
                )
            connection.execute("UPDATE state SET fence = ?", (token,))
        return token

    def lift(self, collection: str, fence: str) -> bool:
        with self._opened(collection) as opened:
            return opened.lift(fence)

    def promote(self, collection: str, generation: str, *, fence: str) -> Generation:
        with self._opened(collection) as opened:
            number = numbered(generation)
            with opened.settling(number), opened.writing():
                _require_fence(opened.state(number), fence)
                opened.searches.follow(number)
                with opened.database.writing() as connection:
                    connection.execute("UPDATE generations SET state = 'kept' WHERE state = 'live'")
                    connection.execute(
                        "UPDATE generations SET state = 'live' WHERE id = ?", (number,)
                    )
                    connection.execute("UPDATE state SET generation = ?, fence = ''", (number,))
                return opened.live()

    def restamp(self, collection: str, recipe: Recipe, *, fence: str, edition: int) -> Generation:
        with self._opened(collection) as opened, opened.writing():
            with opened.database.writing() as connection:
                state = read_state(connection)
                _require_fence(state, fence)
                if edition <= state.edition:
                    raise InvalidInput(
                        f"Generation {named(state.generation)} has edition {state.edition} by now; "
                        f"{edition} is not above it.",
                        field="edition",
                    )
                kept = (state.recipe.dimensions, state.recipe.windows, state.recipe.sparse)
                if (recipe.dimensions, recipe.windows, recipe.sparse) != kept:
                    raise InvalidInput(
                        "A generation's vectors keep their dimensions and windows, and their sparse "
                        "weights; rebuild the collection.",
                        field="recipe",
                    )
                connection.execute(
                    "UPDATE generations SET recipe = ?, edition = ? WHERE id = ?",
                    (json.dumps(recipe.as_json()), edition, state.generation),
                )
                connection.execute("UPDATE state SET fence = ''")
            return opened.live()


def _as_writes(derivations: Sequence[Derivation]) -> list[Write]:
    """What is put, for the checks that a live write passes. Raises InvalidInput."""
    writes = []
    for derivation in derivations:
        if derivation.document is not None:
            writes.append(Write(document=derivation.document, chunks=derivation.chunks))
        elif derivation.chunks:
            raise InvalidInput(
                f"Document {derivation.document_id} was deleted; nothing can be derived of it.",
                field="chunks",
            )
    return writes


def _require_fence(state: State, fence: str) -> None:
    """Raises FenceLost."""
    if not fence or state.fence != fence:
        raise FenceLost("Writes went on, for the fence was lifted. Catch up and try again.")
