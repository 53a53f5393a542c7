"""Bulk: one bad line stops no other, batches are bounded, troubles of the store stop all."""

import json
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from server.documents import Document
from server.errors import PayloadTooLarge, StoreUnavailable
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
    writes = [len(arguments[1]) for name, arguments in services.store.calls if name == "write"]
    assert sum(writes) == count
    assert max(writes) <= documents.BATCH_DOCUMENTS
    found = client.get("/v1/search?q=篇&mode=bm25&size=1").json
    assert found["total"] == count


def test_the_number_of_lines_is_bounded(client: FlaskClient) -> None:
    body = b"x\n" * (documents.MAX_LINES + 1)
    answer = client.post(BULK, data=body, headers=NDJSON)
    assert (answer.status_code, answer.json["code"]) == (413, "payload_too_large")


def test_lines_before_the_bound_are_handed_on() -> None:
    numbered = [(n, Document.create(id=str(n), text="x")) for n in range(1, 12)]
    seen = []
    with pytest.raises(PayloadTooLarge, match="before line 11 are in"):
        for batch in documents.batches(numbered, max_lines=10):
            seen += [line for line, _ in batch.documents]
    assert seen == list(range(1, 11))


def test_long_documents_make_small_batches() -> None:
    text = "x" * (documents.BATCH_CHARS // 2)
    numbered = [(n, Document.create(id=str(n), text=text)) for n in range(1, 6)]
    sizes = [len(batch.documents) for batch in documents.batches(numbered)]
    assert sizes == [2, 2, 1]


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
