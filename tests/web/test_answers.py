"""Answers: as JSON and as events, with heartbeats, errors in the middle, and readers who leave."""

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from server.errors import GeneratorInterrupted, GeneratorTimeout
from server.web import sse
from server.web.application import build
from server.web.services import Services
from tests.web.live import RECORD, Live, live_server

QUESTION = {"question": "住宿标准是多少?"}
DOCUMENT = {"title": "差旅", "text": "住宿标准是每晚 500 元。\n需要发票。"}


@pytest.fixture
def answering(make: Callable[..., Services]) -> Callable[..., FlaskClient]:
    """A client of a server that has a document and whose generator says a script."""

    def client(*script: object) -> FlaskClient:
        made = build(make(*script)).test_client()
        made.put("/v1/collections/default/documents/a?refresh=true", json=DOCUMENT)
        return made

    return client


def eventually(condition: Callable[[], bool], *, seconds: float = 15) -> None:
    """Wait until the condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.02)


def events_of(body: str) -> list[tuple[str, dict[str, object]]]:
    """The events of a stream, read as the standard has it."""
    found = []
    for block in body.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            fields = dict(line.split(": ", 1) for line in lines)
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def test_an_answer_as_json(answering: Callable[..., FlaskClient]) -> None:
    answer = answering("每晚\n", "500 元 [1]。").post("/v1/answer", json=QUESTION).json
    assert (answer["status"], answer["answer"]) == ("answered", "每晚\n500 元 [1]。")
    assert answer["citations"][0]["chunk_id"] == "a:0"
    assert answer["model"] == "scripted"


@pytest.mark.parametrize("how", ["field", "header"])
def test_an_answer_as_events(answering: Callable[..., FlaskClient], how: str) -> None:
    client = answering("每晚\n\n", "data: 500\r\n元 [1]。")
    if how == "field":
        response = client.post("/v1/answer", json={**QUESTION, "stream": True})
    else:
        response = client.post("/v1/answer", json=QUESTION, headers={"Accept": sse.MEDIA_TYPE})
    assert response.mimetype == "text/event-stream"
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["X-Accel-Buffering"] == "no"
    events = events_of(response.text)
    names = [name for name, _ in events]
    assert names == ["sources", "token", "token", "citations", "done"]
    assert events[0][1]["sources"][0]["chunk_id"] == "a:0"
    text = "".join(data["text"] for name, data in events if name == "token")
    assert text == "每晚\n\ndata: 500\r\n元 [1]。", "line breaks must survive"
    assert events[-1][1]["answer"] == text


def test_json_is_preferred_where_both_are_taken(answering: Callable[..., FlaskClient]) -> None:
    headers = {"Accept": "application/json, text/event-stream"}
    response = answering("x").post("/v1/answer", json=QUESTION, headers=headers)
    assert response.mimetype == "application/json"


def test_without_a_generator_it_is_an_extract(answering: Callable[..., FlaskClient]) -> None:
    client = answering()
    answer = client.post("/v1/answer", json=QUESTION).json
    assert answer["status"] == "extract"
    assert "generator" in {item["stage"] for item in answer["degraded"]}


def test_a_failure_in_the_middle_is_an_event(answering: Callable[..., FlaskClient]) -> None:
    broken = GeneratorInterrupted("The generator stopped in the middle.")
    client = answering("每晚 ", broken)
    response = client.post("/v1/answer", json={**QUESTION, "stream": True})
    assert response.status_code == 200
    name, problem = events_of(response.text)[-1]
    assert name == "error"
    assert (problem["code"], problem["status"]) == ("generator_interrupted", 503)
    assert problem["detail"] == broken.message
    assert problem["request_id"] == response.headers["X-Request-ID"]
    assert problem["answer"]["answer"] == "每晚 "
    assert problem["answer"]["status"] == "partial"


def test_an_unforeseen_failure_in_the_middle_tells_nothing(
    answering: Callable[..., FlaskClient], caplog: pytest.LogCaptureFixture
) -> None:
    client = answering("每晚 ", 0.0, {"no": "text"})
    response = client.post("/v1/answer", json={**QUESTION, "stream": True})
    name, problem = events_of(response.text)[-1]
    assert (name, problem["code"]) == ("error", "internal_error")
    assert problem["request_id"] in caplog.text or caplog.records[-1].exc_info


def test_a_generator_that_fails_at_once_leaves_an_extract(
    answering: Callable[..., FlaskClient],
) -> None:
    client = answering(GeneratorTimeout("No answer."))
    answer = client.post("/v1/answer", json=QUESTION).json
    assert (answer["status"], answer["reason"]) == ("extract", "No answer.")


@pytest.mark.parametrize("stream", [True, False])
def test_what_fails_before_the_first_event_has_a_status(
    answering: Callable[..., FlaskClient], stream: bool
) -> None:
    body = {**QUESTION, "collection": "none", "stream": stream}
    response = answering("x").post("/v1/answer", json=body)
    assert (response.status_code, response.json["code"]) == (404, "collection_not_found")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"question": " "}, "question"),
        ({"question": "x" * 10_000}, "question"),
        ({"stream": "yes"}, "stream"),
        ({"history": [{"role": "system", "content": "x"}]}, "history[0].role"),
        ({"history": [{"role": "user"}]}, "history[0].content"),
        ({"history": [{"role": "user", "content": "x"}] * 51}, "history"),
        ({"history": [{"role": "user", "content": "\x00"}]}, "history[0].content"),
        ({"filters": {"term": {"acl": "x"}}}, "filters"),
        ({"temperature": 1}, "temperature"),
    ],
)
def test_bad_questions(
    answering: Callable[..., FlaskClient], change: dict[str, object], field: str
) -> None:
    response = answering("x").post("/v1/answer", json={**QUESTION, **change})
    assert response.status_code == 400
    assert response.json["errors"][0]["field"].startswith(field)


# The pump ----------------------------------------------------------------------------------------


def test_a_silence_is_filled_with_heartbeats() -> None:
    def frames() -> Iterator[bytes]:
        time.sleep(0.5)
        yield b"event: a\ndata: 1\n\n"

    response = sse.respond(frames(), heartbeat_seconds=0.1)
    sent = list(response.iter_encoded())
    assert sent[-1] == b"event: a\ndata: 1\n\n"
    assert 2 <= len(sent) - 1 <= 6
    assert set(sent[:-1]) == {sse.HEARTBEAT}
    response.close()


def test_frames_are_closed_when_the_reader_leaves() -> None:
    closed: list[int] = []

    def frames() -> Iterator[bytes]:
        number = 0
        try:
            while True:
                number += 1
                yield b"x"
        finally:
            closed.append(number)

    response = sse.respond(frames())
    sent = response.iter_encoded()
    assert next(iter(sent)) == b"x"
    response.close()
    eventually(lambda: bool(closed))
    assert closed[0] < 200, "a reader who is slow or gone must not let frames pile up"


# Over a socket -----------------------------------------------------------------------------------


def ask(live: Live) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=20)
    headers = {"Content-Type": "application/json"}
    path = "/v1/collections/default/documents/a?refresh=true"
    connection.request("PUT", path, json.dumps(DOCUMENT).encode(), headers)
    connection.getresponse().read()
    body = json.dumps({**QUESTION, "stream": True}).encode()
    connection.request("POST", "/v1/answer", body, headers)
    return connection, connection.getresponse()


def test_tokens_arrive_while_the_generator_still_writes(live: Live) -> None:
    connection, response = ask(live)
    assert [name for name, _ in events_of(response.read().decode())][-1] == "done"
    connection.close()


def test_the_generator_stops_when_the_reader_leaves(tmp_path: Path) -> None:
    with live_server(tmp_path, "endless") as server:
        connection, response = ask(server)
        began = time.monotonic()
        while b"token" not in response.readline():
            assert time.monotonic() < began + 5
        record = server.data / RECORD
        assert not record.exists()
        assert response.fp is not None
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
        response.close()
        eventually(lambda: record.exists() and record.read_text().endswith("\n"))
        said = int(record.read_text().split()[-1])
        assert said < 200
        # The log's line comes when the response ends, not when it begins.
        eventually(lambda: any(one.get("path") == "/v1/answer" for one in server.log_lines()))
