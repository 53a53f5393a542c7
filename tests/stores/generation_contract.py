"""The contract of generations as test classes, which every backend inherits."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from server.documents import Document
from server.errors import (
    CollectionNotFound,
    DocumentNotFound,
    Fenced,
    FenceLost,
    GenerationChanged,
    GenerationNotFound,
    InvalidInput,
)
from server.recipes import Recipe
from server.stores.contract import Deleted, LegsRequest, Store, Write, Written
from server.stores.filters import Terms
from server.stores.generations import Derivation, Generation, Pending
from tests.stores.builders import (
    LEXICAL_RECIPE,
    NEXT_RECIPE,
    RECIPE,
    bm25_ids,
    derivation,
    derived,
    unit,
    vector_ids,
    vector_of,
    words,
    write,
)
from tests.stores.contract import StoreContract, unique_name

EDITED_RECIPE = replace(RECIPE, analyzer="test-2", dictionary=1)


class GenerationSteps(StoreContract):
    """What a rebuild does with a store, in small."""

    def documents(self, store: Store, collection: str, names: Sequence[str], text: str) -> None:
        recipe = store.live(collection, fresh=True).recipe
        self.put(store, collection, *(self.written(name, text, recipe) for name in names))

    def written(self, name: str, text: str, recipe: Recipe) -> Write:
        document = Document.create(id=name, text=text, title="title")
        return Write(document=document, chunks=derived(document, recipe))

    def fill(self, store: Store, collection: str, generation: str, recipe: Recipe) -> int:
        """Derive whatever is pending, once; returns how many were put."""
        put, batch = 0, list[Derivation]()
        for pending in store.generations.pending(collection, generation):
            batch.append(derivation(pending, recipe))
            if len(batch) == 50:
                put += sum(self.derive(store, collection, generation, batch))
                batch = []
        return put + sum(self.derive(store, collection, generation, batch))

    def derive(
        self, store: Store, collection: str, generation: str, batch: Sequence[Derivation]
    ) -> list[bool]:
        results = store.generations.derive(collection, generation, batch)
        assert len(results) == len(batch)
        for result in results:
            assert isinstance(result, bool), result
        return [result for result in results if isinstance(result, bool)]

    def level(self, store: Store, collection: str, generation: str, recipe: Recipe) -> None:
        """Derive until nothing is pending; for when no write goes on."""
        for _ in range(20):
            if not self.fill(store, collection, generation, recipe):
                break
        assert list(store.generations.pending(collection, generation)) == []
        assert store.generations.pending_count(collection, generation) == 0

    def promote(self, store: Store, collection: str, generation: str, recipe: Recipe) -> Generation:
        """All the steps, for a building or a kept generation, whatever is written meanwhile."""
        for _ in range(3):
            self.fill(store, collection, generation, recipe)
            store.generations.settle(collection, generation)
        fence = store.generations.fence(collection)
        self.level(store, collection, generation, recipe)
        return store.generations.promote(collection, generation, fence=fence)

    def rebuilt(self, store: Store, collection: str, recipe: Recipe = NEXT_RECIPE) -> Generation:
        """A new generation of ``recipe``, live."""
        made = store.generations.create(collection, recipe=recipe)
        return self.promote(store, collection, made.id, recipe)

    def again(
        self, store: Store, collection: str, refused: Write, error: GenerationChanged
    ) -> Written:
        """A refused write made again by the live recipe, with what the error says."""
        live = store.live(collection, fresh=True)
        condition = refused.if_revision if error.claimed is None else error.claimed
        retried = replace(
            refused, chunks=derived(refused.document, live.recipe), if_revision=condition
        )
        [result] = store.write(collection, [retried], key=live.key, refresh=True)
        assert isinstance(result, Written), result
        if error.created is None:
            return result
        return replace(result, status="created" if error.created else "updated")

    def check_level(self, store: Store, collection: str, generation: str, recipe: Recipe) -> None:
        """The generation has every document's chunks by its recipe, and nothing else."""
        documents = {found.document.id: found.document for found in store.documents(collection)}
        found = store.generations.chunks(collection, generation, list(documents))
        expected = {name: derived(document, recipe) for name, document in documents.items()}
        assert found.keys() == {name for name, chunks in expected.items() if chunks}
        for name, chunks in found.items():
            assert [stored.chunk for stored in chunks] == [given.chunk for given in expected[name]]
            for stored, given in zip(chunks, expected[name], strict=True):
                if given.vector is None:
                    assert stored.vector is None
                else:
                    assert stored.vector is not None
                    assert np.allclose(stored.vector, given.vector, atol=self.VECTOR_TOLERANCE)
                assert (stored.windows is None) == (given.windows is None)
                if stored.windows is not None and given.windows is not None:
                    assert np.allclose(stored.windows, given.windows, atol=0.01)
                assert (stored.sparse is None) == (given.sparse is None)
                if stored.sparse is not None and given.sparse is not None:
                    assert stored.sparse.as_dict() == given.sparse.rounded().as_dict()

    def check_live(self, store: Store, collection: str) -> None:
        """Search, counts and states of the live generation agree with the documents."""
        store.refresh(collection)
        live = store.live(collection, fresh=True)
        self.check_level(store, collection, live.id, live.recipe)
        stored = list(store.documents(collection))
        expected = sorted(
            chunk.chunk.id for each in stored for chunk in derived(each.document, live.recipe)
        )
        request = LegsRequest(
            text=words(live.recipe.analyzer),
            vector=vector_of("any", live.recipe.dimensions),
            k=10_000,
            generation=live.id,
        )
        legs = store.search(collection, request)
        assert legs.errors == {}
        assert legs.generation == live.id
        assert legs.bm25 is not None
        assert legs.vector is not None
        assert sorted(name for name, _ in legs.bm25.hits) == expected
        assert sorted(name for name, _ in legs.vector.hits) == expected
        counts = store.collection(collection)
        assert (counts.documents, counts.chunks) == (len(stored), len(expected))
        assert (counts.generation, counts.recipe) == (live.id, live.recipe)
        states = store.states(collection, [each.document.id for each in stored])
        for each in stored:
            state = states[each.document.id]
            assert state.complete
            assert state.revision == each.revision
            assert state.chunks == each.chunks == len(derived(each.document, live.recipe))


