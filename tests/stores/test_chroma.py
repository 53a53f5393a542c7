"""The store with vectors in ChromaDB keeps the contract that the one with FAISS keeps, test by test."""

from collections.abc import Iterator

import pytest

from server.stores.chroma.engine import ChromaEngine
from server.stores.embedded.store import EmbeddedStore
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
    """ChromaDB is asked at every search, however few the vectors, once it has all of them."""
    folder = tmp_path_factory.mktemp("store")
    engine = ChromaEngine(folder / "chroma", exact=0, tail=0, patience=60)
    opened = EmbeddedStore(folder, engine=engine)
    yield opened
    opened.close()
