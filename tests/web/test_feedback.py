"""Feedback through the API: only of what the caller may see, and without his name."""

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from server.web.services import Services

ADMIN = "/v1/admin/collections/default/feedback"
ANSWER = {"answer_id": "x", "question": "每晚多少", "verdict": "bad", "comment": "旧版本"}


@pytest.fixture(autouse=True)
def _filled(put: Callable[..., None]) -> None:
    put("pay/a:b.md", "薪酬等级。", acl=["hr"])
    put("travel", "差旅报销。")


def give(client: FlaskClient, **body: object) -> tuple[int, Any]:
    headers = body.pop("headers", None)
    response = client.post("/v1/feedback", json=body, headers=headers)  # type: ignore[arg-type]
    return response.status_code, response.get_json().get("code", "kept")


def test_hits_are_judged_by_document_or_chunk(client: FlaskClient, services: Services) -> None:
    hit = client.get("/v1/search?q=薪酬等级&rerank=false").get_json()["hits"][0]
    judged = {"query": "薪酬等级", "chunk_id": hit["chunk_id"]}
    assert give(client, **judged, grade="bad") == (200, "kept")
    assert give(client, **judged, grade="good") == (200, "kept")
    assert give(client, query="薪酬等级", document_id="travel", grade=-1) == (200, "kept")
    [qrels] = services.feedback.judgements("default").qrels.values()
    assert qrels == {"pay/a:b.md": 1, "travel": 0}


def test_answers_are_judged(client: FlaskClient) -> None:
    assert give(client, **ANSWER) == (200, "kept")
    shown = client.get(ADMIN).get_json()
    assert (shown["total_hits"], shown["total_answers"]) == (0, 1)
    [kept] = shown["answers"]
    assert {**kept, "at": ""} == {**ANSWER, "at": ""}


def test_only_what_the_caller_may_see_can_be_judged(
    client: FlaskClient, services: Services
) -> None:
    portal = {"Authorization": f"Bearer {services.keys.create(name='p', role='portal')}"}
    secret = {"query": "薪酬", "document_id": "pay/a:b.md", "grade": 3}
    missing = {"query": "薪酬", "document_id": "none", "grade": 3}
    chunk = {"query": "薪酬", "chunk_id": "pay/a:b.md:0", "grade": 3}
    for body in (secret, missing, chunk):
        assert give(client, **body, headers=portal) == (404, "document_not_found")
    hr = {**portal, "X-Tanyuan-User": "lin", "X-Tanyuan-Groups": "hr"}
    assert give(client, **secret, headers=hr) == (200, "kept")
    assert give(client, **secret) == (401, "unauthorized")
    admin = {"Authorization": f"Bearer {services.keys.create(name='a', role='admin')}"}
    kept = client.get(ADMIN, headers=admin).get_json()
    assert kept["total_hits"] == 1
    assert "lin" not in str(kept)
    assert client.get(ADMIN, headers=hr).status_code == 403
    assert client.delete(ADMIN, headers=hr).status_code == 403
    assert client.delete(ADMIN, headers=admin).get_json() == {"removed": 1}
    assert client.get(ADMIN, headers=admin).get_json()["hits"] == []


HIT = {"query": "q", "document_id": "travel", "grade": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {**HIT, "grade": 4},
        {**HIT, "grade": "fine"},
        {**HIT, "grade": True},
        {**HIT, "grade": 1.5},
        {**HIT, "query": " "},
        {**HIT, "query": "\x00"},
        {**HIT, "chunk_id": "travel:0"},
        {"query": "q", "grade": 1},
        {"query": "q", "grade": 1, "chunk_id": "travel"},
        {**HIT, "user": "lin"},
        {**HIT, "answer_id": "x"},
        {**ANSWER, "verdict": "fine"},
        {**ANSWER, "answer_id": ""},
        {**ANSWER, "comment": "c" * 1_001},
        {},
        [],
        "good",
    ],
)
def test_what_is_wrong_is_refused(client: FlaskClient, wrong: Any) -> None:
    response = client.post("/v1/feedback", json=wrong)
    assert (response.status_code, response.get_json()["code"]) == (400, "invalid_input")
    assert response.get_json()["errors"]


def test_there_must_be_such_a_collection(client: FlaskClient) -> None:
    for body in (HIT, ANSWER):
        assert give(client, **body, collection="none") == (404, "collection_not_found")
