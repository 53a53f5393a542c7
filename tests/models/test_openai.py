"""The OpenAI adapter against a server that speaks the protocol, misbehaves as servers do, and records."""

import logging
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.errors import ConfigurationError, EmbedderUnavailable
from server.models.openai import OpenAIEmbedder
from server.models.served import Serving
from tests.models.embedding_server import OPENAI_KEY, Answer, EmbeddingServer, serving, vector


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with serving() as server:
        yield server


@pytest.fixture
def make(server: EmbeddingServer, tmp_path: Path) -> Any:
    def make(
        model: str = "tiny",
        *,
        url: str = "",
        key: str = OPENAI_KEY,
        dimensions: int = 64,
        query_model: str = "",
        **options: Any,
    ) -> OpenAIEmbedder:
        given = {"seconds": 20.0, "query_seconds": 5.0, "facts": tmp_path / "facts.json"}
        return OpenAIEmbedder(
            model,
            url=url or f"{server.url}/v1",
            key=key,
            dimensions=dimensions,
            query_model=query_model,
            serving=Serving(**(given | options)),
        )

    return make


def failing(embedder: OpenAIEmbedder, texts: Any = ("差旅",)) -> str:
    """The message of the failure to embed."""
    with pytest.raises(EmbedderUnavailable) as failure:
        embedder.embed_documents(texts)
    return failure.value.message


# What is asked


def test_calls_have_up_to_64_texts_and_so_many_tokens(server: EmbeddingServer, make: Any) -> None:
    embedder = make(max_tokens=8192)
    embedder.embed_documents([f"{n}" for n in range(150)])
    assert [len(call.body["input"]) for call in server.requests] == [64, 64, 22]
    server.requests.clear()
    embedder.embed_documents(["差" * 2500] * 7)
    assert [len(call.body["input"]) for call in server.requests] == [3, 3, 1]


def test_the_call_is_the_documented_one(server: EmbeddingServer, make: Any) -> None:
    make(dimensions=32).embed_query("差旅")
    (call,) = server.requests
    assert call.path == "/v1/embeddings"
    assert call.headers["authorization"] == f"Bearer {OPENAI_KEY}"
    assert call.body == {
        "model": "tiny",
        "input": ["差旅"],
        "encoding_format": "float",
        "dimensions": 32,
    }


def test_prefixes_go_before_queries_and_passages_and_into_the_fingerprint(
    server: EmbeddingServer, make: Any
) -> None:
    embedder = make(query_prefix="query: ", passage_prefix="passage: ")
    embedder.embed_query("差旅")
    embedder.embed_documents(["报销"])
    assert [call.body["input"] for call in server.requests] == [["query: 差旅"], ["passage: 报销"]]
    others = {make().fingerprint, make(query_prefix="passage: ", passage_prefix="query: ")}
    assert embedder.fingerprint not in others
    assert embedder.fingerprint.startswith("openai:tiny:64:")


def test_queries_may_have_a_model_of_their_own(server: EmbeddingServer, make: Any) -> None:
    server.models = {"tiny-query", "tiny-passage"}
    embedder = make("tiny-passage", query_model="tiny-query")
    embedder.embed_query("差旅")
    embedder.embed_documents(["差旅"])
    asked = [call.body["model"] for call in server.requests]
    assert asked == ["tiny-query", "tiny-passage"]
    assert embedder.fingerprint != make("tiny-passage").fingerprint
    with pytest.raises(EmbedderUnavailable, match="'tiny-passage' or 'none'"):
        make("tiny-passage", query_model="none").embed_query("差旅")


def test_openais_own_models_are_known_without_asking(server: EmbeddingServer, make: Any) -> None:
    embedder = make("text-embedding-3-small", dimensions=0)
    assert (embedder.dimensions, embedder.max_tokens) == (1536, 8192)
    assert make("text-embedding-3-large", dimensions=256).dimensions == 256
    assert server.requests == []


def test_other_models_are_asked_once_for_their_dimensions(
    server: EmbeddingServer, make: Any
) -> None:
    assert make(dimensions=0).dimensions == 64
    assert len(server.requests) == 1
    assert "dimensions" not in server.requests[0].body
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    again = make(dimensions=0)
    assert (again.dimensions, len(server.requests)) == (64, 1)
    with pytest.raises(EmbedderUnavailable, match="can't be reached"):
        make(dimensions=0, url=nowhere, seconds=0.3)


