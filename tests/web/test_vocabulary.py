"""Dictionary, synonyms and stop words through the API."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from server.web.services import Services

PATH = "/v1/admin/collections/default"
WORD = "云梯平台"
KINDS = [
    ("dictionary", "云梯平台 100", "灰度发布"),
    ("synonyms", "vpn => 虚拟专用网络", "差旅费, 出差费用"),
    ("stop-words", "关于", "请问"),
]


@pytest.fixture(autouse=True)
def _filled(put: Callable[..., None]) -> None:
    put("a", f"部署{WORD}之前先做评估。")
    put("b", "云梯由消防部门管理，平台由运维负责。")
    put("c", "关于虚拟专用网络的连接。")


def post(client: FlaskClient, path: str, body: object) -> dict[str, Any]:
    response = client.post(f"{PATH}/{path}", json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.get_json()
    return found


def get(client: FlaskClient, path: str) -> dict[str, Any]:
    response = client.get(f"{PATH}/{path}")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.get_json()
    return found


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.get_json()["code"]


@pytest.mark.parametrize(("kind", "first", "second"), KINDS)
def test_lines_are_changed_listed_and_rolled_back(
    client: FlaskClient, kind: str, first: str, second: str
) -> None:
    empty = {"version": 0, "latest": 0, "in_force": 0, "total": 0, "lines": []}
    assert get(client, kind) == empty
    made = post(client, kind, {"add": [first, second], "comment": "products"})
    assert made == {"version": 1, "changed": True, "added": 2, "removed": 0}
    assert post(client, kind, {"add": [first]})["changed"] is False
    post(client, kind, {"remove": [first]})
    assert get(client, kind)["lines"] == [second]
    assert get(client, f"{kind}?version=1")["lines"] == [first, second]
    page = get(client, f"{kind}?version=1&from=1&size=1")
    assert (page["lines"], page["total"]) == ([second], 2)
    assert page["in_force"] == (0 if kind == "dictionary" else 2)

    history = get(client, f"{kind}/history")
    assert history["total"] == 2
    assert [each["version"] for each in history["versions"]] == [2, 1]
    assert history["versions"][1]["author"] == "local admin"
    assert history["versions"][1]["comment"] == "products"
    assert get(client, f"{kind}/history?size=1&from=1")["versions"] == history["versions"][1:]

    assert post(client, f"{kind}/rollback", {"version": 1})["version"] == 3
    assert get(client, kind)["lines"] == [first, second]
    assert code(client.post(f"{PATH}/{kind}/rollback", json={"version": 9})) == (
        404,
        "version_not_found",
    )
    assert code(client.get(f"{PATH}/{kind}?version=9")) == (404, "version_not_found")


def test_a_dictionary_is_previewed_and_applied(client: FlaskClient) -> None:
    client.get(f"/v1/search?q={WORD}怎么部署&rerank=false")
    shown = post(client, "dictionary/preview", {"add": [WORD]})
    assert [each["word"] for each in shown["words"]] == [WORD]
    assert (shown["documents"], shown["complete"]) == (1, True)
    [example] = shown["examples"]
    assert example["document_id"] == "a"
    assert WORD not in example["before"]
    assert WORD in example["after"]
    [query] = shown["query_examples"]
    assert query["query"] == f"{WORD}怎么部署"
    assert get(client, "dictionary")["latest"] == 0

    post(client, "dictionary", {"add": [WORD]})
    assert post(client, "dictionary/preview", {"version": 1})["documents"] == 1
    assert post(client, "dictionary/preview", {})["documents"] == 1
    response = client.post(f"{PATH}/dictionary/apply")
    assert response.status_code == 202
    record = response.get_json()
    assert (record["kind"], record["by"]) == ("dictionary", "local admin")
    deadline = time.monotonic() + 30
    while (found := get(client, f"rebuilds/{record['id']}"))["running"] or found["state"] in {
        "filling",
        "catching_up",
    }:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (found["state"], found["done"]) == ("promoted", 1)
    assert get(client, "dictionary")["in_force"] == 1
    assert post(client, "dictionary/preview", {})["documents"] == 0
    hits = client.get(f"/v1/search?q={WORD}&rerank=false").get_json()["hits"]
    assert hits[0]["document_id"] == "a"
    highlight = hits[0]["highlights"][0]
    assert hits[0]["text"][highlight["start"] : highlight["end"]] == WORD


def test_synonyms_and_stop_words_act_at_once(client: FlaskClient) -> None:
    def found(query: str) -> list[str]:
        response = client.get(f"/v1/search?q={query}&rerank=false&mode=bm25").get_json()
        return [hit["document_id"] for hit in response["hits"]]

    def soon(query: str, wanted: list[str]) -> None:
        deadline = time.monotonic() + 10
        while found(query) != wanted:
            assert time.monotonic() < deadline, found(query)
            time.sleep(0.05)

    assert found("vpn") == []
    post(client, "synonyms", {"add": ["vpn => 虚拟专用网络"]})
    soon("vpn", ["c"])
    post(client, "synonyms", {"remove": ["VPN=>虛擬專用網絡"]})
    soon("vpn", [])
    assert set(found("关于消防")) == {"b", "c"}
    post(client, "stop-words", {"add": ["关于"]})
    soon("关于消防", ["b"])


def test_what_is_wrong_is_named(client: FlaskClient) -> None:
    response = client.post(f"{PATH}/dictionary", json={"add": ["好词", "云梯 平台"]})
    assert code(response) == (400, "invalid_input")
    assert "line 2" in response.get_json()["detail"]
    assert code(client.post(f"{PATH}/synonyms", json={"add": ["alone"]}))[0] == 400
    assert code(client.post(f"{PATH}/stop-words", json={"add": ["a\u0000"]}))[0] == 400
    assert code(client.post(f"{PATH}/dictionary", json={"lines": []}))[0] == 400
    assert code(client.post(f"{PATH}/dictionary/apply"))[0] == 400
    assert code(client.post(f"{PATH}/dictionary/apply?version=3")) == (404, "version_not_found")
    assert code(client.get("/v1/admin/collections/none/synonyms")) == (
        404,
        "collection_not_found",
    )
    assert get(client, "dictionary")["latest"] == 0


def test_only_admins_may_and_their_keys_are_named(client: FlaskClient, services: Services) -> None:
    admin = services.keys.create(name="anna", role="admin")
    writer = services.keys.create(name="bot", role="writer")
    as_writer = {"Authorization": f"Bearer {writer}"}
    as_admin = {"Authorization": f"Bearer {admin}"}
    for path in ("dictionary", "synonyms", "stop-words", "dictionary/history"):
        assert client.get(f"{PATH}/{path}", headers=as_writer).status_code == 403
    assert client.post(f"{PATH}/synonyms", json={}, headers=as_writer).status_code == 403
    body = {"add": ["a, b"]}
    assert client.post(f"{PATH}/synonyms", json=body, headers=as_admin).status_code == 200
    history = client.get(f"{PATH}/synonyms/history", headers=as_admin).get_json()
    assert history["versions"][0]["author"] == "anna"
