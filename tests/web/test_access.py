"""Who may do what: roles, groups, portals, and what guards a server that has no key yet."""

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from server.web.application import OPERATIONS
from server.web.keys import Role
from server.web.services import Services

DOCUMENTS = "/v1/collections/default/documents"


@pytest.fixture
def handbook(put: Callable[..., None]) -> None:
    put("open", "住宿标准 公开", acl=["public"])
    put("hr", "住宿标准 人事", acl=["hr"])
    put("it", "住宿标准 信息", acl=["it", "ops"])
    put("closed", "住宿标准 无人", acl=[])


@pytest.fixture
def bearer(services: Services) -> Callable[..., dict[str, str]]:
    """Headers of a new key."""

    def make(role: Role, *groups: str, **headers: str) -> dict[str, str]:
        number = len(services.keys.all())
        token = services.keys.create(name=f"key{number}", role=role, groups=groups)
        return {"Authorization": f"Bearer {token}", **headers}

    return make


def seen(client: FlaskClient, headers: dict[str, str]) -> set[str]:
    """What a caller sees, which must be the same by every way."""
    found = client.get("/v1/search?q=住宿标准&mode=bm25", headers=headers)
    assert found.status_code == 200, found.text
    by_search = {hit["document_id"] for hit in found.json["hits"]}
    by_get = {
        name
        for name in ("open", "hr", "it", "closed")
        if client.get(f"{DOCUMENTS}/{name}", headers=headers).status_code == 200
    }
    answer = client.post("/v1/answer", json={"question": "住宿标准"}, headers=headers)
    by_answer = {hit["document_id"] for hit in answer.json["sources"]}
    assert by_search == by_get == by_answer
    return by_search


@pytest.mark.usefixtures("handbook")
def test_what_each_role_sees(client: FlaskClient, bearer: Callable[..., dict[str, str]]) -> None:
    everything = {"open", "hr", "it", "closed"}
    assert seen(client, {}) == everything, "without a key the caller is admin"
    assert seen(client, bearer("admin")) == everything
    assert seen(client, bearer("admin", "hr")) == everything
    assert seen(client, bearer("reader")) == {"open"}
    assert seen(client, bearer("reader", "hr")) == {"open", "hr"}
    assert seen(client, bearer("writer", "ops")) == {"open", "it"}
    portal = bearer("portal")
    assert seen(client, portal) == {"open"}
    assert seen(client, {**portal, "X-Tanyuan-Groups": "hr, it"}) == {"open", "hr", "it"}
    assert seen(client, {**portal, "X-Tanyuan-Groups": ""}) == {"open"}
    bounded = bearer("portal", "hr")
    assert seen(client, {**bounded, "X-Tanyuan-Groups": "hr,it"}) == {"open", "hr"}


@pytest.mark.usefixtures("handbook")
def test_a_filter_can_not_widen_what_is_seen(
    client: FlaskClient, bearer: Callable[..., dict[str, str]]
) -> None:
    headers = bearer("reader", "hr")
    for filters in ({"any": [{"term": {"document_id": "it"}}, {"exists": "document_id"}]}, []):
        found = client.post(
            "/v1/search", json={"query": "住宿", "filters": filters}, headers=headers
        )
        assert {hit["document_id"] for hit in found.json["hits"]} <= {"open", "hr"}


@pytest.mark.usefixtures("handbook")
def test_an_invisible_document_looks_like_none(
    client: FlaskClient, bearer: Callable[..., dict[str, str]]
) -> None:
    headers = bearer("reader", "hr")
    hidden = client.get(f"{DOCUMENTS}/it", headers=headers)
    missing = client.get(f"{DOCUMENTS}/no", headers=headers)
    assert hidden.status_code == missing.status_code == 404
    assert hidden.json["code"] == missing.json["code"]
    assert hidden.json["detail"].replace("it", "no") == missing.json["detail"].replace("it", "no")


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("admin", {"read", "write", "admin"}),
        ("writer", {"read", "write"}),
        ("reader", {"read"}),
        ("portal", {"read"}),
    ],
)
def test_roles_and_operations(
    client: FlaskClient, bearer: Callable[..., dict[str, str]], role: Role, allowed: set[str]
) -> None:
    headers = bearer(role)
    for operation in OPERATIONS:
        path = operation.path.replace("{collection}", "c").replace("{document_id}", "d")
        status = client.open(path, method=operation.method, headers=headers).status_code
        refused = operation.permission is not None and operation.permission not in allowed
        assert (status == 403) is refused, (operation.name, status)


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer ty_wrong", "Basic dTpw", "ty_wrong", "Bearer \xff\x7f"],
)
def test_without_a_valid_key_nothing_under_v1_answers(
    client: FlaskClient, bearer: Callable[..., dict[str, str]], authorization: str | None
) -> None:
    bearer("admin")
    headers = {} if authorization is None else {"Authorization": authorization}
    for path in ("/v1/search?q=x", "/v1/collections", "/v1/nothing"):
        response = client.get(path, headers=headers)
        assert (response.status_code, response.json["code"]) == (401, "unauthorized")
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
    for path in ("/healthz", "/readyz", "/openapi.json", "/docs", "/"):
        with client.get(path, headers=headers) as response:
            assert response.status_code == 200, path


