"""Elasticsearch for a test session: started at the first use, one server for each target."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.services.elasticsearch import server


@pytest.fixture(scope="session")
def elasticsearch() -> Iterator[Callable[[str], str]]:
    """Target (see ``tests.services.elasticsearch.targets``) → URL of a running server.

    Tests use a prefix of their own for their indices and remove them.
    """
    urls: dict[str, str] = {}
    with ExitStack() as running:

        def url_of(target: str) -> str:
            if target not in urls:
                urls[target] = running.enter_context(server(target))
            return urls[target]

        yield url_of
