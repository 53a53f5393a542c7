"""Fixtures of the lifecycle's tests: the stores that they run on."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.stores.contract import Store
from server.stores.elasticsearch.store import ElasticsearchStore
from server.stores.embedded.store import EmbeddedStore
from tests.services.elasticsearch import targets


@pytest.fixture(params=["embedded", targets()[0]])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens one more store on the same data, as another process would have it."""
    opened: list[Store] = []
    prefix = f"test-{uuid.uuid4().hex[:12]}"
    url = ""
    if request.param != "embedded":
        url = request.getfixturevalue("elasticsearch")(request.param)

    def make() -> Store:
        made: Store = (
            ElasticsearchStore(url, prefix=prefix) if url else EmbeddedStore(tmp_path / "store")
        )
        opened.append(made)
        return made

    yield make
    for collection in opened[0].collections() if opened else ():
        opened[0].delete_collection(collection.name)
    for one in opened:
        one.close()


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    return open_store()
