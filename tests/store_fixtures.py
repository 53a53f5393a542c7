"""A store of either kind, for tests of what works alike on both."""

import uuid
from collections.abc import Iterator

import pytest

from server.stores.contract import Store
from server.stores.elasticsearch.store import ElasticsearchStore
from server.stores.embedded.store import EmbeddedStore
from tests.services.elasticsearch import targets


@pytest.fixture(scope="module", params=["embedded", targets()[0]])
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    """An empty store for the module, twice: the embedded one, then Elasticsearch."""
    opened: Store
    if request.param == "embedded":
        opened = EmbeddedStore(tmp_path_factory.mktemp("store"))
    else:
        url = request.getfixturevalue("elasticsearch")(request.param)
        opened = ElasticsearchStore(url, prefix=f"test-{uuid.uuid4().hex[:12]}")
    yield opened
    for collection in opened.collections():
        opened.delete_collection(collection.name)
    opened.close()
