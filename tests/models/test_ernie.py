"""The ERNIE adapter against a server that speaks Baidu's documented protocol."""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from server.errors import ConfigurationError, EmbedderUnavailable
from server.models.ernie import ErnieEmbedder
from server.models.served import Serving
from tests.models.embedding_server import (
    ERNIE_KEY,
    ERNIE_SECRET,
    Answer,
    EmbeddingServer,
    ernie_error,
    serving,
    vector,
)


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with serving() as server:
        yield server


@pytest.fixture
def make(server: EmbeddingServer, tmp_path: Path) -> Any:
    def make(
        *, key: str = ERNIE_KEY, secret_key: str = ERNIE_SECRET, seconds: float = 20
    ) -> ErnieEmbedder:
        return ErnieEmbedder(
            "embedding-v1",
            url=server.url,
            key=key,
            secret_key=secret_key,
            serving=Serving(seconds=seconds, query_seconds=5, facts=tmp_path / "facts.json"),
        )

    return make


def failing(embedder: ErnieEmbedder) -> str:
    with pytest.raises(EmbedderUnavailable) as failure:
        embedder.embed_documents(["差旅"])
    return failure.value.message


def test_one_token_serves_all_calls_of_16_texts(server: EmbeddingServer, make: Any) -> None:
    embedder = make()
    assert server.requests == []
    texts = [f"第{n}条" for n in range(40)]
    found = embedder.embed_documents(texts)
    assert [len(call.body["input"]) for call in server.embeddings] == [16, 16, 8]
    assert found[39] == pytest.approx(vector("第39条", 384), abs=1e-6)
    embedder.embed_query("差旅")
    assert server.token_calls == 1
    assert {call.query["access_token"] for call in server.embeddings} == {server.tokens[0]}


def test_threads_share_one_token(server: EmbeddingServer, make: Any) -> None:
    embedder = make()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(embedder.embed_query, [f"{n}" for n in range(16)]))
    assert server.token_calls == 1


def test_a_token_is_renewed_before_it_ends(server: EmbeddingServer, make: Any) -> None:
    server.token_life = 0.2
    embedder = make()
    embedder.embed_query("差旅")
    time.sleep(0.2)
    embedder.embed_query("差旅")
    assert server.token_calls == 2
    assert len(server.embeddings) == 2


@pytest.mark.parametrize("code", [110, 111])
def test_a_token_that_is_refused_is_renewed_at_once(
    server: EmbeddingServer, make: Any, code: int
) -> None:
    embedder = make()
    embedder.embed_query("差旅")
    server.faults = [ernie_error(code, "Access token expired")]
    began = time.monotonic()
    assert embedder.embed_query("报销") == pytest.approx(vector("报销", 384), abs=1e-6)
    assert time.monotonic() - began < 1
    assert server.token_calls == 2
    assert server.embeddings[-1].query["access_token"] == server.tokens[1]


def test_tokens_that_are_always_refused_end_in_an_error(server: EmbeddingServer, make: Any) -> None:
    server.faults = [ernie_error(110, "Access token invalid or no longer valid")] * 9
    assert "TANYUAN_ERNIE_API_KEY" in failing(make())
    assert server.token_calls <= 4


@pytest.mark.parametrize("code", [2, 4, 18, 336000, 336100, 336501, 336502])
def test_a_limit_that_passes_is_waited_for(server: EmbeddingServer, make: Any, code: int) -> None:
    error = ernie_error(code, "request limit reached")
    error.headers["Retry-After"] = "0"
    server.faults = [error, error]
    assert make().embed_query("差旅") == pytest.approx(vector("差旅", 384), abs=1e-6)
    assert len(server.embeddings) == 3


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (17, "the quota is used up"),
        (19, "the quota is used up"),
        (6, "TANYUAN_ERNIE_API_KEY"),
        (3, "error 3: "),
        (336001, "error 336001: "),
        (336104, "error 336104: "),
    ],
)
def test_what_does_not_pass_is_told_at_once(
    server: EmbeddingServer, make: Any, code: int, says: str
) -> None:
    server.faults = [ernie_error(code, "refused")]
    assert says in failing(make())
    assert len(server.embeddings) == 1


def test_status_codes_count_too(server: EmbeddingServer, make: Any) -> None:
    server.faults = [Answer(503, b"busy", {"Retry-After": "0"}), Answer(body=b"{", cut=1)]
    assert make().embed_query("差旅").shape == (384,)
    server.faults = [Answer(403, {"error": "no"})]
    assert "HTTP 403" in failing(make())


@pytest.mark.parametrize("text", ["差旅" * 900, "expenses " * 500, "旅a1" * 300, "𠮷" * 2000])
def test_a_text_keeps_to_both_limits(server: EmbeddingServer, make: Any, text: str) -> None:
    embedder = make()
    assert embedder.embed_documents([text]).shape == (1, 384)
    (sent,) = server.embeddings[-1].body["input"]
    assert len(sent) <= 1000
    assert text.startswith(sent)


def test_a_text_that_has_more_tokens_than_it_seems_is_made_shorter(
    server: EmbeddingServer, make: Any
) -> None:
    too_long = ernie_error(336003, "embeddings max tokens per batch size is 384")
    server.faults = [too_long, too_long]
    assert make().embed_documents(["差" * 300]).shape == (1, 384)
    lengths = [len(call.body["input"][0]) for call in server.embeddings]
    assert lengths == [300, 200, 133]


def test_a_full_text_counts_as_full_by_its_characters(make: Any) -> None:
    embedder = make()
    assert embedder.count_tokens("差" * 384) == 384
    assert embedder.count_tokens("expenses " * 111) >= 383
    assert embedder.max_tokens == 384


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"key": "ak-unknown-1"}, "unknown client id|invalid_client"),
        ({"secret_key": "sk-wrong-1"}, "invalid_client"),
    ],
)
def test_keys_that_are_wrong_are_told_and_never_shown(
    server: EmbeddingServer, make: Any, keys: dict[str, str], says: str
) -> None:
    embedder = make(**keys)
    with pytest.raises(EmbedderUnavailable, match=says) as failure:
        embedder.embed_query("差旅")
    assert "TANYUAN_ERNIE_SECRET_KEY" in failure.value.message
    assert not {*keys.values(), ERNIE_KEY, ERNIE_SECRET} & set(failure.value.message.split())
    assert server.token_calls == 1


def test_no_log_and_no_error_holds_a_key_or_a_token(
    server: EmbeddingServer, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    embedder = make()
    embedder.embed_query("差旅")
    token = server.tokens[0]
    server.faults = [ernie_error(3, f"no method for {token} of {ERNIE_SECRET}")]
    message = failing(embedder)
    assert "no method for *** of ***" in message
    server.faults = [Answer(body={}, cut=0)]  # the connection breaks
    embedder.embed_query("差旅")
    assert "embedding-v1" in caplog.text  # addresses are logged
    for secret in (token, ERNIE_KEY, ERNIE_SECRET):
        assert secret not in caplog.text


def test_keys_that_lack_and_other_models_are_refused_at_the_start(
    server: EmbeddingServer, make: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="TANYUAN_ERNIE_SECRET_KEY"):
        make(secret_key="")
    with pytest.raises(ConfigurationError, match="embedding-v1"):
        ErnieEmbedder(
            "bge-large",
            url=server.url,
            key="k",
            secret_key="s",
            serving=Serving(seconds=1, query_seconds=1, facts=tmp_path / "f"),
        )
    assert server.requests == []