def test_the_fingerprint_does_not_depend_on_the_server(make: Any) -> None:
    assert make().fingerprint == make(url="http://127.0.0.1:9/v1").fingerprint


# What comes back


def test_vectors_are_put_in_the_order_of_the_texts(server: EmbeddingServer, make: Any) -> None:
    def shuffled(answer: Answer) -> Answer:
        answer.body["data"] = [answer.body["data"][place] for place in (2, 0, 1)]
        return answer

    server.faults = [shuffled]
    texts = ["差旅", "报销", "住宿"]
    found = make().embed_documents(texts)
    assert found == pytest.approx(np.array([vector(text, 64) for text in texts]), abs=1e-6)


def test_vectors_in_base64_are_read_too(server: EmbeddingServer, make: Any) -> None:
    server.as_base64 = True
    assert make().embed_query("差旅") == pytest.approx(vector("差旅", 64), abs=1e-6)


def test_vectors_of_other_lengths_are_made_of_length_1(server: EmbeddingServer, make: Any) -> None:
    server.faults = [edited(lambda item: item.update(embedding=[3.0, 4.0] + [0.0] * 62))]
    assert make().embed_query("差旅")[:2] == pytest.approx([0.6, 0.8])


def edited(edit: Any) -> Any:
    """A fault that edits each item of the answer."""

    def fault(answer: Answer) -> Answer:
        for item in answer.body["data"]:
            edit(item)
        return answer

    return fault


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (edited(lambda item: item.update(embedding=[1.0] * 63)), "63 dimensions instead of 64"),
        (edited(lambda item: item.update(embedding=[float("nan")] * 64)), "no direction"),
        (edited(lambda item: item.update(embedding=[1e308] * 64)), "no direction"),
        (edited(lambda item: item.update(embedding=[0.0] * 64)), "no direction"),
        (edited(lambda item: item.update(embedding=["1"] * 64)), "no vector of numbers"),
        (edited(lambda item: item.update(embedding=[None] * 64)), "no vector of numbers"),
        (edited(lambda item: item.update(embedding=[[1.0]] * 64)), "no vector of numbers"),
        (edited(lambda item: item.update(embedding=[[1.0], 2.0])), "no vector of numbers"),
        (edited(lambda item: item.update(embedding=None)), "no vector of numbers"),
        (edited(lambda item: item.update(embedding="!!")), "broken base64"),
        (edited(lambda item: item.pop("index")), "index is missing"),
        (edited(lambda item: item.update(index=1)), "index is missing, there twice"),
        (edited(lambda item: item.update(index=item["index"] + 1)), "too large"),
        (edited(lambda item: item.update(index=-item["index"])), "too large"),
        (edited(lambda item: item.update(index=True)), "index is missing"),
        (Answer(body={"data": []}), "0 vectors for 3 texts"),
        (Answer(body={"data": [None] * 3}), "index is missing"),
        (Answer(body=[]), "no list of vectors"),
        (Answer(body="text"), "no list of vectors"),
    ],
)
def test_an_answer_that_can_not_be_trusted_is_refused(
    server: EmbeddingServer, make: Any, fault: Any, says: str
) -> None:
    server.faults = [fault]
    assert says in failing(make(), ["差旅", "报销", "住宿"])
    assert len(server.requests) == 1


# Faults that pass


@pytest.mark.parametrize(
    "fault",
    [
        Answer(429, {"error": {"message": "Rate limit reached"}}, {"Retry-After": "0"}),
        Answer(503, b"<html>busy</html>", {"Retry-After": "0"}),
        Answer(500, {"error": "boom"}, {"Retry-After": "0.01"}),
        lambda answer: Answer(body=answer.body, cut=40),  # the connection breaks
        Answer(body=b'{"data": [{"index": 0, "emb'),  # whole by its length, yet cut
        Answer(body=b""),
        Answer(body=b"\xff\xfe", headers={"Content-Encoding": "gzip"}),
    ],
)
def test_it_tries_again_after_a_fault_that_passes(
    server: EmbeddingServer, make: Any, fault: Any
) -> None:
    server.faults = [fault]
    assert make().embed_query("差旅") == pytest.approx(vector("差旅", 64), abs=1e-6)
    assert len(server.requests) == 2


def test_pauses_grow(server: EmbeddingServer, make: Any) -> None:
    server.faults = [Answer(502), Answer(502)]
    make().embed_documents(["差旅"])
    first, second, third = (call.at for call in server.requests)
    assert 0.24 < second - first < 0.8
    assert 0.48 < third - second < 1.5


