"""BGE embedder and reranker through the whole product, with tiny models of the same architectures."""

import pytest

from server.app import open_services
from server.documents import Document
from server.retrieval.query import SearchQuery
from server.settings import Settings
from tests.models import tiny


@pytest.fixture
def services(tmp_path):
    services = open_services(
        Settings(
            data=tmp_path,
            embedder=f"bge:{tiny.bert(tmp_path / 'embedder')}",
            reranker=f"bge:{tiny.reranker(tmp_path / 'reranker')}",
            generator="none",
            rerank_timeout=60,
            search_timeout=60,
        )
    )
    yield services
    services.store.close()


def test_a_search_comes_back_fused_and_reranked(services):
    services.indexer.ensure_collection("default")
    documents = [
        Document.create(
            id=f"d{n}", title=f"制度{n}", text=f"第{n}条：差旅报销须在{n + 5}天内提交。"
        )
        for n in range(12)
    ]
    put = services.indexer.put("default", documents, refresh=True)
    assert [result.status for result in put] == ["created"] * 12

    found = services.searcher.search(SearchQuery(query="差旅报销", size=12), groups=None)

    assert found.degraded == ()
    assert [hit.ranks["rerank"] for hit in found.hits] == list(range(1, 13))
    scores = [hit.scores["rerank"] for hit in found.hits]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert all({"bm25", "vector", "fused", "rerank"} <= hit.ranks.keys() for hit in found.hits)
    assert {"rerank"} <= {stage.name for stage in found.stages}


def test_what_was_chosen_says_so(services):
    chosen = {component: name for component, name, _ in services.choices}

    assert chosen["embedder"].startswith("bge:")
    assert chosen["reranker"].startswith("bge:")
    assert services.components()["embedder"].ready
