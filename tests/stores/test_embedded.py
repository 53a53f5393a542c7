"""The embedded store keeps the contract."""

from collections.abc import Iterator

import pytest

from server.stores.embedded.store import EmbeddedStore
from tests.stores import contract


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
    pass


class TestVectors(contract.VectorContract):
    pass


class TestFilters(contract.FilterContract):
    pass


class TestIdentifiers(contract.IdentifierContract):
    pass


class TestConcurrency(contract.ConcurrencyContract):
    pass
