"""What a store promises of the vectors of windows, as a test class that every backend inherits."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from server.documents import Vectors
from server.errors import InvalidInput
from server.stores.contract import Store, Write
from tests.stores.builders import LEXICAL_RECIPE, NEXT_RECIPE, RECIPE, vector_of, windows_of, write
from tests.stores.contract import unique_name
from tests.stores.generation_contract import GenerationSteps

WINDOWED = replace(RECIPE, windows="test-1/1")


def windowed(given: Write, rows: Vectors | None) -> Write:
    """The write with these windows on its first chunk."""
    first, *others = given.chunks
    return replace(given, chunks=(replace(first, windows=rows), *others))


def rows_of(*changes: float) -> Vectors:
    """Two sound rows, the second multiplied."""
    rows = np.array([vector_of("one"), vector_of("two")])
    for change in changes:
        rows[1] *= change
    return rows


class WindowContract(GenerationSteps):
    @pytest.fixture
    def collection(self, store: Store) -> Iterator[str]:
        """A collection whose recipe has windows."""
        name = unique_name()
        store.create_collection(name, recipe=WINDOWED)
        yield name
        store.delete_collection(name)

    def test_passages_have_them_if_asked(self, store: Store, collection: str) -> None:
        given, rows = write("a", "one two three", "four"), windows_of("one two three")
        assert rows is not None
        self.put(store, collection, windowed(given, rows))
        live = store.live(collection).id
        for generation in (None, live):
            found = store.passages(
                collection, ["a:0", "a:1", "b:0"], generation=generation, windows=True
            )
            assert found.keys() == {"a:0", "a:1"}
            assert found["a:1"].windows is None
            kept = found["a:0"].windows
            assert kept is not None
            assert kept.dtype == np.float32
            assert kept.shape == (3, RECIPE.dimensions)
            assert np.linalg.norm(kept, axis=1) == pytest.approx(1, abs=1e-6)
            assert (kept * rows).sum(axis=1) == pytest.approx(1, abs=0.003)
            unasked = store.passages(collection, ["a:0"], generation=generation)
            assert unasked["a:0"] == replace(found["a:0"], windows=None)

    def test_they_come_and_go_with_their_chunk(self, store: Store, collection: str) -> None:
        self.put(store, collection, windowed(write("a", "one"), rows_of()))
        self.put(store, collection, write("a", "one"))
        assert store.passages(collection, ["a:0"], windows=True)["a:0"].windows is None
        self.put(store, collection, windowed(write("a", "two"), rows_of()))
        assert store.passages(collection, ["a:0"], windows=True)["a:0"].windows is not None
        store.delete(collection, "a", refresh=True)
        assert store.passages(collection, ["a:0"], windows=True) == {}
        assert store.audits.drift(collection) == []

    def test_what_was_kept_is_kept_as_it_is(self, store: Store, collection: str) -> None:
        """Taken from a store and put again, however often, they are rounded once."""
        self.put(store, collection, windowed(write("a", "one"), rows_of()))
        live = store.live(collection).id
        [first] = store.generations.chunks(collection, live, ["a"])["a"]
        assert first.windows is not None
        self.put(store, collection, windowed(write("a", "one more"), first.windows))
        [second] = store.generations.chunks(collection, live, ["a"])["a"]
        assert second.windows is not None
        assert np.array_equal(first.windows, second.windows)
        [audited] = store.audits.one(collection, "a").chunks
        assert audited.windows is not None
        assert np.array_equal(audited.windows, first.windows)

    @pytest.mark.parametrize(
        "rows",
        [
            rows_of()[:1],
            rows_of()[:0],
            rows_of()[0],
            rows_of()[:, :4],
            rows_of(2),
            rows_of(0),
            rows_of(float("nan")),
            rows_of(float("inf")),
        ],
        ids=["one", "none", "vector", "dimensions", "long", "zero", "nan", "infinite"],
    )
    def test_what_can_not_be_scored_is_refused(
        self, store: Store, collection: str, rows: Any
    ) -> None:
        with pytest.raises(InvalidInput) as refusal:
            store.write(collection, [windowed(write("a", "one"), rows)])
        assert refusal.value.field == "windows"
        assert store.states(collection, ["a"]) == {}

    @pytest.mark.parametrize("recipe", [RECIPE, LEXICAL_RECIPE], ids=["vectors", "words"])
    def test_a_recipe_without_windows_has_none(self, store: Store, recipe: Any) -> None:
        name = unique_name()
        store.create_collection(name, recipe=recipe)
        try:
            vectors = None if recipe.dimensions else [None]
            given = write("a", "one", vectors=vectors)
            with pytest.raises(InvalidInput) as refusal:
                store.write(name, [windowed(given, rows_of())])
            assert refusal.value.field == "windows"
            self.put(store, name, given)
            assert store.passages(name, ["a:0"], windows=True)["a:0"].windows is None
        finally:
            store.delete_collection(name)

    def test_a_rebuild_gives_them_and_a_roll_back_takes_them(
        self, store: Store, collection: str
    ) -> None:
        name = unique_name()
        store.create_collection(name, recipe=RECIPE)
        try:
            old = store.live(name)
            self.documents(store, name, ["a"], "one two")
            self.rebuilt(store, name, NEXT_RECIPE)
            assert store.passages(name, ["a:0"], windows=True)["a:0"].windows is not None
            self.promote(store, name, old.id, RECIPE)
            store.live(name, fresh=True)
            assert store.passages(name, ["a:0"], windows=True)["a:0"].windows is None
        finally:
            store.delete_collection(name)

    def test_a_generation_keeps_what_it_has(self, store: Store, collection: str) -> None:
        fence = store.generations.fence(collection)
        with pytest.raises(InvalidInput) as refusal:
            store.generations.restamp(collection, RECIPE, fence=fence, edition=2)
        assert refusal.value.field == "recipe"
        edited = replace(WINDOWED, analyzer="test-2")
        stamped = store.generations.restamp(collection, edited, fence=fence, edition=2)
        assert stamped.recipe == edited
