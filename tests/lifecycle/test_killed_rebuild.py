"""scripts/rebuild killed with -9: the collection serves on, and the next call leaves nothing behind.

TANYUAN_TEST_KILLS says how often (20 in the README's figures).
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.ingest.indexer import Indexer, Put
from server.lifecycle.progress import Rebuilds
from server.live import LiveCollections
from server.retrieval.query import SearchQuery
from server.retrieval.searcher import Searcher
from server.stores.contract import Store
from server.stores.elasticsearch.store import ElasticsearchStore
from server.stores.embedded.store import EmbeddedStore
from tests.fakes import live_collections
from tests.lifecycle.load import TOPICS, document, fill
from tests.product import ROOT, environment, script
from tests.services.elasticsearch import targets

C = "handbook"
KILLS = int(os.environ.get("TANYUAN_TEST_KILLS", "7"))
DOCUMENTS = 1_000
ATTEMPTS = 10


@dataclass
class Place:
    """A collection without vectors, as scripts of other processes find it."""

    store: Store
    data: Path
    settings: dict[str, str]

    @property
    def live(self) -> LiveCollections:
        return live_collections(self.store, JiebaAnalyzer(), pinned=())

    def rebuild(self, tokens: int) -> "subprocess.Popen[bytes]":
        settings = {**self.settings, "embedder": "none", "chunk_tokens": str(tokens)}
        return subprocess.Popen(
            [sys.executable, ROOT / "scripts" / "rebuild", "--collection", C, "--json"],
            env=environment(self.data, **settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def physical(self) -> list[str]:
        """Ids of the generations that have files or an index."""
        if isinstance(self.store, EmbeddedStore):
            folders = (self.data / "store" / "collections").glob(f"{C}.*/generations/*")
            return sorted(folder.name for folder in folders)
        import elasticsearch

        headers = {"accept": "application/vnd.elasticsearch+json; compatible-with=8"}
        with elasticsearch.Elasticsearch(self.settings["elasticsearch_url"]) as client:
            found = client.options(headers=headers).indices.get(
                index=f"{self.settings['index_prefix']}.{C}.chunks*", filter_path="*.aliases"
            )
        return sorted(index.rpartition(".")[2] for index in found.body)


@pytest.fixture(params=["embedded", targets()[0]])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    store: Store
    if request.param == "embedded":
        settings = {"store": "embedded"}
        store = EmbeddedStore(tmp_path / "store")
    else:
        url: Callable[[str], str] = request.getfixturevalue("elasticsearch")
        settings = {
            "store": "elasticsearch",
            "elasticsearch_url": url(request.param),
            "index_prefix": f"test-{uuid.uuid4().hex[:12]}",
        }
        store = ElasticsearchStore(settings["elasticsearch_url"], prefix=settings["index_prefix"])
    yield Place(store, tmp_path, settings)
    store.delete_collection(C)
    store.close()


def moment(place: Place, number: int, seconds: float) -> Callable[[], bool]:
    """When to kill: by the state that the rebuild is in, or at a random time after its start."""
    store, before = place.store, place.store.live(C, fresh=True).id
    rebuilds = Rebuilds(store.notes, C)
    known = {record.id for record in rebuilds.all()}
    at = time.monotonic() + Random(number).uniform(0.35, 0.95) * seconds

    def state() -> str:
        return next((each.state for each in rebuilds.all() if each.id not in known), "")

    return {
        0: lambda: state() == "filling",
        1: lambda: state() in {"catching_up", "verifying"},
        2: lambda: store.live(C, fresh=True).fence != "",
        3: lambda: store.live(C, fresh=True).id != before,
    }.get(number % 7, lambda: time.monotonic() > at)


def kill(place: Place, number: int, seconds: float) -> str:
    """Kill a rebuild that is under way; where it was. One that ended by itself first does not count:
    the next is begun."""
    store = place.store
    for attempt in range(ATTEMPTS):
        before = store.live(C, fresh=True).id
        due = moment(place, number + 7 * KILLS * attempt, seconds)
        process = place.rebuild(64 + number + 100 * attempt)
        while not due() and process.poll() is None:
            pass  # the fence stands for some milliseconds
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            live = store.live(C, fresh=True)
            if live.fence:
                return "fenced"
            if live.id != before:
                return "swapped"
            records = Rebuilds(store.notes, C).all()
            return next((each.state for each in records if not each.ended), "beginning")
    raise AssertionError(f"every rebuild ended before it was killed at moment {number % 7}")


@pytest.mark.timeout(1500)
def test_killed_at_any_point(place: Place) -> None:
    store = place.store
    indexer = Indexer(store, place.live)
    searcher = Searcher(store=store, live=place.live, reranker=None)
    documents = fill(indexer, C, DOCUMENTS)
    store.refresh(C)
    began = time.monotonic()
    assert place.rebuild(390).wait() == 0
    seconds = time.monotonic() - began
    killed_in: list[str] = []
    for number in range(KILLS):
        killed_in.append(kill(place, number, seconds))

        written = document(f"d{number}", 1)
        results: list[object] = []
        # A fence that was left keeps it waiting until the next command lifts it.
        writing = threading.Thread(target=lambda: results.extend(indexer.put(C, [written])))  # noqa: B023
        writing.start()
        query = SearchQuery(query=TOPICS[number % len(TOPICS)], collection=C, rerank=False)
        assert searcher.search(query, groups=None).hits

        how = "--abandon" if number % 2 else "--resume"
        done = subprocess.run(
            [sys.executable, ROOT / "scripts" / "rebuild", "--collection", C, how, "--json"],
            env=environment(place.data, **place.settings, embedder="none"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        nothing_was_begun = "no rebuild that was cut off" in done.stderr
        assert done.returncode == 0 or nothing_was_begun, done.stdout + done.stderr
        writing.join()
        assert [type(result) for result in results] == [Put], results
        documents[written.id] = written

        generations = store.generations.all(C)
        assert [each.state for each in generations if each.state != "kept"] == ["live"]
        assert len(generations) <= 2
        assert place.physical() == [each.id for each in generations]
        assert all(each.ended for each in Rebuilds(store.notes, C).all())
        live = store.live(C, fresh=True)
        assert store.generations.pending_count(C, live.id) == 0
        assert {each.document.id: each.document for each in store.documents(C)} == documents
    print(json.dumps({"store": store.kind, "killed in": killed_in}))  # noqa: T201
    assert (
        script("rebuild", "--collection", C, data=place.data, **place.settings, embedder="none")[
            "state"
        ]
        == "promoted"
    )