class GenerationContract(GenerationSteps):
    def test_a_new_collection_has_one_live_generation(self, store: Store, collection: str) -> None:
        live = store.live(collection)
        assert store.live(collection, fresh=True) == live
        assert store.generations.all(collection) == [live]
        assert (live.state, live.edition, live.fence, live.recipe) == ("live", 1, "", RECIPE)
        assert live.id.isdigit()
        assert live.key == f"{live.id}.1.{RECIPE.hash}"
        assert live.created_at.startswith("20")
        assert store.collection(collection).generation == live.id

    def test_a_generation_is_made_beside_the_live_one(self, store: Store, collection: str) -> None:
        live = store.live(collection)
        made = store.generations.create(collection, recipe=NEXT_RECIPE)
        assert (made.state, made.edition, made.recipe) == ("building", 1, NEXT_RECIPE)
        assert (made.recipe.model, made.recipe.dictionary) == (NEXT_RECIPE.model, 0)
        assert made.id > live.id
        assert store.generations.all(collection) == [live, made]
        assert store.live(collection, fresh=True) == live

    def test_a_filled_generation_is_promoted_and_the_old_one_kept(
        self, store: Store, collection: str
    ) -> None:
        self.put(store, collection, write("a", "red one", "red two"), write("b", "red"), write("c"))
        old = store.live(collection)
        made = store.generations.create(collection, recipe=NEXT_RECIPE)
        assert self.fill(store, collection, made.id, NEXT_RECIPE) == 3
        store.generations.settle(collection, made.id)
        assert bm25_ids(store, collection, NEXT_RECIPE.analyzer) == []
        assert store.live(collection, fresh=True) == old
        fence = store.generations.fence(collection)
        assert store.live(collection, fresh=True).fence == fence
        promoted = store.generations.promote(collection, made.id, fence=fence)
        assert promoted == replace(made, state="live")
        assert store.live(collection, fresh=True) == promoted
        assert store.generations.all(collection) == [replace(old, state="kept"), promoted]
        assert sorted(bm25_ids(store, collection, NEXT_RECIPE.analyzer)) == ["a:0", "a:1", "b:0"]
        self.check_live(store, collection)
        assert store.document(collection, "a").revision == 1

    def test_a_kept_generation_is_levelled_and_promoted_again(
        self, store: Store, collection: str
    ) -> None:
        self.documents(store, collection, ["a", "b", "c", "d"], "red one\nred two")
        old = store.live(collection)
        new = self.rebuilt(store, collection)
        self.documents(store, collection, ["b", "e"], "blue one\nblue two\nblue three")
        store.delete(collection, "c", refresh=True)
        self.documents(store, collection, ["d"], "")
        self.check_live(store, collection)
        back = self.promote(store, collection, old.id, RECIPE)
        assert (back.id, back.state, back.recipe) == (old.id, "live", RECIPE)
        self.check_live(store, collection)
        states = [found.state for found in store.generations.all(collection)]
        assert states == ["live", "kept"]
        self.documents(store, collection, ["f", "a"], "green")
        store.delete(collection, "e", refresh=True)
        self.check_live(store, collection)
        self.promote(store, collection, new.id, NEXT_RECIPE)
        self.check_live(store, collection)

    def test_an_empty_collection_is_rebuilt(self, store: Store, collection: str) -> None:
        self.rebuilt(store, collection)
        self.check_live(store, collection)
        self.documents(store, collection, ["a"], "red")
        self.check_live(store, collection)

    def test_a_generation_without_vectors(self, store: Store, collection: str) -> None:
        self.documents(store, collection, ["a"], "red")
        self.rebuilt(store, collection, LEXICAL_RECIPE)
        legs = store.search(collection, LegsRequest(text=words("red"), vector=unit(1)))
        assert legs.bm25 is not None
        assert [name for name, _ in legs.bm25.hits] == ["a:0"]
        assert isinstance(legs.errors["vector"], InvalidInput)
        stored = store.generations.chunks(collection, legs.generation, ["a"])["a"]
        assert [chunk.vector for chunk in stored] == [None]

    def test_a_search_for_another_generation_is_refused(
        self, store: Store, collection: str
    ) -> None:
        self.documents(store, collection, ["a"], "red")
        old = store.live(collection)
        request = LegsRequest(text=words("red"), generation=old.id)
        assert store.search(collection, request).generation == old.id
        new = self.rebuilt(store, collection)
        with pytest.raises(GenerationChanged):
            store.search(collection, request)
        with pytest.raises(GenerationChanged):  # though the vector is of another size
            store.search(collection, LegsRequest(vector=unit(1), generation=old.id))
        assert store.search(collection, replace(request, generation=new.id)).bm25 is not None
        assert store.search(collection, replace(request, generation=None)).generation == new.id

    def test_passages_of_a_search_s_own_generation(self, store: Store, collection: str) -> None:
        self.documents(store, collection, ["a"], "red")
        old = store.live(collection)
        new = self.rebuilt(store, collection)
        for generation in (None, old.id, new.id):
            found = store.passages(collection, ["a:0", "a:1"], generation=generation)
            assert {name: passage.chunk.text for name, passage in found.items()} == {"a:0": "red"}
        store.generations.drop(collection, old.id)
        with pytest.raises(GenerationChanged):
            store.passages(collection, ["a:0"], generation=old.id)
        assert store.passages(collection, ["a:0"]).keys() == {"a:0"}

    def test_a_dropped_generation_is_gone(self, store: Store, collection: str) -> None:
        self.documents(store, collection, ["a"], "red")
        live = store.live(collection)
        made = store.generations.create(collection, recipe=NEXT_RECIPE)
        self.fill(store, collection, made.id, NEXT_RECIPE)
        for _ in range(2):
            store.generations.drop(collection, made.id)
            assert store.generations.all(collection) == [live]
        for call in (
            lambda: list(store.generations.pending(collection, made.id)),
            lambda: store.generations.pending_count(collection, made.id),
            lambda: store.generations.derive(
                collection,
                made.id,
                [Derivation(document_id="a", revision=1, document=None, chunks=())],
            ),
            lambda: store.generations.chunks(collection, made.id, ["a"]),
            lambda: store.generations.settle(collection, made.id),
        ):
            with pytest.raises(GenerationNotFound):
                call()
        fence = store.generations.fence(collection)
        with pytest.raises(GenerationNotFound):
            store.generations.promote(collection, made.id, fence=fence)
        store.generations.lift(collection, fence)
        self.put(store, collection, write("a", "blue"))
        assert bm25_ids(store, collection, "blue") == ["a:0"]

    def test_the_live_generation_is_not_dropped(self, store: Store, collection: str) -> None:
        self.documents(store, collection, ["a"], "red")
        with pytest.raises(InvalidInput):
            store.generations.drop(collection, store.live(collection).id)
        self.check_live(store, collection)

    def test_an_id_is_never_used_twice(self, store: Store, collection: str) -> None:
        seen = [store.live(collection).id]
        for _ in range(3):
            made = store.generations.create(collection, recipe=NEXT_RECIPE)
            seen.append(made.id)
            store.generations.drop(collection, made.id)
        assert seen == sorted(set(seen))

    def test_several_generations_are_kept(self, store: Store, collection: str) -> None:
        first = store.live(collection)
        self.documents(store, collection, ["a", "b"], "red")
        second = self.rebuilt(store, collection)
        self.documents(store, collection, ["a"], "blue\nblue")
        third = self.rebuilt(store, collection, EDITED_RECIPE)
        store.delete(collection, "b", refresh=True)
        assert [found.id for found in store.generations.all(collection)] == [
            first.id,
            second.id,
            third.id,
        ]
        for generation, recipe in ((first, RECIPE), (second, NEXT_RECIPE), (third, EDITED_RECIPE)):
            if store.live(collection, fresh=True).id != generation.id:
                self.promote(store, collection, generation.id, recipe)
            self.check_live(store, collection)
            self.documents(store, collection, [f"n{generation.id}"], "green")

    def test_chunks_come_with_their_vectors(self, store: Store, collection: str) -> None:
        given = write("a", "one", "two 二", title="标题")
        self.put(store, collection, given, write("b", "three"), write("empty"))
        live = store.live(collection)
        found = store.generations.chunks(collection, live.id, ["b", "a", "empty", "never", "a"])
        assert found.keys() == {"a", "b"}
        assert [stored.chunk for stored in found["a"]] == [each.chunk for each in given.chunks]
        for stored, each in zip(found["a"], given.chunks, strict=True):
            assert stored.vector is not None
            assert each.vector is not None
            assert stored.vector.dtype == np.float32
            assert np.allclose(stored.vector, each.vector, atol=self.VECTOR_TOLERANCE)
        assert store.generations.chunks(collection, live.id, []) == {}

    def test_what_is_not_there_is_named(self, store: Store) -> None:
        name = unique_name()
        calls = [
            lambda: store.live(name),
            lambda: store.live(name, fresh=True),
            lambda: store.generations.all(name),
            lambda: store.generations.create(name, recipe=RECIPE),
            lambda: store.generations.fence(name),
            lambda: store.generations.lift(name, "x"),
            lambda: list(store.generations.pending(name, "000001")),
            lambda: list(store.generations.containing(name, ["re"])),
        ]
        for call in calls:
            with pytest.raises(CollectionNotFound, match=name):
                call()


