"""Bulk: one bad line stops no other, batches are bounded, troubles of the store stop all."""

import json
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from server.errors import StoreUnavailable
from server.web import documents
from server.web.services import Services

BULK = "/v1/collections/default/documents:bulk"
NDJSON = {"Content-Type": "application/x-ndjson"}


def lines(*items: object) -> bytes:
    return b"".join(
        (item if isinstance(item, bytes) else json.dumps(item).encode()) + b"\n" for item in items
    )


def test_each_failure_is_named_and_the_others_are_in(client: FlaskClient) -> None:
    body = lines(
        {"id": "a", "text": "一"},
        b"{broken",
        {"id": "b", "text": "x\x00"},
        b"",
        {"id": "c"},
        {"text": "no id"},
        b'{"id": "d", "text": "\xff"}',
        [1],
        {"id": "e", "text": "二", "extra": 1},
        b'{"id": "f", "text": "\\ud800"}',
        b'{"id": "g", "text": "x", "metadata": {"n": NaN}}',
        {"id": "h", "text": "三"},
    )
    answer = client.post(BULK, data=body, headers=NDJSON)
    assert answer.status_code == 200
    assert (answer.json["indexed"], answer.json["unchanged"]) == (2, 0)
    failed = [(item["line"], item["id"]) for item in answer.json["failed"]]
    assert [line for line, _ in failed] == [2, 3, 5, 6, 7, 8, 9, 10, 11]
    assert dict(failed)[3] == "b"
    assert {item["error"]["code"] for item in answer.json["failed"]} == {"invalid_input"}
    assert all(item["error"]["message"] for item in answer.json["failed"])
    again = client.post(BULK, data=body, headers=NDJSON).json
    assert (again["indexed"], again["unchanged"], len(again["failed"])) == (0, 2, 9)


def test_an_empty_body_is_nothing_to_do(client: FlaskClient) -> None:
    answer = client.post(BULK, data=b"\n \n", headers=NDJSON)
    assert answer.json == {"indexed": 0, "unchanged": 0, "failed": []}


def test_documents_go_in_batches(client: FlaskClient, services: Services) -> None:
    count = 2 * documents.BATCH_DOCUMENTS + 1
    body = lines(*({"id": str(n), "text": f"第{n}篇"} for n in range(count)))
    answer = client.post(f"{BULK}?refresh=true", data=body, headers=NDJSON).json
    assert answer["indexed"] == count
    assert sum(services.store.writes) == count
    assert max(services.store.writes) <= documents.BATCH_DOCUMENTS
    assert services.store.refreshes == 1


def test_the_number_of_lines_is_bounded(client: FlaskClient) -> None:
    body = b"x\n" * (documents.MAX_LINES + 1)
    answer = client.post(BULK, data=body, headers=NDJSON)
    assert (answer.status_code, answer.json["code"]) == (413, "payload_too_large")


def test_a_missing_collection_is_told_before_anything_is_read(client: FlaskClient) -> None:
    answer = client.post("/v1/collections/none/documents:bulk", data=b"", headers=NDJSON)
    assert answer.json["code"] == "collection_not_found"


def test_a_store_that_goes_away_in_the_middle_fails_the_request(
    client: FlaskClient, services: Services
) -> None:
    def body() -> Iterator[bytes]:
        for n in range(documents.BATCH_DOCUMENTS + 1):
            yield lines({"id": str(n), "text": "x"})
        services.store.fault = StoreUnavailable("The store is away.")

    class Stream:
        """What a client sends while the server reads."""

        def __init__(self) -> None:
            self._parts = body()

        def readline(self, size: int = -1) -> bytes:
            return next(self._parts, b"")

        def read(self, size: int = -1) -> bytes:
            return next(self._parts, b"")

    answer = client.post(
        BULK,
        headers=NDJSON,
        environ_overrides={"wsgi.input": Stream(), "wsgi.input_terminated": True},
    )
    assert (answer.status_code, answer.json["code"]) == (503, "store_unavailable")
    services.store.fault = None
    assert services.store.collection("default").documents == documents.BATCH_DOCUMENTS


@pytest.mark.parametrize(
    "media_type", ["application/json", "text/plain", "", "multipart/form-data"]
)
def test_another_media_type_is_refused(client: FlaskClient, media_type: str) -> None:
    answer = client.post(BULK, data=b"{}", headers={"Content-Type": media_type})
    assert (answer.status_code, answer.json["code"]) == (415, "unsupported_media_type")
