"""``scripts/run``: its options, what it refuses, the sample loaded once, serving and stopping."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
RUN = ROOT / "scripts" / "run"
LOOPBACK = "127.0.0.1"


def start(data: Path, *arguments: str) -> "subprocess.Popen[str]":
    """The script as a user starts it, with no settings but these."""
    kept = {key: text for key, text in os.environ.items() if not key.startswith("TANYUAN_")}
    return subprocess.Popen(
        [sys.executable, str(RUN), "--data", str(data), "--port", "0", *arguments],
        env=kept | {"OLLAMA_HOST": f"http://{LOOPBACK}:9", "TANYUAN_EMBEDDER": "none"},
        cwd=data,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def refused(data: Path, *arguments: str) -> tuple[int, str]:
    process = start(data, *arguments)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


@contextmanager
def serving(data: Path, *arguments: str) -> "Iterator[tuple[subprocess.Popen[str], int, str]]":
    """A started server, its port, and what it said until it was ready."""
    process = start(data, *arguments)
    said = ""
    try:
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            if line.startswith("  generator"):
                break
        found = re.search(rf"answers at http://{LOOPBACK}:(\d+)", said)
        assert found, said
        yield process, int(found[1]), said
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def ask(port: int, path: str) -> tuple[int, dict]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    content = json.loads(answer.read())
    connection.close()
    return answer.status, content


def test_help_names_every_option() -> None:
    done = subprocess.run([RUN, "--help"], capture_output=True, text=True, check=True)
    for option in ("--host", "--port", "--data", "--store", "--no-sample", "--light"):
        assert option in done.stdout
    assert "Exit codes" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--port", "99999"), "TANYUAN_PORT must be a port number"),
        (("--port", "http"), "invalid int value"),
        (
            ("--store", "paper"),
            "TANYUAN_STORE must be one of embedded, chroma, milvus, elasticsearch",
        ),
        (("--host", "0.0.0.0"), "scripts/keys create"),
        (("--host", "192.0.2.1"), "scripts/keys create"),
        (("--host", "no-such-host.localhost."), "Can't listen at"),
        (("--unknown",), "unrecognized arguments"),
    ],
)
def test_what_is_wrong_is_refused(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    status, output = refused(tmp_path, *arguments)
    assert status == 2
    assert message in output
    assert "Traceback" not in output


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        port = other.getsockname()[1]
        status, output = refused(tmp_path, "--port", str(port))
    assert status == 2
    assert f"Can't listen at http://{LOOPBACK}:{port}" in output
    assert "--port" in output


def test_the_sample_is_loaded_once_and_served(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, port, said):
        assert "Loading the sample" in said
        for component in ("store", "embedder", "reranker", "generator"):
            assert re.search(rf"^  {component} +\S+: \S", said, re.MULTILINE)
        assert ask(port, "/readyz")[0] == 200
        status, found = ask(port, "/v1/search?q=" + quote("差旅报销标准"))
        assert status == 200
        assert found["hits"][0]["ranks"]["bm25"]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0

    started = time.monotonic()
    with serving(tmp_path) as (process, port, said):
        assert time.monotonic() - started < 10
        assert "Loading the sample" not in said
        assert ask(port, "/v1/search?q=" + quote("差旅报销标准"))[1]["total"] == found["total"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_sample_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    (tmp_path / "sample.json").write_text('{"embedded": "loading"}')
    with serving(tmp_path) as (_, port, said):
        assert "Loading the sample" in said
        assert ask(port, "/v1/collections")[1]


def test_without_the_sample_there_is_no_collection(tmp_path: Path) -> None:
    with serving(tmp_path, "--no-sample") as (_, port, said):
        assert "Loading the sample" not in said
        assert ask(port, "/v1/search?q=a")[0] == 404


def test_what_is_no_http_gets_a_problem_document(tmp_path: Path) -> None:
    requests = {
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n": (414, "uri_too_long"),
        b"nonsense\r\n\r\n": (400, "invalid_input"),
        b"GET / HTTP/1.1\r\na: " + b"x" * 70_000 + b"\r\n\r\n": (431, "headers_too_large"),
    }
    with serving(tmp_path, "--no-sample") as (process, port, _):
        for request, (status, code) in requests.items():
            with socket.create_connection((LOOPBACK, port), timeout=10) as client:
                client.sendall(request)
                answer = http.client.HTTPResponse(client)
                answer.begin()
                problem = json.loads(answer.read())
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert (answer.status, problem["status"], problem["code"]) == (status, status, code)
        assert ask(port, "/healthz")[0] == 200
        assert process.poll() is None


def test_a_setting_that_can_not_be_had_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the store's folder should be")
    status, output = refused(tmp_path, "--no-sample")
    assert status in {2, 4}
    assert "store" in output
    assert "Traceback" not in output
