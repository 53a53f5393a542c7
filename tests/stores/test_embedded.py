"""The embedded store keeps the contract."""

from collections.abc import Iterator

import pytest

from server.errors import InvalidInput
from server.stores.contract import LegsRequest, TextClause
from server.stores.embedded.store import EmbeddedStore
from server.stores.filters import Range, Terms
from tests.stores import (
    audit_contract,
    contract,
    frequency_contract,
    generation_contract,
    note_contract,
    sparse_contract,
    window_contract,
)
from tests.stores.builders import bm25_ids, words, write


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    opened = EmbeddedStore(tmp_path_factory.mktemp("store"))
    yield opened
    opened.close()


class TestCollections(contract.CollectionContract):
    pass


class TestDocuments(contract.DocumentContract):
    pass


class TestBm25(contract.Bm25Contract):
    def test_a_chunk_without_a_field_counts_as_one_of_no_length(
        self, store: EmbeddedStore, collection: str
    ) -> None:
        """Where Lucene leaves such chunks out of the field's count and average (DECISIONS.md)."""
        corpus = [
            write("a", "red", title="travel costs"),
            write("b", "red", title="travel"),
            write("c", "red"),
            write("d", "red"),
        ]
        self.put(store, collection, *corpus)
        clauses = (TextClause(field="title_words", terms=("travel",)),)
        leg = store.search(collection, LegsRequest(text=clauses)).bm25
        assert leg is not None
        assert dict(leg.hits) == pytest.approx(self.expected(corpus, clauses), rel=1e-5)

    def test_lone_surrogates_are_refused(self, store: EmbeddedStore, collection: str) -> None:
        self.put(store, collection, write("a", "red"))
        for request in (
            LegsRequest(text=words("\ud800")),
            LegsRequest(text=words("red"), filter=Terms("acl", ("\udfff",))),
            LegsRequest(text=words("red"), filter=Range(key="acl", gte="\udfff")),
        ):
            with pytest.raises(InvalidInput, match="surrogate"):
                store.search(collection, request)
        assert bm25_ids(store, collection, "red") == ["a:0"]


class TestFrequencies(frequency_contract.FrequencyContract):
    pass


class TestVectors(contract.VectorContract):
    pass


class TestPhrases(contract.PhraseContract):
    pass


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
    CONTAINING_DOCUMENTS = 10_500  # past what one search can list


class TestLoad(generation_contract.LoadContract):
    LOAD_DOCUMENTS = 400


class TestNotes(note_contract.NoteContract):
    pass


class TestAudits(audit_contract.AuditContract):
    pass
