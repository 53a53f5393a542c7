"""A small collection on every store, and searches of it."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Document
from server.ingest.chunker import Chunker
from server.retrieval.searcher import Searcher
from server.stores.contract import Store
from server.stores.elasticsearch.store import ElasticsearchStore
from server.stores.embedded.store import EmbeddedStore
from tests.fakes import FakeEmbedder, count_tokens, live_collections, make_indexer
from tests.services.elasticsearch import targets

COLLECTION = "judged"
CHUNKER = Chunker(count_tokens, 64)
TOPICS = ("报销", "年假", "加班", "VPN", "采购")


def documents() -> list[Document]:
    """Some of one chunk and some of several, so that lists of chunks and of documents differ."""
    return [
        Document.create(
            id=f"{topic}-{number}",
            title=f"{topic}规定第{number}版",
            text="\n\n".join(f"{topic}的流程第{number}条，" * (6 + part) for part in range(number)),
        )
        for topic in TOPICS
        for number in (1, 2, 4)
    ]


@pytest.fixture(params=["embedded", targets()[0]])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store
    if request.param == "embedded":
        opened = EmbeddedStore(tmp_path / "store")
    else:
        url = request.getfixturevalue("elasticsearch")(request.param)
        opened = ElasticsearchStore(url, prefix=f"test-{uuid.uuid4().hex[:12]}")
    yield opened
    for collection in opened.collections():
        opened.delete_collection(collection.name)
    opened.close()


@pytest.fixture(scope="package")
def analyzer() -> JiebaAnalyzer:
    return JiebaAnalyzer()


@pytest.fixture
def make_searcher(store: Store, analyzer: JiebaAnalyzer) -> Callable[..., Searcher]:
    """Searchers of the collection, filled once; ``embedder`` serves the queries."""
    indexer = make_indexer(store, analyzer, FakeEmbedder(), CHUNKER)
    indexer.ensure_collection(COLLECTION)
    indexer.put(COLLECTION, documents(), refresh=True)

    def make(embedder: FakeEmbedder | None = None, **parts: object) -> Searcher:
        live = live_collections(store, analyzer, embedder or FakeEmbedder(), CHUNKER)
        return Searcher(**{"store": store, "live": live, "reranker": None, **parts})  # type: ignore[arg-type]

    return make