class PendingContract(GenerationSteps):
    """Which documents are level in a generation."""

    def pending(self, store: Store, collection: str, generation: str) -> dict[str, Pending]:
        """The documents that are pending, without those that were deleted."""
        found = list(store.generations.pending(collection, generation))
        names = [each.document_id for each in found]
        assert names == sorted(set(names))
        assert store.generations.pending_count(collection, generation) == len(found)
        return {each.document_id: each for each in found if each.document is not None}

    def test_every_document_is_pending_in_a_new_generation(
        self, store: Store, collection: str
    ) -> None:
        count = 620
        self.put(store, collection, *(write(f"d{i:03}", f"red w{i}") for i in range(count)))
        store.write(collection, [write("d007", "blue")])  # not refreshed
        made = store.generations.create(collection, recipe=NEXT_RECIPE)
        found = self.pending(store, collection, made.id)
        assert len(found) == count
        assert found["d007"] == Pending(
            document_id="d007", revision=2, document=store.document(collection, "d007").document
        )
        assert self.pending(store, collection, store.live(collection).id) == {}

    def test_writes_and_deletes_are_pending_in_all_but_the_live_one(
        self, store: Store, collection: str
    ) -> None:
        self.documents(store, collection, ["a", "b", "c", "empty"], "red")
        self.documents(store, collection, ["empty"], "")
        made = store.generations.create(collection, recipe=NEXT_RECIPE)
        self.level(store, collection, made.id, NEXT_RECIPE)
        self.documents(store, collection, ["a", "new"], "blue\nblue")
        store.delete(collection, "b")
        store.delete(collection, "empty")
        assert self.pending(store, collection, made.id).keys() == {"a", "new"}
        assert self.pending(store, collection, store.live(collection).id) == {}
        self.level(store, collection, made.id, NEXT_RECIPE)
        self.check_level(store, collection, made.id, NEXT_RECIPE)
        assert store.generations.chunks(collection, made.id, ["b", "empty"]) == {}
        self.documents(store, collection, ["b"], "back again")
        assert self.pending(store, collection, made.id)["b"].revision == 3

    def test_what_was_made_of_an_older_revision_is_refused(
        self, store: Store, collection: str
    ) -> None:
        self.documents(store, collection, ["a", "b"], "red")
        made = store.generations.create(collection, recipe=NEXT_RECIPE)
        stale = [
            derivation(each, NEXT_RECIPE) for each in store.generations.pending(collection, made.id)
        ]
        self.documents(store, collection, ["a"], "blue")
        assert self.derive(store, collection, made.id, stale) == [False, True]
        found = self.pending(store, collection, made.id)
        assert [each.revision for each in found.values()] == [2]
        assert store.generations.chunks(collection, made.id, ["a", "b"]).keys() == {"b"}
        self.level(store, collection, made.id, NEXT_RECIPE)
        self.check_level(store, collection, made.id, NEXT_RECIPE)

    def test_what_was_made_before_a_delete_is_refused(self, store: Store, collection: str) -> None:
        self.documents(store, collection, ["a", "b"], "red")
        made = store.generations.create(collection, recipe=NEXT_RECIPE)
        stale = [
            derivation(each, NEXT_RECIPE) for each in store.generations.pending(collection, made.id)
        ]
        store.delete(collection, "a")
        assert self.derive(store, collection, made.id, stale) == [False, True]
        self.level(store, collection, made.id, NEXT_RECIPE)
        assert store.generations.chunks(collection, made.id, ["a", "b"]).keys() == {"b"}

    def test_deriving_again_replaces(self, store: Store, collection: str) -> None:
        self.documents(store, collection, ["a"], "red\nred\nred")
        made = store.generations.create(collection, recipe=NEXT_RECIPE)
        [each] = store.generations.pending(collection, made.id)
        whole = derivation(each, NEXT_RECIPE)
        for chunks in (whole.chunks, whole.chunks[:1], whole.chunks[:2], (), whole.chunks):
            put = replace(whole, chunks=chunks)
            assert self.derive(store, collection, made.id, [put]) == [True]
            found = store.generations.chunks(collection, made.id, ["a"])
            assert len(found.get("a", ())) == len(chunks)
        assert self.pending(store, collection, made.id) == {}
        self.check_level(store, collection, made.id, NEXT_RECIPE)
        self.check_live(store, collection)

    def test_chunks_that_do_not_fit_the_recipe_are_refused(
        self, store: Store, collection: str
    ) -> None:
        self.documents(store, collection, ["a"], "red")
        made = store.generations.create(collection, recipe=NEXT_RECIPE)
        [each] = store.generations.pending(collection, made.id)
        with pytest.raises(InvalidInput):
            store.generations.derive(collection, made.id, [derivation(each, RECIPE)])
        assert self.pending(store, collection, made.id).keys() == {"a"}

    def test_pending_is_exact_whatever_happens(self, store: Store, collection: str) -> None:
        """Random changes, against a model of which revision each generation has."""
        random = Random(4)
        made = store.generations.create(collection, recipe=NEXT_RECIPE)
        revisions: dict[str, int] = {}
        level: dict[str, int] = {}
        for step in range(40):
            name = f"d{random.randrange(8)}"
            match random.randrange(4):
                case 0 | 1:
                    self.documents(store, collection, [name], "red\nred" if step % 3 else "")
                    revisions[name] = store.states(collection, [name])[name].revision
                case 2:
                    if revisions.pop(name, None):
                        store.delete(collection, name)
                case _:
                    few = list(store.generations.pending(collection, made.id))[:3]
                    put = [derivation(each, NEXT_RECIPE) for each in few]
                    assert self.derive(store, collection, made.id, put) == [True] * len(put)
                    level |= {each.document_id: each.revision for each in few}
            expected = {n: r for n, r in revisions.items() if level.get(n) != r}
            found = self.pending(store, collection, made.id)
            assert {n: each.revision for n, each in found.items()} == expected
        self.level(store, collection, made.id, NEXT_RECIPE)
        self.check_level(store, collection, made.id, NEXT_RECIPE)


