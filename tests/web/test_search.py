"""Search by link and by body: what is asked reaches the pipeline, and what makes no sense doesn't."""

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from server.errors import StoreUnavailable
from server.settings import Settings
from server.web.application import build
from server.web.services import Services
from tests.web.fakes import make_services


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """One for all tests here, which only read."""
    made = make_services(Settings(data=tmp_path_factory.mktemp("search")))
    yield made
    made.store.close()


@pytest.fixture(scope="module")
def client(services: Services) -> FlaskClient:
    client = build(services).test_client()

    def put(document_id: str, text: str, **fields: object) -> None:
        path = f"/v1/collections/default/documents/{document_id}?refresh=true"
        assert client.put(path, json={"text": text, **fields}).status_code == 201

    put("a", "住宿标准 每晚 500 元", title="差旅", metadata={"department": "hr", "year": 2024})
    put("b", "住宿标准 旧版 每晚 400 元", metadata={"department": "hr", "year": 2022})
    put("c", "设备标准 笔记本电脑", metadata={"department": ["it", "hr"], "final": True})
    put("d", "住宿登记", source="intranet/d.md")
    return client


def ids(response: object) -> set[str]:
    assert response.status_code == 200, response.text
    return {hit["document_id"] for hit in response.json["hits"]}


def test_a_link_and_a_body_find_the_same(client: FlaskClient) -> None:
    link = client.get("/v1/search", query_string={"q": "住宿标准", "size": 2, "mode": "bm25"})
    body = client.post("/v1/search", json={"query": "住宿标准", "size": 2, "mode": "bm25"})
    assert link.json["hits"] == body.json["hits"]
    assert len(link.json["hits"]) == 2
    hit = link.json["hits"][0]
    assert hit["ranks"] == {"bm25": 1}
    span = hit["highlights"][0]
    assert hit["text"][span["start"] : span["end"]] == "住宿标准"
    assert {"name", "took_ms"} == set(link.json["stages"][0])


def test_missing_stages_are_named(client: FlaskClient) -> None:
    degraded = client.get("/v1/search?q=住宿").json["degraded"]
    assert {item["stage"] for item in degraded} == {"vector", "rerank"}
    assert client.get("/v1/search?q=住宿&mode=bm25&rerank=false").json["degraded"] == []
    only = client.get("/v1/search?q=住宿&mode=vector")
    assert (only.status_code, only.json["code"]) == (503, "embedder_unavailable")


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"term": {"department": "hr"}}, {"a", "b", "c"}),
        ({"terms": {"department": ["it", "legal"]}}, {"c"}),
        ({"terms": {"department": []}}, set()),
        ({"range": {"year": {"gte": 2023, "lt": 2025}}}, {"a"}),
        ({"range": {"year": {"lt": 2023}}}, {"b"}),
        ({"exists": "year"}, {"a", "b"}),
        ({"not": {"exists": "department"}}, {"d"}),
        ({"term": {"document_id": "d"}}, {"d"}),
        ({"term": {"source": "intranet/d.md"}}, {"d"}),
        ({"term": {"final": True}}, {"c"}),
        ({"term": {"year": 2024.0}}, {"a"}),
        ({"any": [{"term": {"year": 2022}}, {"term": {"final": True}}]}, {"b", "c"}),
        ({"all": [{"exists": "year"}, {"not": {"term": {"year": 2022}}}]}, {"a"}),
        ([{"exists": "year"}, {"term": {"year": 2022}}], {"b"}),
        ([], {"a", "b", "c", "d"}),
        (None, {"a", "b", "c", "d"}),
    ],
)
def test_filters(client: FlaskClient, filters: object, expected: set[str]) -> None:
    response = client.post(
        "/v1/search", json={"query": "住宿 标准", "mode": "bm25", "filters": filters}
    )
    assert ids(response) == expected


def nested(depth: int) -> object:
    return {"exists": "x"} if depth == 0 else {"not": nested(depth - 1)}


