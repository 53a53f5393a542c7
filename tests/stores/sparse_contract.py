"""What a store promises of sparse weights, as a test class that every backend inherits."""

import zlib
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest

from server.errors import InvalidInput
from server.sparse import EMPTY, SparseWeights
from server.stores.contract import LegsRequest, Store, Write
from server.stores.filters import Any as AnyOf
from server.stores.filters import Filter, Not, Range, Terms
from tests.stores.builders import (
    LEXICAL_RECIPE,
    NEXT_RECIPE,
    RECIPE,
    sparse_of,
    vector_of,
    words,
    write,
)
from tests.stores.contract import unique_name
from tests.stores.generation_contract import GenerationSteps

SPARSE = replace(RECIPE, sparse="test-1")
WORDS = [f"w{number}" for number in range(60)]


def sparse_write(given: Write) -> Write:
    """The write with the sparse weights of each chunk's words."""
    chunks = (replace(each, sparse=sparse_of(each.chunk.text)) for each in given.chunks)
    return replace(given, chunks=tuple(chunks))


def hits(
    store: Store, collection: str, query: SparseWeights, **request: Any
) -> list[tuple[str, float]]:
    legs = store.search(collection, LegsRequest(sparse=query, **request))
    assert legs.sparse is not None, legs.errors
    return list(legs.sparse.hits)


def ids(store: Store, collection: str, text: str, **request: Any) -> list[str]:
    return [chunk_id for chunk_id, _ in hits(store, collection, sparse_of(text), **request)]


def product(query: SparseWeights, chunk: SparseWeights) -> float:
    kept = chunk.rounded().as_dict()
    return sum(weight * kept.get(token, 0.0) for token, weight in query.as_dict().items())


