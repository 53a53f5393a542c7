"""The Elasticsearch store on real servers of both majors: the contract, and what is its own."""

import uuid
from collections.abc import Callable, Iterator

import pytest

from server.stores.contract import LegsRequest
from server.stores.elasticsearch.store import ElasticsearchStore
from tests.services.elasticsearch import targets
from tests.stores import (
    audit_contract,
    contract,
    frequency_contract,
    generation_contract,
    note_contract,
    sparse_contract,
    window_contract,
)
from tests.stores.builders import RECIPE, vector_of, words, write


@pytest.fixture(scope="module", params=targets())
def url(request: pytest.FixtureRequest, elasticsearch: Callable[[str], str]) -> str:
    return elasticsearch(request.param)


@pytest.fixture(scope="module")
def store(url: str) -> Iterator[ElasticsearchStore]:
    """A store whose indices have a prefix of their own and are removed."""
    opened = ElasticsearchStore(url, prefix=f"test-{uuid.uuid4().hex[:12]}")
    yield opened
    for collection in opened.collections():
        opened.delete_collection(collection.name)
    opened.close()


class TestCollections(contract.CollectionContract):
    pass


class TestDocuments(contract.DocumentContract):
    pass


class TestBm25(contract.Bm25Contract):
    pass


class TestFrequencies(frequency_contract.FrequencyContract):
    pass


class TestVectors(contract.VectorContract):
    pass


class TestPhrases(contract.PhraseContract):
    pass


class TestShards(contract.StoreContract):
    """Several shards answer as one does."""

    @pytest.fixture
    def sharded(self, url: str) -> Iterator[ElasticsearchStore]:
        opened = ElasticsearchStore(url, prefix=f"test-{uuid.uuid4().hex[:12]}", shards=3)
        opened.create_collection("sharded", recipe=RECIPE)
        yield opened
        opened.delete_collection("sharded")
        opened.close()

    def test_several_shards_answer_as_one_does(
        self, store: ElasticsearchStore, sharded: ElasticsearchStore, collection: str
    ) -> None:
        writes = [
            write(f"d{n}", *(f"red w{n % 7} n{n} part{p}" + " filler" * (n % 5) for p in range(2)))
            for n in range(40)
        ]
        self.put(store, collection, *writes)
        self.put(sharded, "sharded", *writes)
        for number in range(7):
            request = LegsRequest(
                text=words("red", f"w{number}"), vector=vector_of(f"q{number}"), k=25
            )
            one, three = store.search(collection, request), sharded.search("sharded", request)
            assert one.bm25 is not None
            assert three.bm25 is not None
            assert three.bm25.total == one.bm25.total == 80
            assert dict(three.bm25.hits) == pytest.approx(dict(one.bm25.hits), rel=1e-5)
            assert [name for name, _ in three.bm25.hits] == [name for name, _ in one.bm25.hits]
            assert one.vector is not None
            assert three.vector is not None
            assert dict(three.vector.hits) == pytest.approx(dict(one.vector.hits), abs=1e-5)

    def test_frequencies_are_always_those_of_the_same_shard(
        self, sharded: ElasticsearchStore
    ) -> None:
        self.put(sharded, "sharded", *(write(f"d{n}", "red", f"w{n % 2}") for n in range(60)))
        found = sharded.frequencies("sharded", {"words": ["red", "w0", "none"]})
        assert 20 < found.chunks < 60
        assert found.of["words"]["red"] / found.chunks == pytest.approx(0.5, abs=0.2)
        assert found.of["words"]["w0"] / found.chunks == pytest.approx(0.25, abs=0.2)
        assert found.of["words"]["none"] == 0
        for _ in range(5):
            assert sharded.frequencies("sharded", {"words": ["red", "w0", "none"]}) == found


class TestFilters(contract.FilterContract):
    pass


class TestIdentifiers(contract.IdentifierContract):
    pass


class TestConcurrency(contract.ConcurrencyContract):
    pass


class TestWindows(window_contract.WindowContract):
    pass


class TestSparse(sparse_contract.SparseContract):
    pass


class TestGenerations(generation_contract.GenerationContract):
    pass


class TestPending(generation_contract.PendingContract):
    pass


class TestFences(generation_contract.FenceContract):
    pass


class TestLiveDerivation(generation_contract.LiveDerivationContract):
    pass


class TestContaining(generation_contract.ContainingContract):
    pass


class TestLoad(generation_contract.LoadContract):
    pass


class TestNotes(note_contract.NoteContract):
    pass


class TestAudits(audit_contract.AuditContract):
    pass
