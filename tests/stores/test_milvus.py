"""The embedded store keeps the contract with its vectors in Milvus."""

from collections.abc import Iterator

import pytest

from server.errors import InvalidInput
from server.stores.contract import LegsRequest, TextClause
from server.stores.embedded.milvus.engine import MilvusEngine
from server.stores.embedded.store import EmbeddedStore
from server.stores.filters import Range, Terms
from tests.stores import (
    audit_contract,
    contract,
    frequency_contract,
    generation_contract,
    note_contract,
    window_contract,
)
from tests.stores.builders import bm25_ids, words, write


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    folder = tmp_path_factory.mktemp("store")
    opened = EmbeddedStore(folder, engine=MilvusEngine(folder))
    yield opened
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


class TestFilters(contract.FilterContract):
    pass


class TestIdentifiers(contract.IdentifierContract):
    pass


class TestConcurrency(contract.ConcurrencyContract):
    pass


class TestWindows(window_contract.WindowContract):
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
