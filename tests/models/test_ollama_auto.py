"""The model that ``auto`` finds, also after the server has started."""

import time

import httpx
import pytest

from server.errors import GeneratorModelMissing, GeneratorUnavailable
from server.models.choice import choose_generator
from server.models.contract import Message
from server.models.ollama_auto import AutoOllama
from server.settings import Settings
from tests.services.ollama import OllamaServer

ASKED = (Message("user", "住宿上限？"),)


def auto(host: str) -> AutoOllama:
    choice = choose_generator(Settings(ollama_host=host, generator_context=4096))
    assert isinstance(choice.adapter, AutoOllama)
    return choice.adapter


def test_a_model_that_is_there_is_taken(ollama_url: str) -> None:
    found = auto(ollama_url)
    assert found.name.startswith("ollama:")
    assert found.check()
    assert 0 < found.count_tokens("住宿") < 100


def test_an_ollama_that_starts_later_is_found(ollama_server: OllamaServer) -> None:
    ollama_server.kill()
    later = auto(ollama_server.url)
    assert later.name == "ollama"
    for call in (lambda: later.stream(ASKED, max_tokens=8), lambda: later.count_tokens("住宿")):
        with pytest.raises(GeneratorUnavailable):
            call()
    ollama_server.start()
    deadline = time.monotonic() + 15
    while later.name == "ollama" and time.monotonic() < deadline:
        time.sleep(0.5)
        try:
            later.check()
        except GeneratorUnavailable:
            continue
    assert later.name.startswith("ollama:")


def test_an_ollama_without_models_says_what_to_pull(ollama_server: OllamaServer) -> None:
    with httpx.Client(base_url=ollama_server.url, trust_env=False) as client:
        for model in client.get("/api/tags").json()["models"]:
            client.request("DELETE", "/api/delete", json={"model": model["model"]})
    empty = auto(ollama_server.url)
    with pytest.raises(GeneratorModelMissing, match="ollama pull"):
        empty.check()