class FenceContract(GenerationSteps):
    """Writes wait while a generation becomes live; searches don't."""

    def refused(
        self, store: Store, collection: str, given: Write, key: str | None = None
    ) -> GenerationChanged:
        [result] = store.write(collection, [given], key=key, refresh=True)
        assert isinstance(result, GenerationChanged), result
        return result

    def test_one_fence_stands(self, store: Store, collection: str) -> None:
        fence = store.generations.fence(collection)
        assert fence
        with pytest.raises(Fenced):
            store.generations.fence(collection)
        assert store.live(collection, fresh=True).fence == fence
        assert not store.generations.lift(collection, "another")
        assert store.live(collection, fresh=True).fence == fence
        assert store.generations.lift(collection, fence)
        assert not store.generations.lift(collection, fence)
        assert store.live(collection, fresh=True).fence == ""
        second = store.generations.fence(collection)
        assert second != fence
        assert not store.generations.lift(collection, fence)
        assert store.generations.lift(collection, second)

    @pytest.mark.parametrize("by_key", [True, False])
    def test_a_write_behind_a_fence_is_made_again_after_it(
        self, store: Store, collection: str, by_key: bool
    ) -> None:
        self.documents(store, collection, ["old", "conditional"], "red")
        live = store.live(collection)
        key = live.key if by_key else None
        fence = store.generations.fence(collection)
        writes = [
            replace(self.written(name, "blue", RECIPE), if_revision=condition)
            for name, condition in (
                ("old", None),
                ("new", None),
                ("absent", 0),
                ("conditional", 1),
            )
        ]
        errors = [self.refused(store, collection, given, key) for given in writes]
        assert store.search(collection, LegsRequest(text=words("red"), vector=unit(1))).errors == {}
        assert store.generations.lift(collection, fence)
        results = [
            self.again(store, collection, given, error)
            for given, error in zip(writes, errors, strict=True)
        ]
        assert [result.status for result in results] == ["updated", "created", "created", "updated"]
        for given, result in zip(writes, results, strict=True):
            stored = store.document(collection, given.document.id)
            assert stored.document == given.document
            assert stored.revision == result.revision
        self.check_live(store, collection)

    def test_a_write_behind_a_fence_is_made_again_in_the_new_generation(
        self, store: Store, collection: str
    ) -> None:
        self.documents(store, collection, ["old"], "red")
        key = store.live(collection).key
        made = store.generations.create(collection, recipe=NEXT_RECIPE)
        self.level(store, collection, made.id, NEXT_RECIPE)
        store.generations.settle(collection, made.id)
        fence = store.generations.fence(collection)
        writes = [
            self.written("old", "blue\nblue", RECIPE),
            replace(self.written("new", "blue", RECIPE), if_revision=0),
        ]
        errors = [self.refused(store, collection, given, key) for given in writes]
        self.level(store, collection, made.id, NEXT_RECIPE)
        store.generations.promote(collection, made.id, fence=fence)
        # Chunks of the old recipe don't fit the new one; that is told as the change that it is.
        late = self.written("late", "green", RECIPE)
        errors.append(self.refused(store, collection, late, key))
        results = [
            self.again(store, collection, given, error)
            for given, error in zip([*writes, late], errors, strict=True)
        ]
        assert [result.status for result in results] == ["updated", "created", "created"]
        assert store.document(collection, "old").document.text == "blue\nblue"
        self.check_live(store, collection)

    def test_a_write_for_another_generation_is_refused(self, store: Store, collection: str) -> None:
        live = store.live(collection)
        given = self.written("a", "red", RECIPE)
        for key in ("000099.1", f"{live.id}.2"):
            error = self.refused(store, collection, given, key)
            assert self.again(store, collection, given, error).revision
            self.check_live(store, collection)
            store.delete(collection, "a", refresh=True)

    def test_each_of_several_writes_is_told(self, store: Store, collection: str) -> None:
        fence = store.generations.fence(collection)
        writes = [self.written(f"d{i}", f"red w{i}", RECIPE) for i in range(5)]
        results = store.write(collection, writes, refresh=True)
        assert len(results) == 5
        store.generations.lift(collection, fence)
        for given, error in zip(writes, results, strict=True):
            assert isinstance(error, GenerationChanged)
            assert self.again(store, collection, given, error).status == "created"
        self.check_live(store, collection)

    def test_a_delete_waits_for_the_fence(self, store: Store, collection: str) -> None:
        self.documents(store, collection, ["a", "b"], "red")
        made = store.generations.create(collection, recipe=NEXT_RECIPE)
        self.level(store, collection, made.id, NEXT_RECIPE)
        store.generations.settle(collection, made.id)
        fence = store.generations.fence(collection)
        with ThreadPoolExecutor(1) as pool:
            deleting = pool.submit(store.delete, collection, "a", refresh=True)
            time.sleep(0.4)
            assert not deleting.done()
            assert store.document(collection, "a").document.text == "red"
            self.level(store, collection, made.id, NEXT_RECIPE)
            store.generations.promote(collection, made.id, fence=fence)
            deleted = deleting.result(timeout=30)
        assert isinstance(deleted, Deleted)
        assert (deleted.document_id, deleted.chunks) == ("a", 1)
        self.check_live(store, collection)
        with pytest.raises(DocumentNotFound):
            store.document(collection, "a")

    def test_nothing_is_promoted_without_its_fence(self, store: Store, collection: str) -> None:
        self.documents(store, collection, ["a"], "red")
        live = store.live(collection)
        made = store.generations.create(collection, recipe=NEXT_RECIPE)
        self.level(store, collection, made.id, NEXT_RECIPE)
        store.generations.settle(collection, made.id)
        fence = store.generations.fence(collection)
        assert store.generations.lift(collection, fence)
        for token in (fence, "", "another"):
            with pytest.raises(FenceLost):
                store.generations.promote(collection, made.id, fence=token)
            with pytest.raises(FenceLost):
                store.generations.restamp(collection, EDITED_RECIPE, fence=token, edition=2)
        second = store.generations.fence(collection)
        with pytest.raises(FenceLost):
            store.generations.promote(collection, made.id, fence=fence)
        assert store.live(collection, fresh=True) == replace(live, fence=second)
        store.generations.lift(collection, second)
        assert store.generations.all(collection) == [live, made]
        self.check_live(store, collection)


