"""BGE-M3's sparse weights from the model's folder to the response, on both stores."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from server.app import open_services
from server.models.m3 import M3Embedder
from server.settings import Settings
from server.web.application import build
from tests.models import tiny
from tests.services.elasticsearch import targets

TEXTS = {
    "travel": "差旅报销标准按照职级和城市分为三档，一线城市每晚住宿上限六百元。",
    "leave": "年假病假事假，请申请审批流程。",
    "guide": "公司员工手册密码。",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.m3(tmp_path_factory.mktemp("models") / "bge-m3")


@pytest.fixture(params=["embedded", targets()[0]])
def client(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Iterator[FlaskClient]:
    store = {"store": "embedded"}
    if request.param != "embedded":
        url = request.getfixturevalue("elasticsearch")(request.param)
        prefix = f"test-{uuid.uuid4().hex[:12]}"
        store = {"store": "elasticsearch", "elasticsearch_url": url, "index_prefix": prefix}
    settings = Settings(
        data=tmp_path,
        embedder=f"bge:{folder}",
        reranker="light",
        generator="none",
        **store,  # type: ignore[arg-type]
    )
    services = open_services(settings)
    with build(services).test_client() as opened:
        yield opened
    for collection in services.store.collections():
        services.store.delete_collection(collection.name)
    services.store.close()


def test_hits_say_what_sparse_weights_gave_them(client: FlaskClient, folder: Path) -> None:
    assert client.put("/v1/collections/c", json={}).status_code == 201
    for name, text in TEXTS.items():
        path = f"/v1/collections/c/documents/{name}?refresh=true"
        assert client.put(path, json={"text": text}).status_code == 201
    asked = {"query": "一线城市住宿", "collection": "c", "explain": True}
    found = client.post("/v1/search", json=asked).get_json()
    assert found["degraded"] == []
    embedder = M3Embedder(folder)
    query = embedder.encode_query(asked["query"]).sparse
    assert query is not None
    share = embedder.sparse_share / embedder.temperature
    given = []
    for hit in found["hits"]:
        [made] = embedder.encode_documents([hit["text"]])
        assert made.sparse is not None
        kept = made.sparse.rounded().as_dict()
        score = sum(weight * kept.get(token, 0.0) for token, weight in query.as_dict().items())
        assert hit["scores"].get("sparse", 0.0) == pytest.approx(score, rel=1e-3)
        assert hit["evidence"]["sparse"] == pytest.approx(share * score, rel=1e-3)
        given += [(hit["ranks"]["sparse"], score)] if score else []
    assert len(given) > 1
    assert [rank for rank, _ in sorted(given)] == list(range(1, len(given) + 1))
    assert sorted(given) == sorted(given, key=lambda each: -each[1])
    without = asked | {"fusion": {"method": "log_odds", "sparse": 0}}
    plain = client.post("/v1/search", json=without).get_json()
    assert all("sparse" not in hit["scores"] for hit in plain["hits"])
    refused = client.post("/v1/search", json=asked | {"fusion": {"method": "rrf", "sparse": -1}})
    assert refused.status_code == 400
