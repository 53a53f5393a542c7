import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.errors import ConfigurationError
from server.models.choice import (
    EMBEDDERS,
    RERANKERS,
    choose_embedder,
    choose_generator,
    choose_reranker,
)
from server.models.contract import gives_sparse
from server.models.fetch import DEFAULT_MODELS
from server.settings import Settings
from tests.models import tiny

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with an embedder and a reranker under the names that fetch_models uses."""
    folder = tmp_path_factory.mktemp("models")
    tiny.bert(folder / EMBEDDERS[0])
    tiny.reranker(folder / RERANKERS[0])
    return folder


@contextmanager
def silent_port() -> Iterator[str]:
    """An address where connections are taken and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_auto_without_weights_takes_e5_and_says_how_to_get_better(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    embedder, reranker = choose_embedder(settings), choose_reranker(settings)
    assert (embedder.component, embedder.name) == ("embedder", "e5")
    assert embedder.adapter is not None
    assert embedder.adapter.dimensions == 384
    assert (reranker.component, reranker.name, reranker.adapter) == ("reranker", "light", None)
    for choice in (embedder, reranker):
        assert "scripts/fetch_models" in choice.reason
        assert str(tmp_path / "models") in choice.reason


def test_a_folder_with_a_head_gives_sparse_weights(tmp_path: Path) -> None:
    folder = tiny.m3(tmp_path / "BAAI" / "bge-m3")
    settings = Settings(data=tmp_path, models=str(tmp_path), embedder="bge:BAAI/bge-m3")
    assert gives_sparse(choose_embedder(settings).adapter)
    (folder / "sparse_linear.pt").unlink()
    plain = choose_embedder(settings)
    assert plain.name == "bge:BAAI/bge-m3"
    assert not gives_sparse(plain.adapter)


def test_auto_takes_weights_that_were_fetched(models_folder: Path, tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, models=str(models_folder))
    embedder, reranker = choose_embedder(settings), choose_reranker(settings)
    assert embedder.name == f"bge:{EMBEDDERS[0]}"
    assert reranker.name == f"bge:{RERANKERS[0]}"
    assert str(models_folder) in embedder.reason
    assert embedder.adapter is not None
    assert reranker.adapter is not None
    embedder.adapter.warm_up()
    assert embedder.adapter.embed_query("差旅").shape == (32,)
    assert 0 <= reranker.adapter.score("差旅", ["报销"])[0] <= 1


def test_what_is_fetched_by_default_is_what_auto_takes_first() -> None:
    assert (EMBEDDERS[0], RERANKERS[0]) == DEFAULT_MODELS


def test_a_model_is_taken_by_its_folder(models_folder: Path, tmp_path: Path) -> None:
    folder = models_folder / EMBEDDERS[0]
    choice = choose_embedder(Settings(data=tmp_path, embedder=f"bge:{folder}"))
    assert choice.name == f"bge:{folder}"
    assert "TANYUAN_EMBEDDER" in choice.reason


@pytest.mark.parametrize("component", ["embedder", "reranker", "generator"])
def test_none_leaves_a_component_out_by_name(component: str, tmp_path: Path) -> None:
    choose = {
        "embedder": choose_embedder,
        "reranker": choose_reranker,
        "generator": choose_generator,
    }[component]
    choice = choose(Settings(data=tmp_path, **{component: "none"}))
    assert (choice.adapter, choice.name, choice.component) == (None, "none", component)
    assert f"TANYUAN_{component.upper()}" in choice.reason


def test_an_embedder_that_is_named_and_not_there_stops_the_start(
    models_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="scripts/fetch_models"):
        choose_embedder(Settings(data=tmp_path, embedder="bge:BAAI/bge-large-zh-v1.5"))
    with pytest.raises(ConfigurationError, match="holds a reranker"):
        choose_embedder(Settings(data=tmp_path, embedder=f"bge:{models_folder / RERANKERS[0]}"))


def test_a_reranker_that_is_named_and_not_there_is_left_out(
    models_folder: Path, tmp_path: Path
) -> None:
    missing = choose_reranker(Settings(data=tmp_path, reranker="bge:BAAI/bge-reranker-large"))
    assert missing.adapter is None
    assert "bge-reranker-large" in missing.reason
    wrong = choose_reranker(Settings(data=tmp_path, reranker=f"bge:{models_folder / EMBEDDERS[0]}"))
    assert wrong.adapter is None
    assert "not a reranker" in wrong.reason


@pytest.mark.parametrize(
    "value",
    ["", "openai", "openai:", "ernie", "bge", "bge:", "e5:small", "none:x", "auto:e5", "E5"],
)
def test_a_setting_that_is_not_supported_names_those_that_are(tmp_path: Path, value: str) -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"TANYUAN_EMBEDDER is .* auto, none, bge:MODEL, e5, sentence-transformers:MODEL, "
        r"openai:MODEL, ernie:embedding-v1, ollama:MODEL",
    ):
        choose_embedder(Settings(data=tmp_path, embedder=value))
    if value != "":
        with pytest.raises(ConfigurationError, match="TANYUAN_GENERATOR"):
            choose_generator(Settings(data=tmp_path, generator=value))


def test_a_generator_that_is_named_is_taken_even_while_ollama_is_down(tmp_path: Path) -> None:
    choice = choose_generator(
        Settings(data=tmp_path, generator="ollama:qwen2.5:7b", ollama_host="http://127.0.0.1:9")
    )
    assert choice.name == "ollama:qwen2.5:7b"
    assert choice.adapter is not None


def test_a_generators_server_that_hangs_delays_the_choice_two_seconds(tmp_path: Path) -> None:
    with silent_port() as host:
        began = time.monotonic()
        choice = choose_generator(Settings(data=tmp_path, ollama_host=host))
    assert time.monotonic() - began < 2.5
    assert choice.name == "ollama"
    assert host.removeprefix("http://") in choice.reason


def test_the_choice_is_quick_and_goes_nowhere(tmp_path: Path) -> None:
    # In a process of its own, whose every look-up and connection is counted.
    program = """
import json, sys, time
calls = []
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        calls.append(str(arguments))
sys.addaudithook(hook)
began = time.monotonic()
from server.models.choice import choose_embedder, choose_reranker
from server.settings import Settings
settings = Settings.load()
names = [choose(settings).name for choose in (choose_embedder, choose_reranker)]
heavy = sorted({"torch", "transformers", "FlagEmbedding"} & set(sys.modules))
print(json.dumps([names, calls, heavy, time.monotonic() - began]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"TANYUAN_DATA": str(tmp_path), "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    names, calls, heavy, seconds = json.loads(done.stdout)
    assert names == ["e5", "light"]
    assert calls == []
    assert heavy == []
    assert seconds < 2


def test_without_flag_embedding_the_way_to_get_it_is_named(
    models_folder: Path, tmp_path: Path
) -> None:
    # A process in which the package can't be found, as in an installation without the extra.
    program = """
import sys
sys.modules["FlagEmbedding"] = None
from server.models.choice import choose_embedder, choose_reranker
from server.settings import Settings
settings = Settings.load()
for choose in (choose_embedder, choose_reranker):
    choice = choose(settings)
    print(choice.name, choice.reason)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"TANYUAN_DATA": str(tmp_path), "TANYUAN_MODELS": str(models_folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    embedder, reranker = done.stdout.splitlines()
    assert embedder.startswith("e5 ")
    assert reranker.startswith("light ")
    for line in (embedder, reranker):
        assert "pip install 'tanyuan[bge]'" in line
        assert "--light" in line
