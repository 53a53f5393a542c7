"""Index and search through the whole product with each embedder that is on a server."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from server.app import open_services
from server.documents import Document
from server.errors import ConfigurationError
from server.retrieval.query import SearchQuery
from server.settings import Settings
from server.web.services import Services
from tests.models.embedding_server import (
    ERNIE_KEY,
    ERNIE_SECRET,
    OPENAI_KEY,
    Answer,
    EmbeddingServer,
    ernie_error,
    serving,
)
from tests.services.gguf_models import NOISE

TEXTS = {
    "travel": "差旅报销须在十五天内提交，住宿费凭发票在限额内报销。",
    "leave": "员工每年有十天年假，须提前一周申请。",
    "password": "密码每九十天更换一次，长度不少于十四位。",
    "visitors": "访客须在前台登记并佩戴胸牌。",
}


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with serving() as server:
        yield server


@contextmanager
def opened(data: Path, **chosen: Any) -> Iterator[Services]:
    given = {"generator": "none", "reranker": "light", "search_timeout": 60, **chosen}
    services = open_services(Settings(data=data, **given))
    try:
        yield services
    finally:
        services.close()


def openai(server: EmbeddingServer) -> dict[str, Any]:
    return {
        "embedder": "openai:tiny",
        "openai_url": f"{server.url}/v1",
        "openai_api_key": OPENAI_KEY,
    }


def ernie(server: EmbeddingServer) -> dict[str, Any]:
    return {
        "embedder": "ernie:embedding-v1",
        "ernie_url": server.url,
        "ernie_api_key": ERNIE_KEY,
        "ernie_secret_key": ERNIE_SECRET,
    }


def fill(services: Services) -> list[str]:
    services.indexer.ensure_collection("default")
    documents = [Document.create(id=name, title="", text=text) for name, text in TEXTS.items()]
    results = services.indexer.put("default", documents, refresh=True)
    return [getattr(result, "status", "failed") for result in results]


def search(services: Services, query: str, mode: str = "hybrid") -> Any:
    return services.searcher.search(SearchQuery(query=query, mode=mode), groups=None)


@pytest.mark.parametrize("choose", [openai, ernie])
def test_documents_are_found_by_meaning(
    choose: Callable[[EmbeddingServer], dict[str, Any]], server: EmbeddingServer, tmp_path: Path
) -> None:
    with opened(tmp_path, **choose(server)) as services:
        server.faults = [
            Answer(500, {}, {"Retry-After": "0"}),
            ernie_error(18, "qps limit reached"),
        ]
        server.faults = server.faults[: 1 if choose is openai else 2]
        assert fill(services) == ["created"] * 4
        found = search(services, "差旅报销", "vector")
        assert [found.hits[0].document_id, len(found.hits)] == ["travel", 4]
        assert search(services, "差旅报销").degraded == ()
        assert services.components()["embedder"].ready
    # Another process, which has no setting that names it: the recipe does.
    with opened(tmp_path, **(choose(server) | {"embedder": "auto"})) as services:
        assert search(services, "年假申请", "vector").hits[0].document_id == "leave"
        assert fill(services) == ["unchanged"] * 4


def test_an_ollama_embeds_and_searches(ollama_url: str, tmp_path: Path) -> None:
    chosen = {"embedder": f"ollama:{NOISE}", "ollama_host": ollama_url}
    with opened(tmp_path, **chosen) as services:
        assert fill(services) == ["created"] * 4
        found = search(services, TEXTS["password"], "vector")
        assert [found.hits[0].document_id, len(found.hits)] == ["password", 4]
    with opened(tmp_path, **(chosen | {"embedder": "auto"})) as services:
        assert search(services, TEXTS["leave"], "vector").hits[0].document_id == "leave"


def test_search_goes_on_by_words_while_the_server_is_gone(tmp_path: Path) -> None:
    with serving() as server:
        chosen = openai(server)
        with opened(tmp_path, **chosen) as services:
            fill(services)
    with opened(tmp_path, **(chosen | {"search_timeout": 0.3})) as services:
        found = search(services, "差旅报销")
        assert found.hits[0].document_id == "travel"
        assert [part.stage for part in found.degraded] == ["vector"]
        assert "can't be reached" in found.degraded[0].reason
        component = services.components()["embedder"]
        assert not component.ready
        assert "can't be reached" in component.detail


def test_one_document_that_the_server_refuses_fails_alone(
    server: EmbeddingServer, tmp_path: Path
) -> None:
    with opened(tmp_path, **openai(server)) as services:

        def refuse(answer: Answer) -> Answer:
            return Answer(400, {"error": {"message": "flagged"}})

        # All together, then one by one: the second of the four is refused.
        server.faults = [refuse, lambda answer: answer, refuse]
        assert fill(services) == ["created", "failed", "created", "created"]


def test_a_collection_of_a_server_elsewhere_is_not_searched_by_meaning_offline(
    server: EmbeddingServer, tmp_path: Path
) -> None:
    with opened(tmp_path, **openai(server)) as services:
        fill(services)
    server.requests.clear()
    with opened(tmp_path, embedder="auto", openai_url="https://api.openai.com/v1") as services:
        found = search(services, "差旅报销")
        assert found.hits[0].document_id == "travel"
        assert "TANYUAN_OFFLINE" in found.degraded[0].reason
    with pytest.raises(ConfigurationError, match="TANYUAN_OFFLINE"):
        open_services(Settings(data=tmp_path, embedder="openai:text-embedding-3-small"))
    assert server.requests == []
