"""Both scripts on the sample, with tiny models: a gain, a loss, and wrong use."""

import json
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from server.app import open_services
from server.ingest.importer import import_files
from server.ingest.loaders.files import find_files
from server.models import tuned
from server.models.choice import choose_embedder, choose_reranker
from server.retrieval.query import SearchQuery
from server.settings import Settings
from server.web.services import Services
from tests.finetuning import sample_models
from tests.product import ROOT, SAMPLE, environment

POOR, FAIR = "sentence-transformers:tiny/poor", "sentence-transformers:tiny/fair"
RANKER = "bge:tiny/ranker"
HALF = ("--judged", str(SAMPLE), "--held-out", "0.5", "--negatives", "1")


def settings(data: Path, embedder: str = POOR) -> Settings:
    return Settings(data=data, embedder=embedder, reranker="none", generator="none", windows=False)


@contextmanager
def services(data: Path, embedder: str = POOR) -> Iterator[Services]:
    opened = open_services(settings(data, embedder))
    try:
        yield opened
    finally:
        opened.close()


def run(script: str, *arguments: str, data: Path) -> tuple[int, Any, str]:
    """A script's exit status, the JSON that it printed and what it said."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / script, *arguments, "--json"],
        cwd=ROOT,
        env=environment(data, embedder=POOR, windows="0"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


class Here:
    """Scripts run in this process, which has loaded torch already; else as ``run``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capfd = monkeypatch, capfd

    def __call__(self, script: str, *arguments: str, data: Path) -> tuple[int, Any, str]:
        scripts = ROOT / "scripts"
        with self._patch.context() as patch:
            for name, value in environment(data, embedder=POOR, windows="0").items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", [str(scripts / script), *arguments, "--json"])
            patch.syspath_prepend(scripts)
            handler = signal.getsignal(signal.SIGTERM)
            self._capfd.readouterr()
            try:
                code = runpy.run_path(str(scripts / script))["main"]()
            finally:
                signal.signal(signal.SIGTERM, handler)
        out, said = self._capfd.readouterr()
        return code, json.loads(out) if out else None, said


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Here:
    return Here(monkeypatch, capfd)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with three models, and the sample in a collection of the poor one."""
    data = tmp_path_factory.mktemp("finetuned") / "data"
    sample_models.embedder(data / "models" / "tiny" / "poor")
    sample_models.embedder(data / "models" / "tiny" / "fair", places=1)
    sample_models.reranker(data / "models" / "tiny" / "ranker")
    with services(data) as opened:
        opened.indexer.ensure_collection("default")
        files = find_files([SAMPLE / "documents"])
        import_files(opened.indexer, "default", files, refresh=True)
    return data


@pytest.fixture
def data(indexed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(indexed, tmp_path / "data")


def hits(opened: Services) -> list[tuple[str, float]]:
    query = SearchQuery(query="差旅报销标准", mode="vector", rerank=False)
    found = opened.searcher.search(query, groups=None)
    assert not found.degraded
    return [(hit.chunk_id, hit.score) for hit in found.hits]


def state(data: Path) -> dict[str, object]:
    """Everything that fine-tuning might change."""
    models = data / "models"
    files = (file for file in models.rglob("*") if file.is_file() and file.suffix != ".lock")
    with services(data) as opened:
        return {
            "generations": [asdict(one) for one in opened.store.generations.all("default")],
            "hits": hits(opened),
            "files": {str(file.relative_to(models)): file.stat().st_mtime_ns for file in files},
        }


def test_a_gain_gives_the_collection_the_new_model(data: Path) -> None:
    code, found, said = run(
        "finetune_embedder", *HALF, "--epochs", "8", "--rate", "1e-2", data=data
    )
    assert (code, said) == (0, "")
    (gain,) = found["ndcg@10"].values()
    assert gain["compared"]["p"] < 0.05
    assert gain["after"] > gain["before"] + 0.05
    assert found["held_out"]["judged"] >= 20
    assert found["rebuild"]["state"] == "promoted"
    assert found["model"].startswith("sentence-transformers:tuned/poor-default-")

    with services(data, found["model"]) as opened:
        live = opened.store.live("default")
        assert live.recipe.model == found["model"]
        assert live.recipe.embedder == choose_embedder(opened.settings).adapter.fingerprint
        assert hits(opened)
    folder = data / "models" / found["model"].partition(":")[2]
    manifest = tuned.read(folder)
    assert (manifest["source"], manifest["collection"]) == (POOR, "default")
    assert manifest["ndcg@10"] == found["ndcg@10"]
    assert not (data / "models" / ".finetuning").exists()


def test_a_loss_leaves_everything_as_it_was(data: Path, here: Here) -> None:
    before = state(data)
    absurd = ("--model", FAIR, "--no-titles", "--epochs", "3", "--rate", "50")
    code, found, said = here("finetune_embedder", *HALF, *absurd, data=data)
    assert (code, said) == (1, "")
    assert (found["gained"], found["model"], found["rebuild"]) == (False, "", None)
    assert found["ndcg@10"].keys() == {FAIR, POOR}  # what it was made of, and what serves
    gain = found["ndcg@10"][FAIR]
    assert gain["after"] < gain["before"] - 0.05
    assert state(data) == before


def test_a_reranker_that_gains_is_kept_and_named(data: Path, here: Here) -> None:
    options = ("--model", RANKER, "--epochs", "3", "--rate", "3e-3", "--negatives", "2")
    code, found, said = here("finetune_reranker", *HALF, *options, data=data)
    assert (code, said) == (0, "")
    gain = found["ndcg@10"][RANKER]
    assert gain["compared"]["p"] < 0.05
    assert gain["after"] > gain["before"] + 0.05
    choice = choose_reranker(Settings(data=data, reranker=found["model"]))
    assert choice.adapter is not None
    assert 0 <= choice.adapter.score("差旅", ["差旅报销标准"])[0] <= 1
    with services(data) as opened:
        assert opened.store.live("default").recipe.model == POOR


def test_a_dry_run_counts(data: Path, here: Here) -> None:
    before = state(data)
    code, found, said = here("finetune_embedder", *HALF, "--written", "9", "--dry-run", data=data)
    assert (code, said) == (0, "")
    assert found["train"]["titles"] > 50
    assert sum(side.get("judged", 0) for side in (found["train"], found["held_out"])) == 54
    assert state(data) == before


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("finetune_embedder", ["--collection", "none"], "no collection none"),
        ("finetune_embedder", ["--model", "e5"], "can't be fine-tuned"),
        ("finetune_reranker", ["--model", "bge:no/such"], "scripts/fetch_models"),
    ],
)
def test_wrong_use_is_told_and_exits_with_2(
    indexed: Path, here: Here, script: str, arguments: list[str], said: str
) -> None:
    code, found, told = here(script, *arguments, data=indexed)
    assert (code, found) == (2, None)
    assert said in told
