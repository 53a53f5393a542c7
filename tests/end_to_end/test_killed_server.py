"""kill -9 of the server while documents are put: what was acknowledged is found, once."""

import http.client
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.app import open_store
from server.settings import Settings
from tests.product import Server, serving
from tests.services.elasticsearch import targets

THREADS = 4
WORD = "住宿标准"
ENOUGH = 60  # acknowledged documents before the kill


@pytest.fixture(params=["embedded", "elasticsearch"])
def store(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The settings of a store that the test may fill."""
    if request.param == "embedded":
        yield {"store": "embedded"}
        return
    url = request.getfixturevalue("elasticsearch")(targets()[0])
    prefix = f"test-{uuid.uuid4().hex[:12]}"
    yield {"store": "elasticsearch", "elasticsearch_url": url, "index_prefix": prefix}
    opened = open_store(Settings(store="elasticsearch", elasticsearch_url=url, index_prefix=prefix))
    opened.delete_collection("default")
    opened.close()


def test_every_acknowledged_document_is_found_once(tmp_path: Path, store: dict[str, str]) -> None:
    settings = {"embedder": "none", **store}
    acknowledged: dict[str, int] = {}  # id → chunks
    with serving(tmp_path, **settings) as server:
        server.fill("default")
        writers = [
            threading.Thread(target=put_until_gone, args=(server, number, acknowledged))
            for number in range(THREADS)
        ]
        for writer in writers:
            writer.start()
        wait_for(lambda: len(acknowledged) >= ENOUGH or not any(w.is_alive() for w in writers))
        server.kill()
        for writer in writers:
            writer.join()
    assert len(acknowledged) >= ENOUGH
    assert min(acknowledged.values()) > 1
    with serving(tmp_path, **settings) as server:
        found = Counter(str(hit["chunk_id"]) for hit in everything(server))
        chunks = {f"{key}:{part}" for key, parts in acknowledged.items() for part in range(parts)}
        assert chunks - found.keys() == set()
        assert {chunk_id: count for chunk_id, count in found.items() if count > 1} == {}
        # A put that was cut off can be repeated, and stands once too.
        for document_id in next_ids(acknowledged):
            chunks = {
                f"{document_id}:{part}" for part in range(put(server, document_id, refresh=True))
            }
            again = Counter(str(hit["chunk_id"]) for hit in everything(server))
            assert {chunk_id: again[chunk_id] for chunk_id in chunks} == dict.fromkeys(chunks, 1)


def put_until_gone(server: Server, number: int, acknowledged: dict[str, int]) -> None:
    """Put one document after another until the server answers no more."""
    for count in range(100_000):
        document_id = f"{number}-{count}"
        try:
            acknowledged[document_id] = put(server, document_id)
        except (OSError, http.client.HTTPException):  # refused, or cut off in its answer
            return


def put(server: Server, document_id: str, *, refresh: bool = False) -> int:
    """Put a document of some chunks, each with the word looked for; how many it has."""
    text = f"{document_id}号文件的{WORD}。" * 150
    path = f"/v1/collections/default/documents/{document_id}?refresh={str(refresh).lower()}"
    return int(server.call(path, {"text": text}, method="PUT")["chunks"])


def next_ids(acknowledged: dict[str, int]) -> list[str]:
    """The documents that the writers were putting when the server went."""
    done = Counter(key.partition("-")[0] for key in acknowledged)
    return [f"{number}-{done[str(number)]}" for number in range(THREADS)]


def everything(server: Server) -> Iterator[dict[str, object]]:
    """All hits of the word, page after page."""
    start = 0
    while True:
        body = {"query": WORD, "mode": "bm25", "size": 100, "from": start}
        hits = server.call("/v1/search", body)["hits"]
        yield from hits
        if len(hits) < 100:
            return
        start += 100


def wait_for(condition: Callable[[], bool], *, seconds: float = 60.0) -> None:
    done = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        done.wait(0.02)
    raise AssertionError("it did not come about in time")
