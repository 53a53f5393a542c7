"""Files into a collection: what is reported, skipped, resumed and stopped."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.errors import RecipeMismatch
from server.ingest.importer import Report, import_files
from server.ingest.indexer import Indexer
from server.ingest.loaders.files import find_files
from server.stores.embedded.store import EmbeddedStore
from tests.fakes import FakeEmbedder, make_indexer

C = "files"
ANALYZER = JiebaAnalyzer()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    store = EmbeddedStore(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
def embedder() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
def indexer(store: EmbeddedStore, embedder: FakeEmbedder) -> Indexer:
    indexer = make_indexer(store, ANALYZER, embedder)
    indexer.ensure_collection(C)
    return indexer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    (folder / "hr").mkdir(parents=True)
    (folder / "hr" / "leave.md").write_text("# 请假\n\n三天。", encoding="utf-8")
    (folder / "plain.txt").write_bytes("报销须附发票。".encode("gb18030"))
    (folder / "many.jsonl").write_text(
        '{"_id": "1", "text": "一"}\n{"_id": "2", "text": \n{"_id": "3", "text": "三"}\n'
        '{"_id": "1", "text": "again"}\n',
        encoding="utf-8",
    )
    (folder / "broken.txt").write_bytes(b"\x89PNG\r\n\x00\x01")
    (folder / "scan.pdf").write_bytes(b"%PDF")
    return folder


def run(indexer: Indexer, folder: Path, **options: object) -> Report:
    return import_files(indexer, C, find_files([folder]), **options)  # type: ignore[arg-type]


def test_report(indexer: Indexer, store: EmbeddedStore, folder: Path) -> None:
    report = run(indexer, folder, acl=("staff",), refresh=True)
    assert (report.indexed, report.unchanged, report.chunks, report.stopped) == (4, 0, 4, "")
    assert [(f.source, f.line, f.id, f.error.code) for f in report.failures] == [
        ("broken.txt", 0, None, "invalid_input"),
        ("many.jsonl", 2, None, "invalid_input"),
        ("many.jsonl", 0, "1", "invalid_input"),
    ]
    assert report.skipped == {".pdf": 1}
    assert store.document(C, "hr/leave.md").document.acl == ("staff",)
    assert store.document(C, "1").document.text == "一"
    shown = report.as_json()
    assert shown["failed"][1]["line"] == 2
    assert shown["documents_per_second"] > 0


def test_a_second_run_embeds_nothing(
    indexer: Indexer, embedder: FakeEmbedder, folder: Path
) -> None:
    run(indexer, folder)
    calls = len(embedder.calls)
    report = run(indexer, folder)
    assert (report.indexed, report.unchanged) == (0, 4)
    assert len(embedder.calls) == calls


def test_an_import_that_was_stopped_goes_on(
    indexer: Indexer, store: EmbeddedStore, tmp_path: Path
) -> None:
    file = tmp_path / "many.jsonl"
    file.write_text("".join(f'{{"id": "{n}", "text": "第{n}条"}}\n' for n in range(50)))
    progress: list[int] = []
    first = import_files(
        indexer,
        C,
        find_files([file]),
        batch=10,
        stop=lambda: "enough" if len(progress) == 1 else "",
        progress=lambda report: progress.append(report.indexed),
    )
    assert (first.indexed, first.stopped, progress) == (20, "enough", [10, 20])
    second = import_files(indexer, C, find_files([file]), batch=10)
    assert (second.indexed, second.unchanged) == (30, 20)
    assert store.collection(C).documents == 50


def test_limit(indexer: Indexer, tmp_path: Path) -> None:
    file = tmp_path / "many.jsonl"
    file.write_text("".join(f'{{"id": "{n}", "text": ""}}\n' for n in range(50)))
    assert import_files(indexer, C, find_files([file]), batch=10, limit=25).indexed == 25


def test_an_embedder_that_is_gone_ends_the_import(
    indexer: Indexer, embedder: FakeEmbedder, tmp_path: Path
) -> None:
    file = tmp_path / "many.jsonl"
    file.write_text("".join(f'{{"id": "{n}", "text": "第{n}条"}}\n' for n in range(100)))
    embedder.down = True
    report = import_files(indexer, C, find_files([file]), batch=10)
    assert (report.indexed, len(report.failures)) == (0, 10)
    assert "told to fail" in report.stopped


def test_a_store_that_is_gone_ends_the_import(
    indexer: Indexer, store: EmbeddedStore, folder: Path
) -> None:
    store.close()
    report = run(indexer, folder, batch=1)
    assert report.indexed == 0
    assert report.stopped


def test_another_recipe_is_refused(store: EmbeddedStore, indexer: Indexer, folder: Path) -> None:
    other = make_indexer(store, ANALYZER, FakeEmbedder(version="2"))
    with pytest.raises(RecipeMismatch):
        run(other, folder)
    assert store.collection(C).documents == 0
    assert run(indexer, folder).indexed == 4


def test_a_file_that_vanishes_is_a_failure(indexer: Indexer, folder: Path) -> None:
    files = list(find_files([folder]))
    (folder / "plain.txt").unlink()
    report = import_files(indexer, C, files)
    assert ("plain.txt", "invalid_input") in [(f.source, f.error.code) for f in report.failures]
    assert report.indexed == 3
