"""The contract of audits as a test class, which every backend inherits.

A backend's own tests plant the damage that no call of the contract can do.
"""

import threading
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from server.errors import CollectionNotFound
from server.lifecycle.findings import label_terms
from server.stores.audit import Audited
from server.stores.contract import Store, Written
from server.stores.generations import Derivation
from tests.stores.builders import NEXT_RECIPE, RECIPE, bm25_ids, derived, vector_of, write
from tests.stores.contract import unique_name
from tests.stores.generation_contract import GenerationSteps


class AuditContract(GenerationSteps):
    def sound(self, found: Audited) -> bool:
        """Whether an audit of one document finds nothing to mend."""
        document = found.document
        return (
            document is not None
            and found.complete
            and found.level
            and found.chunks_expected == len(found.chunks)
            and [each.chunk.position for each in found.chunks] == list(range(len(found.chunks)))
            and all(
                each.revision == found.revision
                and document.text[each.chunk.start : each.chunk.end] == each.chunk.text
                and each.vector is not None
                and bool(np.isfinite(each.vector).all())
                for each in found.chunks
            )
        )

    def audited(self, store: Store, collection: str) -> dict[str, Audited]:
        every = list(store.audits.every(collection))
        names = [found.document_id for found in every]
        assert names == sorted(set(names))
        return {found.document_id: found for found in every}

    def test_every_document_comes_with_its_chunks(self, store: Store, collection: str) -> None:
        given = write("a", "one", "two 二", title="标题", source="s3://x", metadata={"y": 2024})
        self.put(store, collection, given, write("b", "three"), write("empty"), write("gone", "x"))
        self.put(store, collection, write("b", "four"))
        store.delete(collection, "gone", refresh=True)
        found = self.audited(store, collection)
        assert found.keys() == {"a", "b", "empty"}
        assert all(self.sound(each) for each in found.values())
        assert found["a"].document == given.document
        assert found["a"].content_hash == given.document.content_hash
        assert (found["a"].revision, found["b"].revision) == (1, 2)
        assert (found["a"].chunks_expected, found["empty"].chunks_expected) == (2, 0)
        assert [each.chunk for each in found["a"].chunks] == [each.chunk for each in given.chunks]
        keys = [each.key for audited in found.values() for each in audited.chunks]
        assert len(set(keys)) == len(keys) == 3
        vector = found["b"].chunks[0].vector
        assert vector is not None
        assert np.allclose(vector, vector_of("four"), atol=self.VECTOR_TOLERANCE)
        for each in found["a"].chunks:
            assert each.title in {None, "标题"}
            assert each.source in {None, "s3://x"}
            assert each.metadata is None or dict(each.metadata) == {"y": 2024}
            assert each.labels is None or set(each.labels) == label_terms(given.document)

    def test_one_is_looked_at_again(self, store: Store, collection: str) -> None:
        self.put(store, collection, write("a", "one", "two"), write("b", "three"))
        one, all_ = store.audits.one(collection, "a"), self.audited(store, collection)["a"]
        assert self.sound(one)
        assert replace(one, chunks=()) == replace(all_, chunks=())
        assert [(each.key, each.chunk) for each in one.chunks] == [
            (each.key, each.chunk) for each in all_.chunks
        ]
        store.delete(collection, "b")
        for name in ("b", "never"):
            nothing = store.audits.one(collection, name)
            assert (nothing.document_id, nothing.document, nothing.chunks) == (name, None, ())

    def test_many_documents_are_audited_once(self, store: Store, collection: str) -> None:
        count = 620
        self.put(store, collection, *(write(f"d{i:03}", f"red w{i}") for i in range(count)))
        found = self.audited(store, collection)
        assert len(found) == count
        assert all(self.sound(each) for each in found.values())

    def test_a_healthy_collection_has_no_drift(self, store: Store, collection: str) -> None:
        assert store.audits.drift(collection) == []
        self.put(store, collection, write("a", "red one", "red two"), write("b", "red"))
        assert store.audits.drift(collection) == []
        store.delete(collection, "b")
        self.put(store, collection, write("a", "red"))
        assert store.audits.drift(collection) == []
        self.rebuilt(store, collection)
        self.documents(store, collection, ["a", "c"], "blue")
        assert store.audits.drift(collection) == []
        store.audits.mend(collection)
        assert store.audits.drift(collection) == []
        self.check_live(store, collection)

    def test_it_is_of_the_live_generation(self, store: Store, collection: str) -> None:
        self.documents(store, collection, ["a", "b"], "red one\nred two")
        made = store.generations.create(collection, recipe=NEXT_RECIPE)
        self.fill(store, collection, made.id, NEXT_RECIPE)
        store.delete(collection, "b", refresh=True)
        before = self.audited(store, collection)
        assert before.keys() == {"a"}
        assert self.sound(before["a"])
        self.promote(store, collection, made.id, NEXT_RECIPE)
        after = self.audited(store, collection)
        assert after.keys() == {"a"}
        assert self.sound(after["a"])
        vector = after["a"].chunks[0].vector
        assert vector is not None
        assert vector.shape == (NEXT_RECIPE.dimensions,)

    def test_chunks_that_are_not_the_document_s_are_shown(
        self, store: Store, collection: str
    ) -> None:
        self.documents(store, collection, ["a", "b"], "red one\nred two")
        document = store.document(collection, "a").document
        [first, second] = derived(document, RECIPE)
        wrong = replace(first, chunk=replace(first.chunk, text="blue"))
        live = store.live(collection)
        put = Derivation(document_id="a", revision=1, document=document, chunks=(wrong, second))
        assert self.derive(store, collection, live.id, [put]) == [True]
        store.refresh(collection)
        found = self.audited(store, collection)
        assert self.sound(found["b"])
        assert not self.sound(found["a"])
        assert found["a"].chunks[0].chunk.text == "blue"
        mended = replace(put, chunks=(first, second))
        assert self.derive(store, collection, live.id, [mended]) == [True]
        store.refresh(collection)
        assert self.sound(self.audited(store, collection)["a"])
        assert store.audits.drift(collection) == []
        self.check_live(store, collection)

    def test_chunks_that_are_not_there_are_shown(self, store: Store, collection: str) -> None:
        self.documents(store, collection, ["a"], "red one\nred two")
        document = store.document(collection, "a").document
        put = Derivation(document_id="a", revision=1, document=document, chunks=())
        assert self.derive(store, collection, store.live(collection).id, [put]) == [True]
        store.refresh(collection)
        found = self.audited(store, collection)["a"]
        assert found.document == document
        assert found.chunks == ()
        assert store.audits.drift(collection) == []

    def test_what_is_not_there_is_not_removed(self, store: Store, collection: str) -> None:
        self.documents(store, collection, ["a"], "red")
        assert store.audits.remove(collection, []) == 0
        assert store.audits.remove(collection, ["999999999", "nonsense:7", ""]) == 0
        self.check_live(store, collection)

    def test_there_are_no_false_alarms_under_load(self, store: Store, collection: str) -> None:
        stop = threading.Event()
        failures: list[BaseException] = []

        def writing(seed: int) -> None:
            random, there = Random(seed), dict[str, bool]()
            try:
                while not stop.is_set():
                    name = f"s{seed}-{random.randrange(15)}"
                    if there.get(name) and not random.randrange(3):
                        store.delete(collection, name)
                        there[name] = False
                    else:
                        [result] = store.write(
                            collection, [write(name, *["red"] * random.randrange(4))]
                        )
                        assert isinstance(result, Written), result
                        there[name] = True
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test shows it
                failures.append(error)

        threads = [threading.Thread(target=writing, args=(seed,)) for seed in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(4):
                for found in store.audits.every(collection):
                    if not self.sound(found):
                        again = store.audits.one(collection, found.document_id)
                        gone = again.document is None and not again.chunks
                        assert gone or self.sound(again) or again.revision > found.revision, again
                assert store.audits.drift(collection) == []
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert failures == []
        store.refresh(collection)
        assert all(self.sound(found) for found in store.audits.every(collection))
        assert store.audits.drift(collection) == []

    def test_mending_a_healthy_collection_changes_nothing(
        self, store: Store, collection: str
    ) -> None:
        self.put(store, collection, write("a", "red one", "red two"), write("b", "red"))
        store.audits.mend(collection)
        assert sorted(bm25_ids(store, collection, "red")) == ["a:0", "a:1", "b:0"]
        assert all(self.sound(found) for found in self.audited(store, collection).values())

    def test_what_is_not_there_is_named(self, store: Store) -> None:
        name = unique_name()
        for call in (
            lambda: list(store.audits.every(name)),
            lambda: store.audits.one(name, "a"),
            lambda: store.audits.drift(name),
            lambda: store.audits.remove(name, ["a"]),
            lambda: store.audits.mend(name),
        ):
            with pytest.raises(CollectionNotFound, match=name):
                call()
