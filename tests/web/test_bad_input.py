"""Bad input as real bytes over a real socket: each gets a problem document with a 4xx and a code."""

import json
import socket
from collections.abc import Iterator

import pytest

from tests.web.live import MAX_BODY, Live

DOCUMENT = "/v1/collections/default/documents/bad"


def request(
    method: str, path: str, body: bytes = b"", media_type: str = "application/json", *extra: str
) -> bytes:
    head = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        f"Content-Length: {len(body)}",
        *([f"Content-Type: {media_type}"] if body else []),
        *extra,
    ]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


def refused(answer: tuple[int, bytes, bytes]) -> tuple[int, str]:
    status, head, body = answer
    assert b"application/problem+json" in head, (head, body)
    problem = json.loads(body)
    assert problem["status"] == status
    assert problem["type"] == f"urn:tanyuan:problem:{problem['code']}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"]
    return status, problem["code"]


SEARCHES = {
    "malformed": b'{"query": "a"',
    "empty object": b"{}",
    "array": b'["query"]',
    "blank": b'{"query": " "}',
    "10,000 characters": json.dumps({"query": "长" * 10_000}, ensure_ascii=False).encode(),
    "unknown field": b'{"query": "a", "nope": 1}',
    "negative size": b'{"query": "a", "size": -1}',
    "number as string": b'{"query": "a", "size": "1"}',
    "boolean as number": b'{"query": "a", "size": true}',
    "NUL": b'{"query": "a\\u0000b"}',
    "control character": b'{"query": "a\\u001bb"}',
    "raw control character": b'{"query": "a\x01b"}',
    "lone surrogate": b'{"query": "\\ud800"}',
    "surrogate as bytes": b'{"query": "\xed\xa0\x80"}',
    "invalid UTF-8": b'{"query": "\xff\xfe"}',
    "UTF-16": '{"query": "a"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"query": "a"}',
    "NaN": b'{"query": "a", "fusion": {"method": "rrf", "bm25": NaN}}',
    "Infinity": b'{"query": "a", "fusion": {"method": "rrf", "bm25": Infinity}}',
    "overflowing number": b'{"query": "a", "fusion": {"method": "rrf", "bm25": 1e999}}',
    "endless number": b'{"query": "a", "size": ' + b"1" * 10_000 + b"}",
    "key twice": b'{"query": "a", "query": "b"}',
    "deep array": b'{"query": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep object": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "deep filter": b'{"query": "a", "filters": ' + b'{"not":' * 60 + b"{}" + b"}" * 61,
    "surrogate in a key": b'{"query": "a", "\\udfff": 1}',
    "two values": b'{"query": "a"} {"query": "b"}',
    "only blanks": b"  \n ",
}


@pytest.mark.parametrize("body", SEARCHES.values(), ids=SEARCHES)
def test_bad_bodies(live: Live, body: bytes) -> None:
    answer = live.send(request("POST", "/v1/search", body))
    assert refused(answer) == (400, "invalid_input")


PATHS = {
    "invalid UTF-8 in the path": ("GET", "/v1/collections/default/documents/%ff%fe", 400),
    "raw bytes in the path": ("GET", "/v1/collections/default/documents/\xff", 400),
    "NUL in the path": ("GET", "/v1/collections/default/documents/a%00b", 400),
    "surrogate in the path": ("GET", "/v1/collections/default/documents/%ed%a0%80", 400),
    "line break in the path": ("GET", "/v1/collections/default/documents/a%0Ab", 400),
    "dots in the path": ("GET", "/v1/collections/default/documents/a/../b", 400),
    "bad collection": ("GET", "/v1/collections/UPPER", 400),
    "invalid UTF-8 in the query": ("GET", "/v1/search?q=%ff", 400),
    "raw bytes in the query": ("GET", "/v1/search?q=\xff", 400),
    "empty query": ("GET", "/v1/search?q=", 400),
    "no query": ("GET", "/v1/search", 400),
    "negative size": ("GET", "/v1/search?q=a&size=-1", 400),
    "unknown parameter": ("GET", "/v1/search?q=a&nope=1", 400),
    "parameter where there is none": ("GET", "/v1/collections?x=1", 400),
    "3,000 characters": ("GET", "/v1/search?q=" + "a" * 3_000, 400),
    "10,000 characters": ("GET", "/v1/search?q=" + "a" * 10_000, 414),
    "unknown path": ("GET", "/v1/nothing", 404),
    "unknown path outside": ("GET", "/nothing/%ff", 400),
    "wrong method": ("DELETE", "/v1/search", 405),
    "unknown method": ("BREW", "/v1/search", 405),
    "options": ("OPTIONS", "/v1/search", 405),
}


@pytest.mark.parametrize(("method", "path", "status"), PATHS.values(), ids=PATHS)
def test_bad_paths(live: Live, method: str, path: str, status: int) -> None:
    got, code = refused(live.send(request(method, path)))
    assert (got, bool(code)) == (status, True)


def test_a_wrong_method_names_the_right_ones(live: Live) -> None:
    _, head, _ = live.send(request("DELETE", "/v1/search"))
    allow = next(line for line in head.split(b"\r\n") if line.startswith(b"Allow:"))
    assert {b"GET", b"POST"} <= {part.strip() for part in allow[6:].split(b",")}


@pytest.mark.parametrize(
    ("media_type", "extra"),
    [
        ("text/plain", ()),
        ("application/x-www-form-urlencoded", ()),
        ("application/x-ndjson", ()),
        ("application/json; charset=gbk", ()),
        ("application/json", ("Content-Encoding: gzip",)),
        ("a" * 500, ()),
    ],
)
def test_bad_media_types(live: Live, media_type: str, extra: tuple[str, ...]) -> None:
    answer = live.send(request("POST", "/v1/search", b'{"query": "a"}', media_type, *extra))
    assert refused(answer) == (415, "unsupported_media_type")


def test_a_body_without_a_media_type(live: Live) -> None:
    raw = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    answer = live.send(raw + b"Content-Length: 2\r\n\r\n{}")
    assert refused(answer)[0] == 415


@pytest.mark.parametrize("accept", ["text/html", "image/png, text/csv", "application/xml"])
def test_what_the_client_does_not_take(live: Live, accept: str) -> None:
    answer = live.send(request("GET", "/v1/search?q=a", b"", "", f"Accept: {accept}"))
    assert refused(answer) == (406, "not_acceptable")


@pytest.mark.parametrize(
    "raw",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Header: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    ],
    ids=["nonsense", "version", "header name", "length", "long header"],
)
def test_what_is_no_http(live: Live, raw: bytes) -> None:
    assert 400 <= refused(live.send(raw))[0] < 500


def chunks(total: int) -> Iterator[bytes]:
    piece = b"a" * 65536
    for _ in range(total // len(piece)):
        yield b"%x\r\n%s\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


@pytest.mark.parametrize("path", [DOCUMENT, "/v1/collections/default/documents:bulk"])
@pytest.mark.parametrize("told", [True, False], ids=["with its length", "in chunks"])
def test_fifty_megabytes_get_an_answer_and_no_reset(live: Live, path: str, told: bool) -> None:
    size = 50 * 1024 * 1024
    assert size > MAX_BODY
    bulk = path.endswith("bulk")
    head = [
        f"{'POST' if bulk else 'PUT'} {path} HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        f"Content-Type: application/{'x-ndjson' if bulk else 'json'}",
        f"Content-Length: {size}" if told else "Transfer-Encoding: chunked",
    ]
    with socket.create_connection(("127.0.0.1", live.port), timeout=30) as connection:
        connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n")
        for piece in chunks(size) if not told else [b"a" * size]:
            connection.sendall(piece)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head_bytes, _, body = answer.partition(b"\r\n\r\n")
    status = int(head_bytes.split()[1])
    assert refused((status, head_bytes, body)) == (413, "payload_too_large")


def test_broken_chunks(live: Live) -> None:
    raw = (
        b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"
    )
    assert refused(live.send(raw)) == (400, "invalid_input")


def test_a_body_cut_off_is_not_taken_for_whole(live: Live) -> None:
    head = (
        b"POST /v1/collections/default/documents:bulk HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/x-ndjson\r\nContent-Length: 1000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", live.port), timeout=30) as connection:
        connection.sendall(head + b'{"id": "cut-off", "text": "whole"}\n{"id": "cut')
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    status, _, body = int(answer.split()[1]), *answer.partition(b"\r\n\r\n")[1:]
    assert refused((status, answer, body)) == (400, "invalid_input")


@pytest.mark.parametrize(
    "offered", ["", "a b", "x" * 200, "<script>", "a\tb", "\xe4\xb8\xad"], ids=repr
)
def test_a_strange_request_id_is_replaced(live: Live, offered: str) -> None:
    _, head, _ = live.send(request("GET", "/healthz", b"", "", f"X-Request-ID: {offered}"))
    given = next(line for line in head.split(b"\r\n") if line.startswith(b"X-Request-ID:"))
    assert len(given) == len(b"X-Request-ID: ") + 32


def test_no_failure_was_logged(live: Live) -> None:
    assert [line for line in live.log_lines() if line["level"] == "error"] == []