def test_a_revoked_key_is_refused_at_once(
    client: FlaskClient, services: Services, bearer: Callable[..., dict[str, str]]
) -> None:
    headers = bearer("admin")
    assert client.get("/v1/collections", headers=headers).status_code == 200
    services.keys.revoke("key0")
    assert client.get("/v1/collections", headers=headers).status_code == 401
    assert client.get("/v1/collections").status_code == 401


@pytest.mark.parametrize("header", ["X-Tanyuan-Groups", "X-Tanyuan-User"])
@pytest.mark.parametrize("role", [None, "admin", "writer", "reader"])
def test_only_a_portal_may_state_groups(
    client: FlaskClient, bearer: Callable[..., dict[str, str]], role: Role | None, header: str
) -> None:
    headers = bearer(role) if role else {}
    response = client.get("/v1/collections", headers={**headers, header: "hr"})
    assert (response.status_code, response.json["code"]) == (403, "forbidden")


@pytest.mark.parametrize("groups", ["a\x01b", "\xff", "x" * 300, ",".join(map(str, range(1001)))])
def test_bad_groups_are_refused(
    client: FlaskClient, bearer: Callable[..., dict[str, str]], groups: str
) -> None:
    headers = {**bearer("portal"), "X-Tanyuan-Groups": groups}
    response = client.get("/v1/collections", headers=headers)
    assert (response.status_code, response.json["code"]) == (400, "invalid_input")


@pytest.mark.usefixtures("handbook")
def test_groups_may_be_chinese(
    client: FlaskClient, put: Callable[..., None], bearer: Callable[..., dict[str, str]]
) -> None:
    put("cn", "住宿标准", acl=["人事部"])
    as_bytes = "人事部".encode().decode("latin-1")
    headers = {**bearer("portal"), "X-Tanyuan-Groups": as_bytes}
    assert client.get(f"{DOCUMENTS}/cn", headers=headers).status_code == 200


# Without a key ---------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["192.168.1.9", "10.0.0.1", "2001:db8::1", ""])
def test_without_a_key_other_machines_are_refused(client: FlaskClient, address: str) -> None:
    response = client.get("/v1/collections", environ_base={"REMOTE_ADDR": address})
    assert (response.status_code, response.json["code"]) == (401, "unauthorized")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil", "a[::1]"])
def test_without_a_key_other_names_are_refused(client: FlaskClient, host: str) -> None:
    response = client.get("/v1/collections", headers={"Host": host})
    assert response.status_code in {400, 403}


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "localhost"])
def test_without_a_key_this_machine_is_served(client: FlaskClient, host: str) -> None:
    assert client.get("/v1/collections", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
def test_without_a_key_a_proxy_is_refused(client: FlaskClient, name: str) -> None:
    response = client.get("/v1/collections", headers={name: "10.0.0.1"})
    assert response.json["code"] == "forbidden"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_without_a_key_pages_of_other_sites_change_nothing(
    client: FlaskClient, services: Services, headers: dict[str, str]
) -> None:
    response = client.put(f"{DOCUMENTS}/a", json={"text": "x"}, headers=headers)
    assert (response.status_code, response.json["code"]) == (403, "forbidden")
    assert services.store.collections() == []


def test_without_a_key_our_own_page_may_write(client: FlaskClient) -> None:
    headers = {
        "Host": "localhost:8000",
        "Origin": "http://localhost:8000",
        "Sec-Fetch-Site": "same-origin",
    }
    response = client.put(f"{DOCUMENTS}/a", json={"text": "x"}, headers=headers)
    assert response.status_code == 201
