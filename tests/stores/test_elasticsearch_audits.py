"""Damage that no call of the store can do, planted in Elasticsearch itself, found and mended."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from server.stores.audit import Drift
from server.stores.elasticsearch.store import ElasticsearchStore
from server.stores.generations import Derivation
from tests.services.elasticsearch import targets
from tests.stores.builders import RECIPE, bm25_ids, derived, write
from tests.stores.generation_contract import GenerationSteps


@pytest.fixture(scope="module", params=targets())
def store(
    request: pytest.FixtureRequest, elasticsearch: Callable[[str], str]
) -> Iterator[ElasticsearchStore]:
    opened = ElasticsearchStore(
        elasticsearch(request.param), prefix=f"test-{uuid.uuid4().hex[:12]}"
    )
    yield opened
    for collection in opened.collections():
        opened.delete_collection(collection.name)
    opened.close()


class TestDamage(GenerationSteps):
    @pytest.fixture
    def index(self, store: ElasticsearchStore, collection: str) -> str:
        """The index of the chunks of a and b, two each."""
        self.documents(store, collection, ["a", "b"], "red one\nred two")
        return f"{store._prefix}.{collection}.chunks.000001"

    def chunk(self, store: ElasticsearchStore, index: str, key: str) -> dict[str, Any]:
        """A chunk as it can be indexed again."""
        found = store._client.search(
            index=index,
            query={"ids": {"values": [key]}},
            fields=[{"field": "vector"}],
            source_excludes=["vector"],
        )
        [hit] = found["hits"]["hits"]
        return {**hit["_source"], "vector": hit["fields"]["vector"], "words": "red planted"}

    def mend(self, store: ElasticsearchStore, collection: str, name: str) -> None:
        stored = store.document(collection, name)
        put = Derivation(
            document_id=name,
            revision=stored.revision,
            document=stored.document,
            chunks=derived(stored.document, RECIPE),
        )
        live = store.live(collection)
        assert self.derive(store, collection, live.id, [put]) == [True]

    def keys(self, store: ElasticsearchStore, collection: str) -> dict[str, list[str]]:
        return {
            found.document_id: [each.key for each in found.chunks]
            for found in store.audits.every(collection)
        }

    def test_a_chunk_that_is_missing(
        self, store: ElasticsearchStore, collection: str, index: str
    ) -> None:
        for _ in range(2):
            store._client.delete(index=index, id="a:1", refresh=True)
            assert self.keys(store, collection) == {"a": ["a:0"], "b": ["b:0", "b:1"]}
            self.mend(store, collection, "a")
            self.check_live(store, collection)

    def test_a_chunk_that_was_changed(
        self, store: ElasticsearchStore, collection: str, index: str
    ) -> None:
        for text in ("other", "third"):
            store._client.update(index=index, id="a:1", doc={"text": text}, refresh=True)
            found = store.audits.one(collection, "a")
            assert found.chunks[1].chunk.text == text
            self.mend(store, collection, "a")
            self.check_live(store, collection)
        self.documents(store, collection, ["a"], "blue")
        self.check_live(store, collection)

    def test_a_vector_that_is_missing(
        self, store: ElasticsearchStore, collection: str, index: str
    ) -> None:
        chunk = self.chunk(store, index, "a:0")
        del chunk["vector"]
        store._client.index(index=index, id="a:0", document=chunk, refresh=True)
        assert [each.vector is None for each in store.audits.one(collection, "a").chunks] == [
            True,
            False,
        ]
        self.mend(store, collection, "a")
        self.check_live(store, collection)

    def test_labels_that_were_changed(
        self, store: ElasticsearchStore, collection: str, index: str
    ) -> None:
        right = store.audits.one(collection, "a").chunks[0].labels
        assert right == ("acl", "acl\x1fspublic", "document_id", "document_id\x1fsa")
        chunk = {**self.chunk(store, index, "a:0"), "labels": ["acl", "acl\x1fsother"]}
        store._client.index(index=index, id="a:0", document=chunk, refresh=True)
        [wrong, _] = store.audits.one(collection, "a").chunks
        assert wrong.labels == ("acl", "acl\x1fsother")
        self.mend(store, collection, "a")
        assert store.audits.one(collection, "a").chunks[0].labels == right

    def test_a_chunk_that_stands_twice(
        self, store: ElasticsearchStore, collection: str, index: str
    ) -> None:
        twice = self.chunk(store, index, "a:1")
        store._client.index(index=index, id="copy", document=twice, refresh=True)
        assert self.keys(store, collection)["a"] == ["a:0", "a:1", "copy"]
        assert len(store.generations.chunks(collection, "000001", ["a"])["a"]) == 2
        assert store.audits.remove(collection, ["copy", "a:1", "b:0"]) == 1
        self.check_live(store, collection)

    def test_a_chunk_past_the_document_s_last(
        self, store: ElasticsearchStore, collection: str, index: str
    ) -> None:
        surplus = {**self.chunk(store, index, "a:1"), "id": "a:7", "position": 7}
        store._client.index(index=index, id="a:7", document=surplus, refresh=True)
        assert self.keys(store, collection)["a"] == ["a:0", "a:1", "a:7"]
        assert store.audits.remove(collection, ["a:7"]) == 1
        self.check_live(store, collection)

    def test_chunks_of_a_document_whose_record_is_lost(
        self, store: ElasticsearchStore, collection: str, index: str
    ) -> None:
        for _ in range(3):
            self.documents(store, collection, ["a"], "red one\nred two")
        documents = f"{store._prefix}.{collection}.documents.000001"
        store._client.delete(index=documents, id="a", refresh=True)
        found = store.audits.one(collection, "a")
        assert (found.document, [each.key for each in found.chunks]) == (None, ["a:0", "a:1"])
        assert self.keys(store, collection) == {"a": ["a:0", "a:1"], "b": ["b:0", "b:1"]}
        assert store.audits.remove(collection, ["a:0", "a:1", "b:1"]) == 2
        self.check_live(store, collection)
        assert self.keys(store, collection) == {"b": ["b:0", "b:1"]}
        # The id is free again, and what is written under it is newer than what was lost.
        self.put(store, collection, write("a", "blue"))
        assert bm25_ids(store, collection, "blue") == ["a:0"]

    def test_chunks_of_a_deleted_document(
        self, store: ElasticsearchStore, collection: str, index: str
    ) -> None:
        ghost = self.chunk(store, index, "a:0")
        store.delete(collection, "a")
        store._client.index(index=index, id="a:0", document=ghost, refresh=True)
        found = store.audits.one(collection, "a")
        assert (found.document, [each.key for each in found.chunks]) == (None, ["a:0"])
        assert store.audits.remove(collection, ["a:0"]) == 1
        self.check_live(store, collection)
        self.documents(store, collection, ["a"], "blue")
        self.check_live(store, collection)

    def test_many_orphans_between_documents(
        self, store: ElasticsearchStore, collection: str, index: str
    ) -> None:
        chunk = self.chunk(store, index, "a:0")
        for name in ("0", "aa", "ab", "z"):
            planted = {**chunk, "id": f"{name}:0", "document_id": name}
            store._client.index(index=index, id=f"{name}:0", document=planted)
        store.refresh(collection)
        assert list(self.keys(store, collection)) == ["0", "a", "aa", "ab", "b", "z"]
        keys = ["0:0", "aa:0", "ab:0", "z:0"]
        assert store.audits.remove(collection, keys) == 4
        assert store.audits.remove(collection, keys) == 0
        self.check_live(store, collection)

    def test_indices_and_aliases(
        self, store: ElasticsearchStore, collection: str, index: str
    ) -> None:
        stray = index.removesuffix("1") + "7"
        store._client.indices.create(index=stray)
        accepts = f"{index}.accepts.1_{RECIPE.hash}"
        store._client.indices.delete_alias(index=index, name=accepts)
        notes = f"{store._prefix}.{collection}.notes.000001"
        store._client.indices.delete(index=notes)
        assert store.audits.drift(collection) == [
            Drift("indices", "surplus", "", f"{stray} is no generation of the collection"),
            Drift("aliases", "missing", "", f"{index} has no alias through which it is written"),
            Drift("indices", "missing", "", f"{notes.removesuffix('.000001')} is not there"),
        ]
        store.audits.mend(collection)
        assert store.audits.drift(collection) == []
        self.documents(store, collection, ["a"], "blue")
        store.notes.put(collection, "a", {})
        self.check_live(store, collection)
