"""Fixtures of a real Ollama with the tiny models of ``gguf_models.MODELS`` in it."""

import os
from collections.abc import Iterator

import ollama
import pytest

from tests.services.gguf_models import MODELS, make_models
from tests.services.ollama import OllamaServer, answers, running


@pytest.fixture(scope="session")
def ollama_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an Ollama to talk to: the one that OLLAMA_HOST names if it answers, else our own.

    Not to be killed. The models are taken away again from a server that isn't ours.
    """
    folder = tmp_path_factory.mktemp("ollama")
    configured = os.environ.get("OLLAMA_HOST", "").rstrip("/")
    if configured and "://" not in configured:
        configured = f"http://{configured}"
    if not configured or not answers(configured):
        with running(folder) as server:
            make_models(folder, url=server.url)
            yield server.url
        return
    make_models(folder, url=configured)
    yield configured
    with ollama.Client(configured, trust_env=False) as client:
        for model in MODELS:
            client.delete(model)


@pytest.fixture
def ollama_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OllamaServer]:
    """An Ollama of the test's own, with the same models, to kill and start again (0.5 s)."""
    folder = tmp_path_factory.mktemp("ollama")
    with running(folder) as server:
        make_models(folder, url=server.url)
        yield server
