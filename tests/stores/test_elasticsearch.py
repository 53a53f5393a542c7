"""The Elasticsearch store on real servers of both majors: the contract, and what is its own."""

import uuid
from collections.abc import Callable, Iterator

import pytest

from server.stores.elasticsearch.store import ElasticsearchStore
from tests.services.elasticsearch import targets
from tests.stores import contract


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


class TestVectors(contract.VectorContract):
    pass


class TestFilters(contract.FilterContract):
    pass


class TestIdentifiers(contract.IdentifierContract):
    pass


class TestConcurrency(contract.ConcurrencyContract):
    pass