def in_two_seconds() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)


@pytest.mark.parametrize("when", [lambda: "1", in_two_seconds])
def test_it_waits_as_long_as_the_server_asks(server: EmbeddingServer, make: Any, when: Any) -> None:
    server.faults = [Answer(429, headers={"Retry-After": when()})]
    make().embed_documents(["差旅"])
    first, second = (call.at for call in server.requests)
    assert 0.9 < second - first < 4


@pytest.mark.parametrize("when", ["3600", "Fri, 31 Dec 2199 23:59:59 GMT"])
def test_it_does_not_wait_longer_than_it_may(server: EmbeddingServer, make: Any, when: str) -> None:
    server.faults = [Answer(429, headers={"Retry-After": when})]
    began = time.monotonic()
    assert "asks to wait" in failing(make())
    assert time.monotonic() - began < 2
    assert len(server.requests) == 1


@pytest.mark.parametrize("when", ["soon", "-5", "9" * 400, "", "Fri, 99 Foo 2026 00:00:00 GMT"])
def test_a_retry_after_that_means_nothing_is_passed_over(
    server: EmbeddingServer, make: Any, when: str
) -> None:
    server.faults = [Answer(429, headers={"Retry-After": when})]
    make().embed_documents(["差旅"])
    assert len(server.requests) == 2


def test_all_attempts_together_are_bounded_in_time(server: EmbeddingServer, make: Any) -> None:
    server.faults = [Answer(500)] * 50
    embedder = make(seconds=1.0, query_seconds=0.3)
    began = time.monotonic()
    assert "HTTP 500" in failing(embedder)
    assert time.monotonic() - began < 2
    began = time.monotonic()
    with pytest.raises(EmbedderUnavailable):
        embedder.embed_query("差旅")
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("fault", [Answer(wait=30), Answer(body=b" " * 500, drip=0.05)])
def test_a_server_that_hangs_or_drips_is_not_waited_for(
    server: EmbeddingServer, make: Any, fault: Answer
) -> None:
    server.faults = [fault] * 9
    began = time.monotonic()
    assert "TANYUAN_EMBEDDER_TIMEOUT" in failing(make(seconds=0.5))
    assert time.monotonic() - began < 2


