"""Two running servers follow a rebuild and a roll back that a script makes, without a restart."""

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.product import Server, script, serving
from tests.services.elasticsearch import targets

C = "handbook"
WITHIN_SECONDS = 5


def ranks(server: Server, query: str) -> set[str]:
    """Which rankers took part in a search."""
    found = server.call(f"/v1/search?collection={C}&rerank=false&q={quote(query)}")
    return {name for hit in found["hits"] for name in hit["ranks"]}


def within(check: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + WITHIN_SECONDS
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.parametrize("kind", ["embedded", targets()[0]])
def test_running_servers_follow(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    settings: dict[str, str] = {"store": "embedded"}
    folders = (tmp_path / "shared", tmp_path / "shared")
    if kind != "embedded":
        elasticsearch: Callable[[str], str] = request.getfixturevalue("elasticsearch")
        settings = {
            "store": "elasticsearch",
            "elasticsearch_url": elasticsearch(kind),
            "index_prefix": f"test-{uuid.uuid4().hex[:12]}",
        }
        folders = (tmp_path / "one", tmp_path / "two")
    words_only: dict[str, Any] = {**settings, "embedder": "none"}
    with serving(folders[0], **words_only) as one, serving(folders[1], **words_only) as two:
        servers = (one, two)
        one.fill(C, **{f"d{n}": f"第{n}条：出差住宿按标准报销。" for n in range(12)})
        assert all(ranks(server, "住宿报销") == {"bm25"} for server in servers)

        record = script(
            "rebuild", "--collection", C, data=folders[0], **{**settings, "embedder": "e5"}
        )
        assert (record["state"], record["embedded"]) == ("promoted", 12)
        for server in servers:
            assert within(lambda s=server: "vector" in ranks(s, "住宿报销")), server  # type: ignore[misc]
        for number, server in enumerate(servers):
            server.fill(C, **{f"later{number}": "年休假满一年可休五天。"})
        for server in servers:
            found = server.call(
                f"/v1/search?collection={C}&mode=vector&rerank=false&q={quote('满一年的年休假是几天')}"
            )
            assert {hit["document_id"] for hit in found["hits"][:2]} == {"later0", "later1"}

        record = script("rollback", "--collection", C, data=folders[0], **words_only)
        assert record["kind"] == "rollback"
        for server in servers:
            assert within(lambda s=server: ranks(s, "年休假") == {"bm25"}), server  # type: ignore[misc]
            found = server.call(f"/v1/search?collection={C}&rerank=false&q={quote('年休假')}")
            assert {hit["document_id"] for hit in found["hits"]} == {"later0", "later1"}
        one.call(f"/v1/collections/{C}", method="DELETE")