class LiveDerivationContract(GenerationSteps):
    """Deriving into the live generation: chunks mended, dictionaries changed."""

    def edited(
        self, store: Store, collection: str, recipe: Recipe, *names: str
    ) -> list[Derivation]:
        derivations = []
        for name in names:
            stored = store.document(collection, name)
            derivations.append(
                Derivation(
                    document_id=name,
                    revision=stored.revision,
                    document=stored.document,
                    chunks=derived(stored.document, recipe),
                )
            )
        return derivations

    def test_chunks_are_replaced_in_place(self, store: Store, collection: str) -> None:
        self.documents(store, collection, ["a", "b"], "red one\nred two")
        before = store.document(collection, "a")
        live = store.live(collection)
        [whole] = self.edited(store, collection, RECIPE, "a")
        cut = [replace(each, vector=unit(0, 0, 1)) for each in whole.chunks[:1]]
        assert self.derive(store, collection, live.id, [replace(whole, chunks=tuple(cut))]) == [
            True
        ]
        store.refresh(collection)
        assert sorted(bm25_ids(store, collection, "red")) == ["a:0", "b:0", "b:1"]
        assert vector_ids(store, collection, unit(0, 0, 1), k=1) == ["a:0"]
        after = store.document(collection, "a")
        assert after == replace(before, chunks=1)
        state = store.states(collection, ["a"])["a"]
        assert (state.revision, state.chunks, state.complete) == (1, 1, True)
        assert store.collection(collection).chunks == 3
        assert self.derive(store, collection, live.id, [whole]) == [True]
        self.check_live(store, collection)
        assert list(store.generations.pending(collection, live.id)) == []

    def test_other_generations_stay_level(self, store: Store, collection: str) -> None:
        self.documents(store, collection, ["a", "b"], "red one\nred two")
        old = store.live(collection)
        live = self.rebuilt(store, collection)
        put = self.edited(store, collection, NEXT_RECIPE, "a", "b")
        assert self.derive(store, collection, live.id, put) == [True, True]
        assert store.generations.pending_count(collection, old.id) == 0
        self.check_level(store, collection, old.id, RECIPE)
        self.check_live(store, collection)
        self.documents(store, collection, ["a"], "blue")
        assert self.derive(store, collection, live.id, put) == [False, True]
        self.check_live(store, collection)
        self.promote(store, collection, old.id, RECIPE)
        self.check_live(store, collection)

    def test_filters_hold_for_replaced_chunks(self, store: Store, collection: str) -> None:
        self.put(store, collection, write("a", "red", acl=["hr"]), write("b", "red"))
        live = store.live(collection)
        self.derive(store, collection, live.id, self.edited(store, collection, RECIPE, "a", "b"))
        store.refresh(collection)
        for groups, expected in ((("hr",), ["a:0"]), (("public",), ["b:0"])):
            condition = Terms("acl", groups)
            assert bm25_ids(store, collection, "red", filter=condition) == expected
            assert vector_ids(store, collection, unit(1), filter=condition) == expected

    def test_the_recipe_is_stamped_anew(self, store: Store, collection: str) -> None:
        self.documents(store, collection, ["a", "b"], "red one\nred two")
        old = store.live(collection)
        fence = store.generations.fence(collection)
        results = store.generations.derive(
            collection,
            old.id,
            self.edited(store, collection, EDITED_RECIPE, "a", "b"),
            edition=2,
        )
        assert results == [True, True]
        stamped = store.generations.restamp(collection, EDITED_RECIPE, fence=fence, edition=2)
        assert stamped == replace(old, recipe=EDITED_RECIPE, edition=2)
        assert stamped.recipe.dictionary == 1
        assert stamped.key == f"{old.id}.2.{EDITED_RECIPE.hash}"
        assert store.live(collection, fresh=True) == stamped
        assert store.generations.all(collection) == [stamped]
        given = self.written("c", "green", RECIPE)
        [error] = store.write(collection, [given], key=old.key)
        assert isinstance(error, GenerationChanged)
        self.again(store, collection, given, error)
        self.documents(store, collection, ["a"], "blue")
        self.check_live(store, collection)

    def test_an_edition_only_rises(self, store: Store, collection: str) -> None:
        fence = store.generations.fence(collection)
        for edition in (1, 0):
            with pytest.raises(InvalidInput):
                store.generations.restamp(collection, EDITED_RECIPE, fence=fence, edition=edition)
        assert store.live(collection, fresh=True).recipe == RECIPE
        stamped = store.generations.restamp(collection, EDITED_RECIPE, fence=fence, edition=4)
        assert stamped.edition == 4


