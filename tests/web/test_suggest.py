"""The search box's call, and what a search says was meant."""

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from server.errors import StoreUnavailable
from server.web.application import build
from server.web.services import Services

Put = Callable[..., None]


@pytest.fixture
def filled(services: Services, client: FlaskClient, put: Put) -> FlaskClient:
    put("travel", "员工差旅报销须在十五日内提交。", title="差旅费用报销标准")
    put("pay", "极光计划与裁员名单。", title="薪酬方案", acl=["hr"])
    services.suggester.prepare("default")
    return client


def suggested(
    client: FlaskClient, headers: dict[str, str] | None = None, **query: object
) -> list[str]:
    response = client.get("/v1/suggest", query_string=query, headers=headers)
    assert response.status_code == 200, response.text
    assert response.json["degraded"] == []
    return [each["text"] for each in response.json["suggestions"]]


def test_what_is_typed_is_completed(filled: FlaskClient) -> None:
    assert suggested(filled, q="chailv", size=1) == ["差旅费用报销标准"]
    response = filled.get("/v1/suggest?q=差旅费用").json
    assert response["query"] == "差旅费用"
    assert response["suggestions"][0] == {"text": "差旅费用报销标准", "kind": "title"}


def test_a_key_is_told_what_its_groups_may_see(services: Services, filled: FlaskClient) -> None:
    headers = {}
    for name, groups in (("hr", ["hr"]), ("it", ["it"])):
        token = services.keys.create(name=name, role="reader", groups=groups)
        headers[name] = {"Authorization": f"Bearer {token}"}
    client = build(services).test_client()
    assert suggested(client, headers["hr"], q="xinchou") == ["薪酬方案", "薪酬"]
    assert suggested(client, headers["it"], q="xinchou") == []
    for query in ("即光计划", "xinchou"):
        link = "/v1/search", {"q": query, "rerank": "false"}
        meant = {
            name: client.get(link[0], query_string=link[1], headers=headers[name]).json[
                "did_you_mean"
            ]
            for name in headers
        }
        assert meant["hr"]["reason"] == "pinyin"
        assert meant["it"] is None
    assert client.get("/v1/suggest?q=x").status_code == 401


def test_a_search_says_what_was_meant_and_answers_what_was_asked(filled: FlaskClient) -> None:
    found = filled.get("/v1/search?q=差率报销&mode=bm25").json
    assert found["query"] == "差率报销"
    assert found["did_you_mean"] == {"query": "差旅报销", "reason": "pinyin"}
    assert [hit["document_id"] for hit in found["hits"]] == ["travel"]
    assert filled.get("/v1/search?q=差旅报销&mode=bm25").json["did_you_mean"] is None
    body = {"query": "差率报销", "mode": "bm25", "from": 1}
    assert filled.post("/v1/search", json=body).json["did_you_mean"] is None


def test_until_phrases_are_known_it_says_so(client: FlaskClient, put: Put) -> None:
    put("travel", "差旅报销")
    found = client.get("/v1/suggest?q=差旅").json
    assert found["suggestions"] == []
    assert [each["stage"] for each in found["degraded"]] == ["suggest"]


def test_a_store_that_fails_leaves_the_hits_alone(services: Services, filled: FlaskClient) -> None:
    services.store.fail_on["holding"] = StoreUnavailable("gone")
    found = filled.get("/v1/suggest?q=差旅").json
    assert found["degraded"] == [{"stage": "suggest", "reason": "gone"}]
    found = filled.get("/v1/search?q=差率报销&mode=bm25")
    assert (found.status_code, found.json["did_you_mean"]) == (200, None)
    assert found.json["hits"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({}, 400),
        ({"q": ""}, 400),
        ({"q": " "}, 400),
        ({"q": "x" * 2_001}, 400),
        ({"q": "x", "size": 0}, 400),
        ({"q": "x", "size": 21}, 400),
        ({"q": "x", "size": "many"}, 400),
        ({"q": "x", "other": "1"}, 400),
        ({"q": "\x00"}, 400),
        ({"q": "x", "collection": "none"}, 404),
        ({"q": "x", "collection": "A/B"}, 400),
    ],
)
def test_what_makes_no_sense_is_refused(
    filled: FlaskClient, query: dict[str, object], status: int
) -> None:
    response = filled.get("/v1/suggest", query_string=query)
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
