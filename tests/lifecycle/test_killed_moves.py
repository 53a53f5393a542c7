"""Exports, imports and copies of real processes that are killed with -9, and go on."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.documents import Document
from server.errors import CollectionNotFound
from server.stores.embedded.store import EmbeddedStore
from tests.fakes import make_indexer
from tests.lifecycle.archives import some_documents
from tests.lifecycle.moves import ANALYZER, contents, put
from tests.product import ROOT, environment
from tests.product import script as product_script

DOCUMENTS = 3_100  # four parts of an archive


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a collection ``books``."""
    data = tmp_path_factory.mktemp("data")
    store = EmbeddedStore(data / "store")
    indexer = make_indexer(store, ANALYZER)
    indexer.ensure_collection("books")
    put(indexer, "books", some_documents(DOCUMENTS))
    store.close()
    return data


@pytest.fixture
def store(data: Path) -> Iterator[EmbeddedStore]:
    store = EmbeddedStore(data / "store")
    yield store
    for collection in store.collections():
        if collection.name != "books":
            store.delete_collection(collection.name)
    store.close()


def stopped_when(
    ready: Callable[[], bool],
    *command: object,
    data: Path,
    by: signal.Signals = signal.SIGKILL,
) -> subprocess.CompletedProcess[str]:
    """A script that is killed as soon as something is so."""
    name, *arguments = map(str, command)
    with subprocess.Popen(
        [sys.executable, ROOT / "scripts" / name, *arguments],
        env=environment(data, embedder="none"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not ready():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(by)
        out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def script(name: str, *arguments: str, data: Path) -> Any:
    return product_script(name, *arguments, data=data, embedder="none")


def count(store: EmbeddedStore, collection: str) -> int:
    try:
        return store.collection(collection).documents
    except CollectionNotFound:
        return 0


def originals() -> dict[str, Document]:
    return {each.id: each for each in some_documents(DOCUMENTS)}


@pytest.mark.parametrize("name", ["archive", "archive.tar.gz"])
def test_an_export(store: EmbeddedStore, data: Path, tmp_path: Path, name: str) -> None:
    parts = tmp_path / (name if name == "archive" else f"{name}.parts")
    export = ("export_collection", tmp_path / name, "--collection=books")
    waited = ["manifest.json", "documents-00001.jsonl", "documents-00002.jsonl"]
    for file in waited:
        done = stopped_when((parts / file).exists, *export, data=data)
        assert done.returncode == -signal.SIGKILL
        assert not (tmp_path / "archive.tar.gz").exists()
    if name != "archive":  # while it is packed, or just after
        done = stopped_when((tmp_path / f".{name}.tmp").exists, *export, data=data)
        if done.returncode == 0:
            (tmp_path / name).unlink()
    exported = script("export_collection", str(tmp_path / name), "--collection=books", data=data)
    assert (exported["state"], exported["documents"]) == ("whole", DOCUMENTS)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {name}
    imported = script("import_collection", str(tmp_path / name), "--as=again", data=data)
    assert imported["digest"] == exported["digest"]
    assert contents(store, "again") == originals()


def test_an_import(store: EmbeddedStore, data: Path, tmp_path: Path) -> None:
    exported = script("export_collection", str(tmp_path / "a"), "--collection=books", data=data)
    for written in (1, 700, 1_500):
        done = stopped_when(
            lambda written=written: count(store, "again") >= written,  # type: ignore[misc]
            "import_collection",
            tmp_path / "a",
            "--as=again",
            data=data,
        )
        assert done.returncode == -signal.SIGKILL
        assert count(store, "again") < DOCUMENTS
    report = script("import_collection", str(tmp_path / "a"), "--as=again", data=data)
    assert report["unchanged"] >= 1_500
    assert report["written"] + report["unchanged"] == DOCUMENTS
    assert report["digest"] == exported["digest"]
    assert contents(store, "again") == originals()


def test_a_copy(store: EmbeddedStore, data: Path) -> None:
    command = ("copy_collection", "--collection=books", "--from=embedded", "--to=embedded")
    for written in (1, 700, 1_500):
        done = stopped_when(
            lambda written=written: count(store, "copy") >= written,  # type: ignore[misc]
            *command,
            "--as=copy",
            data=data,
        )
        assert done.returncode == -signal.SIGKILL
        assert count(store, "copy") < DOCUMENTS
    report = script(*command, "--as=copy", data=data)
    assert report["unchanged"] >= 1_500
    assert contents(store, "copy") == originals()


def test_interrupts_end_cleanly_and_are_gone_on_from(
    store: EmbeddedStore, data: Path, tmp_path: Path
) -> None:
    def interrupted(ready: Callable[[], bool], *command: object) -> Any:
        done = stopped_when(ready, *command, "--json", data=data, by=signal.SIGINT)
        assert done.returncode == 130, done.stderr
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout)

    archive = tmp_path / "a"
    export = ("export_collection", archive, "--collection=books")
    begun = interrupted((archive / "documents-00001.jsonl").exists, *export)
    assert begun["state"] == "partial"
    assert 0 < begun["documents"] < DOCUMENTS
    assert script(*map(str, export), data=data)["state"] == "whole"

    for command, name in (
        (("import_collection", archive, "--as=again"), "again"),
        (
            (
                "copy_collection",
                "--collection=books",
                "--from=embedded",
                "--to=embedded",
                "--as=copy",
            ),
            "copy",
        ),
    ):
        begun = interrupted(lambda name=name: count(store, name) >= 64, *command)  # type: ignore[misc]
        assert begun["stopped"] == "interrupted by SIGINT"
        ended = script(*map(str, command), data=data)
        assert ended["unchanged"] >= begun["written"]
        assert contents(store, name) == originals()