@pytest.mark.parametrize(
    ("filters", "place"),
    [
        ({"term": {"acl": "hr"}}, "filters.term"),
        ({"term": {"title": "x"}}, "filters.term"),
        ({"term": {"a": "x", "b": "y"}}, "filters.term"),
        ({"term": {}}, "filters.term"),
        ({"term": {"a": None}}, "filters.term"),
        ({"term": {"a": "\x00"}}, "filters.term"),
        ({"term": {"a": 2**60}}, "filters.term"),
        ({"term": {"a": 10**400}}, "filters.term"),
        ({"exists": "a..b"}, "filters.exists"),
        ({"terms": {"a": "x"}}, "filters.terms"),
        ({"terms": {"a": ["x"] * 1001}}, "filters"),
        ({"range": {"year": {}}}, "filters.range"),
        ({"range": {"year": {"gte": 1, "lt": "b"}}}, "filters.range"),
        ({"range": {"year": {"gte": True}}}, "filters.range"),
        ({"range": {"year": {"from": 1}}}, "filters.range"),
        ({"unknown": 1}, "filters"),
        ({"exists": "a", "term": {"b": 1}}, "filters"),
        ({}, "filters"),
        ("department:hr", "filters"),
        ([[]], "filters[0]"),
        (nested(9), "filters"),
        ({"all": [{"terms": {"a": ["x"] * 600}}, {"terms": {"b": ["x"] * 600}}]}, "filters"),
        ({"any": [{"exists": "a"}] * 101}, "filters"),
    ],
)
def test_bad_filters_are_refused_by_place(client: FlaskClient, filters: object, place: str) -> None:
    response = client.post("/v1/search", json={"query": "x", "filters": filters})
    assert response.status_code == 400, response.text
    assert response.json["errors"][0]["field"].startswith(place), response.json


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"query": ""}, "query"),
        ({"query": " \n"}, "query"),
        ({"query": "x" * 10_000}, "query"),
        ({"query": "a\x00"}, "query"),
        ({"query": 5}, "query"),
        ({"query": None}, "query"),
        ({"size": -1}, "size"),
        ({"size": 0}, "size"),
        ({"size": 101}, "size"),
        ({"size": "10"}, "size"),
        ({"size": True}, "size"),
        ({"size": 1.5}, "size"),
        ({"from": -1}, "from"),
        ({"offset": 1}, "offset"),
        ({"mode": "both"}, "mode"),
        ({"rerank": 1}, "rerank"),
        ({"group": "true"}, "group"),
        ({"collection": "UPPER"}, "collection"),
        ({"fusion": "sum"}, "fusion"),
        ({"fusion": {"bm25": 1}}, "fusion.method"),
        ({"fusion": {"method": "rrf", "bm25": -1}}, "fusion.bm25"),
        ({"fusion": {"method": "rrf", "bm25": 0, "vector": 0}}, "fusion"),
        ({"explain": 1}, "explain"),
    ],
)
def test_bad_searches_are_refused_by_field(
    client: FlaskClient, change: dict[str, object], field: str
) -> None:
    response = client.post("/v1/search", json={"query": "x", **change})
    assert response.status_code == 400, response.text
    assert response.json["errors"][0]["field"] == field, response.json


@pytest.mark.parametrize(
    "query",
    [
        "",
        "q=",
        "q=%20",
        "q=x&q=y",
        "q=x&size=-1",
        "q=x&size=abc",
        "q=x&size=1_0",
        "q=x&size=%EF%BC%91",
        "q=x&size=",
        "q=x&size=99999999999999999999",
        "q=x&rerank=maybe",
        "q=x&filters=%7B%7D",
        "q=%ff",
        "q=%ed%a0%80",
        "q=a%00b",
        "query=x",
        "&".join(f"p{n}=1" for n in range(60)),
    ],
)
def test_bad_links_are_refused(client: FlaskClient, query: str) -> None:
    response = client.get(f"/v1/search?{query}")
    assert response.status_code == 400, response.text
    assert response.json["code"] == "invalid_input"
    assert response.json["errors"]


def test_pages_end_at_ten_thousand_hits(client: FlaskClient) -> None:
    assert client.get("/v1/search?q=x&from=9990&size=10").status_code == 200
    deep = client.get("/v1/search?q=x&from=9991&size=10")
    assert (deep.status_code, deep.json["code"]) == (400, "page_too_deep")
    assert client.get("/v1/search?q=x&from=999999999999999999").json["code"] == "page_too_deep"


@pytest.mark.parametrize("fusion", ["rrf", {"method": "convex", "vector": 2}, None])
def test_fusion_may_be_chosen(client: FlaskClient, fusion: object) -> None:
    assert ids(client.post("/v1/search", json={"query": "住宿", "fusion": fusion}))
    assert ids(client.get("/v1/search?q=住宿&fusion=rrf"))


def test_a_missing_collection_and_a_store_in_trouble(
    client: FlaskClient, services: Services
) -> None:
    missing = client.get("/v1/search?q=x&collection=none")
    assert (missing.status_code, missing.json["code"]) == (404, "collection_not_found")
    services.store.fault = StoreUnavailable("The store is away.")
    try:
        assert client.get("/v1/search?q=x").status_code == 503
    finally:
        services.store.fault = None
