"""The Ollama embedder against a real Ollama with tiny models."""

import json
import socket
from pathlib import Path

import ollama
import pytest

from server.errors import ConfigurationError, EmbedderUnavailable
from server.models.ollama_embedder import OllamaEmbedder, address
from server.models.served import Serving
from tests.services.gguf_models import NOISE, random_model
from tests.services.ollama import OllamaServer, free_port


def make(url: str, folder: Path, model: str = NOISE, *, seconds: float = 30) -> OllamaEmbedder:
    serving = Serving(seconds=seconds, query_seconds=5, facts=folder / "embedders.json")
    return OllamaEmbedder(model, host=url, keep_alive="5m", serving=serving)


def test_what_the_model_is_is_found_by_asking(ollama_url: str, tmp_path: Path) -> None:
    embedder = make(ollama_url, tmp_path)
    assert embedder.name == f"ollama:{NOISE}"
    assert embedder.dimensions == 64
    assert embedder.max_tokens == 2048
    with ollama.Client(ollama_url, trust_env=False) as client:
        (found,) = (one for one in client.list().models if one.model == f"{NOISE}:latest")
    assert embedder.fingerprint == f"ollama:{found.digest[:16]}:64"
    assert make(ollama_url, tmp_path, f"{NOISE}:latest").fingerprint == embedder.fingerprint


def test_a_model_that_is_not_there_is_named_with_the_command_that_gets_it(
    ollama_url: str, tmp_path: Path
) -> None:
    with pytest.raises(EmbedderUnavailable, match="ollama pull no-such-model"):
        make(ollama_url, tmp_path, "no-such-model")


def test_ollama_cuts_a_text_at_the_models_own_end(ollama_url: str, tmp_path: Path) -> None:
    name = random_model(tmp_path, "tanyuan-test-short", url=ollama_url, trained_context=64)
    with ollama.Client(ollama_url, trust_env=False) as client:
        try:
            embedder = make(ollama_url, tmp_path, name)
            assert embedder.max_tokens == 64
            vectors = embedder.embed_documents(["旅" * 10, "旅" * 40, "旅" * 50])  # a token a byte
        finally:
            client.delete(name)
    assert vectors[1] == pytest.approx(vectors[2], abs=1e-5)
    assert vectors[0] != pytest.approx(vectors[1], abs=0.01)


def test_it_starts_without_ollama_and_serves_when_that_is_back(
    ollama_server: OllamaServer, tmp_path: Path
) -> None:
    vector = make(ollama_server.url, tmp_path).embed_query("差旅")
    ollama_server.kill()
    embedder = make(ollama_server.url, tmp_path, seconds=1)
    assert (embedder.dimensions, embedder.name) == (64, f"ollama:{NOISE}")
    with pytest.raises(EmbedderUnavailable, match="OLLAMA_HOST"):
        embedder.embed_documents(["差旅"])
    with pytest.raises(EmbedderUnavailable):
        embedder.check()
    ollama_server.start()
    assert embedder.embed_documents(["差旅"])[0] == pytest.approx(vector, abs=1e-4)
    assert embedder.embed_query("差旅") == pytest.approx(vector, abs=1e-4)
    assert "64 dimensions" in embedder.check()


def test_a_model_that_is_replaced_is_refused_until_a_restart(
    ollama_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.models.ollama_embedder._DIGEST_SECONDS", 0.0)
    name = "tanyuan-test-replaced"
    random_model(tmp_path, name, url=ollama_url, seed=1)
    with ollama.Client(ollama_url, trust_env=False) as client:
        try:
            embedder = make(ollama_url, tmp_path, name)
            embedder.embed_query("差旅")
            random_model(tmp_path, name, url=ollama_url, seed=2)
            with pytest.raises(EmbedderUnavailable, match="another one than when this started"):
                embedder.embed_query("报销")
            again = make(ollama_url, tmp_path, name)
            assert again.embed_query("报销").shape == (64,)
            assert again.fingerprint != embedder.fingerprint
        finally:
            client.delete(name)


def test_an_ollama_that_never_answered_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EmbedderUnavailable, match="can't be reached"):
        make(f"http://127.0.0.1:{free_port()}", tmp_path)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(EmbedderUnavailable, match="did not answer in time"),
    ):
        make(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"x": 1}', "null"])
def test_what_was_learnt_may_be_lost_or_broken(
    ollama_url: str, tmp_path: Path, broken: str
) -> None:
    make(ollama_url, tmp_path)
    facts = tmp_path / "embedders.json"
    (subject,) = json.loads(facts.read_text())
    for text in (broken, json.dumps({subject: {"digest": 1, "dimensions": "many"}})):
        facts.write_text(text)
        assert make(ollama_url, tmp_path).dimensions == 64


def test_the_host_is_read_as_ollama_reads_it() -> None:
    assert address("127.0.0.1") == "http://127.0.0.1:11434"
    assert address("gpu:8080") == "http://gpu:8080"
    assert address("https://ollama.example.com").startswith("https://ollama.example.com")
    for wrong in ("http://user:word@host", "http://["):
        with pytest.raises(ConfigurationError, match="OLLAMA_HOST"):
            address(wrong)