def test_a_server_that_is_gone_is_named(make: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    message = failing(make(url=f"http://127.0.0.1:{port}/v1", seconds=0.5))
    assert f"http://127.0.0.1:{port} can't be reached" in message
    assert "TANYUAN_OPENAI_URL" in message


# Faults that don't pass


def test_a_key_that_is_refused_is_told_at_once_and_never_shown(
    server: EmbeddingServer, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    embedder = make(key="sk-expired-0123456789")
    message = failing(embedder)
    assert "HTTP 401" in message
    assert "TANYUAN_OPENAI_API_KEY" in message
    assert len(server.requests) == 1
    server.faults = [Answer(400, {"error": {"message": "no such thing as sk-expired-0123456789"}})]
    assert "no such thing as ***" in failing(embedder)
    for text in (message, caplog.text, repr(embedder), repr(vars(embedder))):
        assert "sk-expired" not in text


def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(make: Any) -> None:
    for key in ("sk-\n123", "sk 123", "钥匙"):
        with pytest.raises(ConfigurationError, match="TANYUAN_OPENAI_API_KEY") as refused:
            make(key=key)
        assert "123" not in refused.value.message
    assert make(key=f" {OPENAI_KEY}\n").embed_query("差旅").shape == (64,)


def test_a_quota_that_is_used_up_is_not_tried_again(server: EmbeddingServer, make: Any) -> None:
    error = {"message": "You exceeded your current quota", "code": "insufficient_quota"}
    server.faults = [Answer(429, {"error": error})]
    assert "exceeded your current quota" in failing(make())
    assert len(server.requests) == 1


def test_a_model_that_the_server_lacks_is_named(server: EmbeddingServer, make: Any) -> None:
    message = failing(make("no-such-model"))
    assert "'no-such-model'" in message
    assert "TANYUAN_EMBEDDER" in message
    assert "TANYUAN_OPENAI_URL" in failing(make(url=server.url))


def test_what_a_server_says_is_repeated_in_one_short_line(
    server: EmbeddingServer, make: Any
) -> None:
    server.faults = [Answer(418, {"error": {"message": "I am\na teapot. " * 100}})]
    message = failing(make())
    assert "I am a teapot." in message
    assert "\n" not in message
    assert len(message) < 500


def test_a_text_that_the_server_finds_too_long_is_made_shorter(
    server: EmbeddingServer, make: Any
) -> None:
    server.max_tokens = 100
    texts = ["差旅报销" * 100, "短", "差旅" * 90]
    found = make().embed_documents(texts)
    assert found[1] == pytest.approx(vector("短", 64), abs=1e-6)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert len(server.requests) < 20


def test_one_bad_text_among_many_does_not_take_them_down(
    server: EmbeddingServer, make: Any
) -> None:
    texts = ["", "   ", "\ud800", "\0", "差旅"]
    assert make().embed_documents(texts)[4] == pytest.approx(vector("差旅", 64), abs=1e-6)


# Where texts go


def test_no_redirect_is_followed(server: EmbeddingServer, make: Any) -> None:
    with serving() as other:
        for status in (301, 302, 307, 308):
            server.faults = [Answer(status, headers={"Location": f"{other.url}/v1/embeddings"})]
            assert "TANYUAN_OPENAI_URL" in failing(make())
        assert other.requests == []
    assert len(server.requests) == 4


def test_proxies_of_the_environment_are_not_used(
    server: EmbeddingServer, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert make().embed_query("差旅").shape == (64,)


def test_a_proxy_that_is_named_is_used(server: EmbeddingServer, make: Any) -> None:
    make(url="http://somewhere.invalid/v1", proxy=server.url).embed_query("差旅")
    assert [call.headers["host"] for call in server.requests] == ["somewhere.invalid"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.openai.com/v1",
        "ftp://host/v1",
        "http://",
        "http://u:p4ss@host/v1",
        "http://h/?k=p4ss",
    ],
)
def test_an_address_that_is_none_is_refused(make: Any, url: str) -> None:
    with pytest.raises(ConfigurationError, match="TANYUAN_OPENAI_URL") as refused:
        OpenAIEmbedder(
            "tiny", url=url, serving=Serving(seconds=1, query_seconds=1, facts=Path("x"))
        )
    assert "p4ss" not in refused.value.message


def test_queries_do_not_wait_for_a_server_that_failed_just_now(
    server: EmbeddingServer, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = make(seconds=0.3)
    server.faults = [Answer(500)] * 2
    failing(embedder)
    asked = len(server.requests)
    with pytest.raises(EmbedderUnavailable, match="HTTP 500"):
        embedder.embed_query("差旅")
    assert len(server.requests) == asked
    server.faults = []
    monkeypatch.setattr("server.models.served.AGAIN_SECONDS", 0.0)
    assert embedder.embed_query("差旅").shape == (64,)


def test_a_model_that_loads_longer_than_a_query_waits_is_waited_for_beside_it(
    server: EmbeddingServer, make: Any
) -> None:
    embedder = make(query_seconds=0.2)
    server.faults = [Answer(wait=2), lambda answer: answer]
    with pytest.raises(EmbedderUnavailable, match="loading a model"):
        embedder.embed_query("差旅")
    deadline = time.monotonic() + 5
    while True:  # without asking the server: it is known to be gone until it was reached
        try:
            assert embedder.embed_query("差旅").shape == (64,)
            break
        except EmbedderUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    inputs = [call.body["input"] for call in server.requests]
    assert inputs == [["差旅"], ["warm up"], ["差旅"]]


def test_a_refusal_for_other_reasons_than_length_makes_no_text_shorter(
    server: EmbeddingServer, make: Any
) -> None:
    server.faults = [Answer(400, {"error": {"message": "dimensions exceeds the maximum of 64"}})]
    assert "maximum of 64" in failing(make())
    assert len(server.requests) == 1


def test_whether_it_answers_is_asked_only_after_a_failure(
    server: EmbeddingServer, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = make()
    assert "64 dimensions" in embedder.check()
    assert server.requests == []
    server.faults = [Answer(400)]
    failing(embedder)
    with pytest.raises(EmbedderUnavailable, match="HTTP 400"):
        embedder.check()
    assert len(server.requests) == 1
    monkeypatch.setattr("server.models.served.AGAIN_SECONDS", 0.0)
    assert "64 dimensions" in embedder.check()  # asked now, and well again
    assert len(server.requests) == 2
    embedder.check()
    assert len(server.requests) == 2