class ContainingContract(GenerationSteps):
    CONTAINING_DOCUMENTS = 300

    def containing(self, store: Store, collection: str, *terms: str) -> list[str]:
        found = list(store.generations.containing(collection, terms))
        assert len(found) == len(set(found))
        return sorted(found)

    def test_every_term_is_in_one_chunk(self, store: Store, collection: str) -> None:
        self.put(
            store,
            collection,
            write("both", "云原生"),
            write("apart", "云原", "原生"),
            write("twice", "云原生", "云原生"),
            write("one", "云原"),
            write("titled", "red", title="云原生"),
            write("mixed", "云原", title="原生"),
        )
        assert self.containing(store, collection, "云原", "原生") == ["both", "titled", "twice"]
        assert self.containing(store, collection, "原生", "云原", "云原") == [
            "both",
            "titled",
            "twice",
        ]
        assert self.containing(store, collection, "云原") == [
            *("apart", "both", "mixed", "one", "titled", "twice")
        ]
        assert self.containing(store, collection, "云原", "absent") == []
        store.delete(collection, "both", refresh=True)
        self.put(store, collection, write("twice", "red"))
        assert self.containing(store, collection, "云原", "原生") == ["titled"]

    def test_it_is_of_the_live_generation(self, store: Store, collection: str) -> None:
        self.documents(store, collection, ["a"], "red")
        self.rebuilt(store, collection)
        assert self.containing(store, collection, "re", "ed") == ["a"]
        self.documents(store, collection, ["b"], "red\nred")
        assert self.containing(store, collection, "re", "ed") == ["a", "b"]

    def test_all_are_found_however_many(self, store: Store, collection: str) -> None:
        names = [f"d{i:05}" for i in range(self.CONTAINING_DOCUMENTS)]
        for start in range(0, len(names), 1_000):
            self.put(
                store,
                collection,
                *(write(name, "red one", "red two") for name in names[start : start + 1_000]),
            )
        assert self.containing(store, collection, "re", "ed") == names


