"""The store with vectors in Milvus Lite keeps the contract that the one with FAISS keeps, test by test."""

from collections.abc import Iterator

import pytest

from server.stores.embedded.store import EmbeddedStore
from server.stores.milvus.engine import MilvusEngine
from tests.stores.test_embedded import (  # noqa: F401
    TestAudits,
    TestBm25,
    TestCollections,
    TestConcurrency,
    TestContaining,
    TestDocuments,
    TestFences,
    TestFilters,
    TestFrequencies,
    TestGenerations,
    TestIdentifiers,
    TestLiveDerivation,
    TestLoad,
    TestNotes,
    TestPending,
    TestPhrases,
    TestSparse,
    TestVectors,
    TestWindows,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    folder = tmp_path_factory.mktemp("store")
    opened = EmbeddedStore(folder, engine=MilvusEngine(folder))
    yield opened
    opened.close()