class SparseContract(GenerationSteps):
    @pytest.fixture
    def collection(self, store: Store) -> Iterator[str]:
        """A collection whose recipe has sparse weights."""
        name = unique_name()
        store.create_collection(name, recipe=SPARSE)
        yield name
        store.delete_collection(name)

    def test_scores_are_the_products_and_ties_go_by_id(self, store: Store, collection: str) -> None:
        random = Random(7)
        texts = {f"d{n}": " ".join(random.choices(WORDS, k=12)) for n in range(60)}
        texts |= {f"e{n}": texts["d0"] for n in range(5)}  # all alike
        writes = [sparse_write(write(each, text)) for each, text in texts.items()]
        assert not any(
            isinstance(each, Exception) for each in store.write(collection, writes, refresh=True)
        )
        for text in ("w1", "w2 w3 w4", texts["d0"], "nowhere", "w5 nowhere"):
            query = sparse_of(text)
            scores = {
                f"{each}:0": score
                for each, own in texts.items()
                if (score := product(query, sparse_of(own))) > 0
            }
            for k in (3, 100):
                found = hits(store, collection, query, k=k)
                assert len(found) == min(k, len(scores))
                for chunk_id, score in found:
                    assert score == pytest.approx(scores[chunk_id], rel=1e-5)
                order = [(-np.float32(score), chunk_id) for chunk_id, score in found]
                assert order == sorted(order)
                least = min((score for _, score in found), default=0.0)
                left = scores.keys() - {chunk_id for chunk_id, _ in found}
                assert all(scores[each] <= least * (1 + 1e-5) for each in left)
        assert ids(store, collection, texts["d0"], k=4) == ["d0:0", "e0:0", "e1:0", "e2:0"]

    def test_all_legs_come_together(self, store: Store, collection: str) -> None:
        self.put(
            store, collection, sparse_write(write("a", "red one")), sparse_write(write("b", "blue"))
        )
        request = LegsRequest(text=words("red"), vector=vector_of("blue"), sparse=sparse_of("red"))
        legs = store.search(collection, request)
        assert legs.errors == {}
        for leg, first in ((legs.bm25, "a:0"), (legs.vector, "b:0"), (legs.sparse, "a:0")):
            assert leg is not None
            assert leg.hits[0][0] == first
        assert legs.sparse is not None
        assert legs.sparse.total == 1
        assert store.search(collection, replace(request, sparse=None)).sparse is None

    def test_filters_are_inside_the_query(self, store: Store, collection: str) -> None:
        random = Random(8)
        count = 80
        writes = [
            sparse_write(
                write(
                    f"d{n:02}",
                    " ".join(random.choices(WORDS, k=20)) + " shared",
                    acl=("public",) if n % 10 else ("hr",),
                    metadata={"number": n},
                )
            )
            for n in range(count)
        ]
        self.put(store, collection, *writes)
        query = "shared w1 w2"
        conditions: list[tuple[Filter, set[int]]] = [
            (Terms("acl", ("hr",)), {n for n in range(count) if not n % 10}),
            (Not(Terms("acl", ("hr",))), {n for n in range(count) if n % 10}),
            (Range(key="number", gte=75), set(range(75, 80))),
            (AnyOf((Range(key="number", lt=2), Terms("number", (40,)))), {0, 1, 40}),
            (Terms("acl", ("nobody",)), set()),
        ]
        for condition, wanted in conditions:
            found = ids(store, collection, query, filter=condition, k=100)
            assert {int(each[1:3]) for each in found} == wanted
            assert len(ids(store, collection, query, filter=condition, k=3)) == min(3, len(wanted))

    def test_they_come_and_go_with_their_chunk(self, store: Store, collection: str) -> None:
        self.put(
            store,
            collection,
            sparse_write(write("a", "one", "two")),
            sparse_write(write("b", "one")),
        )
        assert ids(store, collection, "one") == ["a:0", "b:0"]
        self.put(store, collection, sparse_write(write("a", "three")))
        assert ids(store, collection, "one") == ["b:0"]
        assert ids(store, collection, "two") == []
        assert ids(store, collection, "three") == ["a:0"]
        store.delete(collection, "b", refresh=True)
        assert ids(store, collection, "one") == []
        assert store.audits.drift(collection) == []

    def test_many_changes_are_followed(self, store: Store, collection: str) -> None:
        random, live = Random(9), {}
        for step in range(25):
            batch = {f"d{random.randrange(40)}": random.choice(WORDS[:5]) for _ in range(8)}
            self.put(store, collection, *(sparse_write(write(*each)) for each in batch.items()))
            live |= batch
            for gone in random.sample(sorted(live), 2):
                store.delete(collection, gone, refresh=True)
                del live[gone]
            word = WORDS[step % 5]
            wanted = sorted(f"{each}:0" for each, own in live.items() if own == word)
            assert ids(store, collection, word) == wanted

    def test_what_was_kept_is_kept_as_it_is(self, store: Store, collection: str) -> None:
        """Taken from a store and put again, however often, they are rounded once, by less than 1/500."""
        given = sparse_of(" ".join(WORDS))
        [first] = [sparse_write(write("a", " ".join(WORDS)))]
        self.put(store, collection, first)
        live = store.live(collection).id
        [kept] = store.generations.chunks(collection, live, ["a"])["a"]
        assert kept.sparse is not None
        assert kept.sparse.as_dict() == given.rounded().as_dict()
        assert kept.sparse.weights == pytest.approx(given.weights, rel=1 / 500)
        again = write("a", "again")
        self.put(
            store,
            collection,
            replace(again, chunks=(replace(again.chunks[0], sparse=kept.sparse),)),
        )
        [twice] = store.generations.chunks(collection, live, ["a"])["a"]
        [audited] = store.audits.one(collection, "a").chunks
        for found in (twice.sparse, audited.sparse):
            assert found is not None
            assert found.as_dict() == kept.sparse.as_dict()

    def test_a_chunk_that_says_nothing_has_none_and_is_whole(
        self, store: Store, collection: str
    ) -> None:
        given = write("a", "one")
        self.put(
            store, collection, replace(given, chunks=(replace(given.chunks[0], sparse=EMPTY),))
        )
        [audited] = store.audits.one(collection, "a").chunks
        assert audited.sparse is not None
        assert audited.sparse.as_dict() == {}
        assert ids(store, collection, "one") == []
        assert hits(store, collection, EMPTY) == []

    def test_a_long_query_is_answered(self, store: Store, collection: str) -> None:
        """A query of more tokens than Elasticsearch takes clauses still goes by its heaviest."""
        self.put(store, collection, sparse_write(write("a", "one two")))
        many = dict.fromkeys(range(8000), 0.01) | {
            zlib.crc32(word.encode()) % 250_000: 5.0 for word in ("one", "two")
        }
        assert [chunk_id for chunk_id, _ in hits(store, collection, SparseWeights.of(many))] == [
            "a:0"
        ]

    @pytest.mark.parametrize(
        "given",
        [
            SparseWeights(np.array([2, 1], np.int32), np.ones(2, np.float32)),
            SparseWeights(np.array([1, 1], np.int32), np.ones(2, np.float32)),
            SparseWeights(np.array([-1], np.int32), np.ones(1, np.float32)),
            SparseWeights(np.array([1], np.int32), np.ones(2, np.float32)),
            SparseWeights.of({1: 0.0}),
            SparseWeights.of({1: -1.0}),
            SparseWeights.of({1: float("nan")}),
            SparseWeights.of({1: float("inf")}),
            SparseWeights.of({1: 1e-40}),
            None,
        ],
        ids=[
            "order",
            "twice",
            "negative",
            "shapes",
            "zero",
            "minus",
            "nan",
            "infinite",
            "subnormal",
            "none",
        ],
    )
    def test_what_can_not_be_scored_is_refused(
        self, store: Store, collection: str, given: Any
    ) -> None:
        whole = write("a", "one")
        with pytest.raises(InvalidInput) as refusal:
            store.write(
                collection, [replace(whole, chunks=(replace(whole.chunks[0], sparse=given),))]
            )
        assert refusal.value.field == "sparse"
        assert store.states(collection, ["a"]) == {}
        if given is not None:
            with pytest.raises(InvalidInput) as refusal:
                store.search(collection, LegsRequest(sparse=given))
            assert refusal.value.field == "sparse"

    @pytest.mark.parametrize("recipe", [RECIPE, LEXICAL_RECIPE], ids=["vectors", "words"])
    def test_a_recipe_without_them_has_none(self, store: Store, recipe: Any) -> None:
        name = unique_name()
        store.create_collection(name, recipe=recipe)
        try:
            given = write("a", "one", vectors=None if recipe.dimensions else [None])
            with pytest.raises(InvalidInput) as refusal:
                store.write(name, [sparse_write(given)])
            assert refusal.value.field == "sparse"
            self.put(store, name, given)
            legs = store.search(name, LegsRequest(text=words("one"), sparse=sparse_of("one")))
            assert legs.sparse is None
            assert isinstance(legs.errors["sparse"], InvalidInput)
            assert legs.bm25 is not None
            assert [chunk_id for chunk_id, _ in legs.bm25.hits] == ["a:0"]
            [audited] = store.audits.one(name, "a").chunks
            assert audited.sparse is None
        finally:
            store.delete_collection(name)

    def test_a_rebuild_gives_them_and_a_roll_back_takes_them(self, store: Store) -> None:
        name = unique_name()
        store.create_collection(name, recipe=RECIPE)
        try:
            old = store.live(name)
            self.documents(store, name, ["a", "b"], "one two")
            self.rebuilt(store, name, NEXT_RECIPE)
            assert ids(store, name, "one") == ["a:0", "b:0"]
            self.promote(store, name, old.id, RECIPE)
            store.live(name, fresh=True)
            legs = store.search(name, LegsRequest(sparse=sparse_of("one")))
            assert isinstance(legs.errors["sparse"], InvalidInput)
        finally:
            store.delete_collection(name)

    def test_a_generation_keeps_what_it_has(self, store: Store, collection: str) -> None:
        fence = store.generations.fence(collection)
        for other in (RECIPE, replace(SPARSE, sparse="test-2")):
            with pytest.raises(InvalidInput) as refusal:
                store.generations.restamp(collection, other, fence=fence, edition=2)
            assert refusal.value.field == "recipe"
        edited = replace(SPARSE, analyzer="test-2")
        stamped = store.generations.restamp(collection, edited, fence=fence, edition=2)
        assert stamped.recipe == edited
