"""scripts/verify as an administrator runs it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Document
from server.ingest.indexer import Indexer
from server.lifecycle.findings import Kind
from server.stores.contract import LegsRequest, Store, TextClause
from server.stores.embedded.store import EmbeddedStore
from tests.fakes import live_collections
from tests.lifecycle.damage import EmbeddedDamage
from tests.lifecycle.load import document
from tests.product import ROOT, environment

C = "handbook"
KILLS = 5


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = EmbeddedStore(tmp_path / "store")
    yield opened
    opened.close()


def fill(store: Store, count: int, collection: str = C) -> dict[str, Document]:
    documents = {f"d{number}": document(f"d{number}", 0) for number in range(count)}
    indexer = Indexer(store, live_collections(store, JiebaAnalyzer()))
    indexer.ensure_collection(collection)
    indexer.put(collection, list(documents.values()), refresh=True)
    return documents


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / "verify"), *arguments]


def run(data: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*arguments),
        env=environment(data, **{"embedder": "none", **settings}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def reports(done: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_a_sound_collection(store: Store, tmp_path: Path) -> None:
    fill(store, 20)
    done = run(tmp_path, "--collection", C)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{C}, generation 000001: 20 documents, ")
    assert done.stdout.endswith("It is sound.\n")


def test_damage_is_told_mended_and_gone(store: Store, tmp_path: Path) -> None:
    fill(store, 20)
    EmbeddedDamage(tmp_path / "store").plant(Kind.WRONG_TEXT, "d7", 0)
    found = run(tmp_path, "--collection", C)
    assert found.returncode == 1, found.stderr
    assert " 1 finding.\n" in found.stdout
    assert "wrong_text  d7:0  Characters 0 to " in found.stdout
    [report] = reports(run(tmp_path, "--collection", C, "--json"))
    assert (report["found"], report["mended"], report["left"]) == ({"wrong_text": 1}, {}, 1)
    [told] = report["findings"]
    assert (told["document_id"], told["position"], told["outcome"]) == ("d7", 0, "found")
    mended = run(tmp_path, "--collection", C, "--repair")
    assert mended.returncode == 0, mended.stderr
    assert "1 finding, 1 mended, 0 left." in mended.stdout
    assert run(tmp_path, "--collection", C).returncode == 0


def test_all_collections(store: Store, tmp_path: Path) -> None:
    for name in ("one", "two"):
        fill(store, 5, name)
    done = run(tmp_path, "--all", "--json")
    assert done.returncode == 0, done.stderr
    assert [report["collection"] for report in reports(done)] == ["one", "two"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--collection", "nothing"),
        ("--collection", "Bad Name"),
        ("--collection", C, "--all"),
        ("--unfinished", "-1"),
        ("--unfinished", "soon"),
        ("--store", "paper"),
        ("extra",),
    ],
)
def test_wrong_use(store: Store, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(("verify: ", "usage: verify"))
    assert "Traceback" not in done.stderr


def test_another_recipe_is_no_damage_but_is_told(store: Store, tmp_path: Path) -> None:
    fill(store, 5)
    done = run(tmp_path, "--collection", C, chunk_tokens="50")
    assert done.returncode == 0, done.stderr
    assert "This process can't serve it whole: " in done.stdout
    assert "chunker" in done.stdout


def has_open(process: "subprocess.Popen[str]", name: str) -> bool:
    files = Path(f"/proc/{process.pid}/fd")
    return any(file.is_symlink() and name in str(file.readlink()) for file in files.iterdir())


def test_an_interrupt_ends_with_what_was_seen(store: Store, tmp_path: Path) -> None:
    fill(store, 3)
    EmbeddedDamage(tmp_path / "store").plant(Kind.WRONG_TEXT, "d1", 0)
    with subprocess.Popen(
        command("--collection", C, "--json"),
        env=environment(tmp_path, embedder="none"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not has_open(process, "collection.db") and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)  # of the two seconds that a finding has to stand
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert process.returncode == 130, err
    [report] = json.loads(out)
    assert report["stopped"] == "interrupted by SIGINT"
    assert (report["documents"], report["found"]) == (3, {})


@pytest.mark.timeout(600)
def test_a_repair_killed_at_any_point_is_done_again(store: Store, tmp_path: Path) -> None:
    documents = fill(store, 1_500)
    damage = EmbeddedDamage(tmp_path / "store")
    random, kinds = Random(1), [Kind.WRONG_TEXT, Kind.DOCUMENT_WITHOUT_CHUNKS, Kind.MISSING_CHUNK]
    for number in range(0, 1_500, 3):
        damage.plant(kinds[number // 3 % 3], f"d{number}", 0)
    for _ in range(KILLS):
        process = subprocess.Popen(
            command("--collection", C, "--repair"),
            env=environment(tmp_path, embedder="none"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(random.uniform(1.0, 6.0))
        process.kill()
        process.wait()
        assert store.collection(C).documents == 1_500
    done = run(tmp_path, "--collection", C, "--repair", "--json")
    assert done.returncode == 0, done.stdout
    assert run(tmp_path, "--collection", C).returncode == 0
    analyzer = JiebaAnalyzer()
    for number in range(0, 1_500, 50):
        given = documents[f"d{number}"]
        assert store.document(C, given.id).document == given
        terms = tuple(token.term for token in analyzer.analyze(given.text).words)
        request = LegsRequest(text=(TextClause(field="words", terms=terms),), k=3)
        leg = store.search(C, request).bm25
        assert leg is not None
        assert f"{given.id}:0" in {chunk_id for chunk_id, _ in leg.hits}