class LoadContract(GenerationSteps):
    """Writers and searches go on while a generation is built, promoted and rolled back."""

    LOAD_DOCUMENTS = 60

    def test_nothing_is_lost_under_load(self, store: Store, collection: str) -> None:
        names = [f"d{i:03}" for i in range(self.LOAD_DOCUMENTS)]
        self.documents(store, collection, names, "red\nred")
        acknowledged: dict[str, str | None] = dict.fromkeys(names, "red\nred")
        old = store.live(collection)
        with self.load(store, collection, acknowledged) as rounds:
            made = store.generations.create(collection, recipe=NEXT_RECIPE)
            self.promote(store, collection, made.id, NEXT_RECIPE)
            self.wait(rounds)
        self.check_acknowledged(store, collection, acknowledged)
        assert store.live(collection, fresh=True).id == made.id
        with self.load(store, collection, acknowledged) as rounds:
            self.promote(store, collection, old.id, RECIPE)
            self.wait(rounds)
        self.check_acknowledged(store, collection, acknowledged)
        assert store.live(collection, fresh=True).id == old.id

    def check_acknowledged(
        self, store: Store, collection: str, acknowledged: dict[str, str | None]
    ) -> None:
        there = {name: text for name, text in acknowledged.items() if text is not None}
        found = {each.document.id: each.document.text for each in store.documents(collection)}
        assert found == there
        self.check_live(store, collection)

    def wait(self, rounds: Counter[str]) -> None:
        """Until each thread has done some more since now."""
        before = Counter(rounds)
        end = time.monotonic() + 60
        while any(rounds[name] < before[name] + 3 for name in ("w0", "w1", "search")):
            assert time.monotonic() < end, rounds
            time.sleep(0.02)

    @contextmanager
    def load(
        self, store: Store, collection: str, acknowledged: dict[str, str | None]
    ) -> Iterator[Counter[str]]:
        """Two writers and two searchers; any failure of theirs is raised at the end."""
        stop, rounds = threading.Event(), Counter[str]()

        def writing(number: int) -> None:
            random = Random(number)
            while not stop.is_set():
                name = f"d{random.randrange(self.LOAD_DOCUMENTS // 2) * 2 + number:03}"
                if not random.randrange(4) and acknowledged[name] is not None:
                    store.delete(collection, name)
                    acknowledged[name] = None
                else:
                    line = f"red r{rounds[f'w{number}']}"
                    text = "\n".join([line] * random.randrange(4))
                    self.write_once(store, collection, name, text)
                    acknowledged[name] = text
                rounds[f"w{number}"] += 1

        def searching(name: str) -> None:
            while not stop.is_set():
                self.search_once(store, collection)
                rounds[name] += 1

        with ThreadPoolExecutor(4) as pool:
            threads = [
                *(pool.submit(writing, number) for number in range(2)),
                *(pool.submit(searching, name) for name in ("search", "search2")),
            ]
            try:
                self.wait(rounds)
                yield rounds
            finally:
                stop.set()
                for thread in threads:
                    thread.result(timeout=90)

    def write_once(self, store: Store, collection: str, name: str, text: str) -> None:
        """As the pipeline does: derive by the live recipe, and again when that has changed."""
        condition, end = None, time.monotonic() + 60
        live = store.live(collection)
        while True:
            given = replace(self.written(name, text, live.recipe), if_revision=condition)
            [result] = store.write(collection, [given], key=live.key)
            if isinstance(result, Written):
                return
            assert isinstance(result, GenerationChanged), result
            assert time.monotonic() < end
            condition = result.claimed if result.claimed is not None else condition
            time.sleep(0.02)
            live = store.live(collection, fresh=True)

    def search_once(self, store: Store, collection: str) -> None:
        live = store.live(collection)
        while True:
            request = LegsRequest(
                text=words(live.recipe.analyzer),
                vector=vector_of("any", live.recipe.dimensions),
                generation=live.id,
                k=20,
            )
            try:
                legs = store.search(collection, request)
                break
            except GenerationChanged:
                live = store.live(collection, fresh=True)
        assert legs.errors == {}
        assert legs.bm25 is not None
        assert legs.vector is not None
        assert legs.generation == live.id
        assert legs.bm25.hits
        assert legs.vector.hits
        ids = [name for name, _ in legs.bm25.hits]
        store.passages(collection, ids, generation=legs.generation)
