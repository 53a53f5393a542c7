"""A collection to an archive and back: exactly the same, whoever writes meanwhile or is killed."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Document
from server.errors import CollectionExists, InvalidInput, StoreFull
from server.feedback import Feedback, HitJudgement
from server.ingest.chunker import Chunker
from server.lifecycle.archive import Archive
from server.lifecycle.archive_folder import pack_tar
from server.lifecycle.exporter import Exporter
from server.lifecycle.rebuild import Rebuilder
from server.lifecycle.transfer import Report
from server.retrieval.fusion import Fusion
from server.retrieval.profile import Profile
from server.retrieval.profiles import Profiles
from server.stores.contract import Store
from server.stores.embedded.store import EmbeddedStore
from server.vocabulary import Vocabulary
from tests.fakes import FakeEmbedder, live_collections, make_indexer
from tests.lifecycle.archives import documents, some_documents
from tests.lifecycle.moves import (
    ANALYZER,
    assert_same_chunks,
    change_dictionary,
    chunks,
    contents,
    import_archive,
    put,
)
from tests.product import ROOT, environment, script
from tests.stores.contract import unique_name


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedStore]:
    store = EmbeddedStore(tmp_path / "store")
    yield store
    store.close()


@settings(max_examples=40, deadline=None)
@given(documents(), st.booleans(), st.sampled_from(("archive", "a.tar", "a.tar.gz")))
def test_a_collection_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, written: list[Document], vectors: bool, form: str
) -> None:
    folder = tmp_path_factory.mktemp("round-trip")
    store = EmbeddedStore(folder / "store")
    embedder = FakeEmbedder()
    indexer = make_indexer(store, ANALYZER, embedder)
    indexer.ensure_collection("books", "旧书 😀")
    put(indexer, "books", written)
    manifest = Exporter(store, "books", vectors=vectors, part_documents=3).run(folder / form)
    assert manifest.documents == len(written)
    embedder.calls.clear()

    report = import_archive(store, indexer, folder / form, "again")

    assert report.whole
    assert report.digest == manifest.digest
    assert contents(store, "again") == {each.id: each for each in written}
    assert store.collection("again").description == "旧书 😀"
    assert_same_chunks(chunks(store, "again"), chunks(store, "books"))
    if vectors:
        assert embedder.texts == []
    store.close()
    shutil.rmtree(folder)


@pytest.mark.parametrize("vectors", [False, True])
def test_in_every_store(store: Store, tmp_path: Path, vectors: bool) -> None:
    embedder = FakeEmbedder()
    indexer = make_indexer(store, ANALYZER, embedder)
    name = unique_name()
    indexer.ensure_collection(name)
    put(indexer, name, some_documents(130))
    Exporter(store, name, vectors=vectors, part_documents=50).run(tmp_path / "a")
    embedder.calls.clear()
    assert import_archive(store, indexer, tmp_path / "a", f"{name}-2").whole
    assert contents(store, f"{name}-2") == contents(store, name)
    assert_same_chunks(chunks(store, f"{name}-2"), chunks(store, name))
    assert bool(embedder.texts) is not vectors


def test_vectors_of_another_embedder_are_not_taken(embedded: EmbeddedStore, tmp_path: Path) -> None:
    make_indexer(embedded, ANALYZER, FakeEmbedder()).ensure_collection("books")
    put(make_indexer(embedded, ANALYZER, FakeEmbedder()), "books", some_documents(5))
    Exporter(embedded, "books", vectors=True).run(tmp_path / "a")
    other = FakeEmbedder(dimensions=8, version="2")
    assert import_archive(
        embedded, make_indexer(embedded, ANALYZER, other), tmp_path / "a", "b"
    ).whole
    assert len(other.texts) == embedded.collection("b").chunks
    alone = make_indexer(embedded, ANALYZER, None)
    assert import_archive(embedded, alone, tmp_path / "a", "c").whole
    assert embedded.collection("c").recipe.dimensions == 0


def test_the_vocabulary_comes_along(embedded: EmbeddedStore, tmp_path: Path) -> None:
    indexer = make_indexer(embedded, ANALYZER)
    indexer.ensure_collection("books")
    vocabulary = Vocabulary(embedded.notes)
    change_dictionary(embedded, indexer, "books", ["齐岚采样泵"])
    vocabulary.change("books", "dictionary", add=["草稿词"], author="li")
    vocabulary.change("books", "synonyms", add=["年假, 休假"], author="li", comment="为何")
    embedded.notes.put("books", "lock:rebuild", {"holder": "me"})
    put(indexer, "books", some_documents(3))
    Exporter(embedded, "books").run(tmp_path / "a")

    assert import_archive(embedded, indexer, tmp_path / "a", "again").whole

    for kind in ("dictionary", "synonyms", "stop_words"):
        assert vocabulary.history("again", kind) == vocabulary.history("books", kind)
        assert vocabulary.lines("again", kind) == vocabulary.lines("books", kind)
    recipe = embedded.collection("again").recipe
    assert recipe == embedded.collection("books").recipe
    assert recipe.dictionary == 1
    assert embedded.notes.get("again", "lock:rebuild") is None
    assert "齐岚采样泵" in JiebaAnalyzer(vocabulary.dictionary("again", 1)).frequencies


def test_the_profile_comes_along_and_feedback_does_not(
    embedded: EmbeddedStore, tmp_path: Path
) -> None:
    indexer = make_indexer(embedded, ANALYZER)
    indexer.ensure_collection("books")
    put(indexer, "books", some_documents(3))
    profiles, feedback = Profiles(embedded.notes), Feedback(embedded.notes)
    profiles.save("books", Profile(fusion=Fusion(window=300)), author="li", comment="为何")
    profiles.roll_back("books", 0, author="li")
    feedback.judge("books", HitJudgement(query="谁问的", document_id="d0", grade=1))
    Exporter(embedded, "books").run(tmp_path / "a")
    assert import_archive(embedded, indexer, tmp_path / "a", "again").whole
    assert profiles.history("again") == profiles.history("books")
    assert feedback.hits("again") == []


def test_an_empty_collection_is_filled_and_a_full_one_is_not(
    embedded: EmbeddedStore, tmp_path: Path
) -> None:
    indexer = make_indexer(embedded, ANALYZER)
    indexer.ensure_collection("books", "described")
    change_dictionary(embedded, indexer, "books", ["齐岚采样泵"])
    put(indexer, "books", some_documents(3))
    Exporter(embedded, "books").run(tmp_path / "a")
    indexer.ensure_collection("empty")
    assert import_archive(embedded, indexer, tmp_path / "a", "empty").whole
    assert embedded.collection("empty").description == "described"
    assert embedded.collection("empty").recipe.dictionary == 1
    assert contents(embedded, "empty") == contents(embedded, "books")
    for name in ("books", "empty"):
        with pytest.raises(CollectionExists, match="already"):
            import_archive(embedded, indexer, tmp_path / "a", name)


def test_what_differs_in_the_end_is_named(embedded: EmbeddedStore, tmp_path: Path) -> None:
    indexer = make_indexer(embedded, ANALYZER)
    indexer.ensure_collection("books")
    put(indexer, "books", some_documents(200))
    Exporter(embedded, "books").run(tmp_path / "a")

    def meddle(report: Report) -> None:
        if report.done == 200:
            put(indexer, "again", [Document.create(id="d1", text="other")])
            put(indexer, "again", [Document.create(id="more", text="more")])
            indexer.delete("again", "d7")

    report = import_archive(embedded, indexer, tmp_path / "a", "again", progress=meddle)
    assert not report.whole
    assert (report.missing, report.differing, report.surplus) == (["d7"], ["d1"], ["more"])
    # Run again it mends what it can, and still says what is too much.
    report = import_archive(embedded, indexer, tmp_path / "a", "again")
    assert (report.missing, report.differing, report.surplus) == ([], [], ["more"])
    indexer.delete("again", "more")
    assert import_archive(embedded, indexer, tmp_path / "a", "again").whole


# Exports -------------------------------------------------------------------------------------------


def test_a_finished_archive_is_replaced_only_when_asked(
    embedded: EmbeddedStore, tmp_path: Path
) -> None:
    indexer = make_indexer(embedded, ANALYZER, FakeEmbedder())
    indexer.ensure_collection("books")
    put(indexer, "books", some_documents(9))
    for form in ("a", "a.tar.gz"):
        Exporter(embedded, "books", vectors=True, part_documents=2).run(tmp_path / form)
        with pytest.raises(InvalidInput, match="--overwrite"):
            Exporter(embedded, "books").run(tmp_path / form)
    indexer.delete("books", "d3")
    for form in ("a", "a.tar.gz"):
        manifest = Exporter(embedded, "books", overwrite=True).run(tmp_path / form)
        assert manifest.documents == 8
        with Archive(tmp_path / form) as archive:
            archive.check()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "documents-00001.jsonl",
        "manifest.json",
        "notes.json",
    ]
    assert not (tmp_path / "a.tar.gz.parts").exists()


def test_an_export_that_was_killed_at_its_very_end(embedded: EmbeddedStore, tmp_path: Path) -> None:
    indexer = make_indexer(embedded, ANALYZER)
    indexer.ensure_collection("books")
    put(indexer, "books", some_documents(9))
    done = Exporter(embedded, "books").run(tmp_path / "a")
    pack_tar(tmp_path / "a", done, tmp_path / "a.tar")
    (tmp_path / "a").rename(tmp_path / "a.tar.parts")
    assert Exporter(embedded, "books").run(tmp_path / "a.tar") == done
    assert [path.name for path in tmp_path.glob("a*")] == ["a.tar"]


def test_other_things_are_never_touched(embedded: EmbeddedStore, tmp_path: Path) -> None:
    make_indexer(embedded, ANALYZER).ensure_collection("books")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "documents-00001.jsonl").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(InvalidInput, match="other things"):
            Exporter(embedded, "books", overwrite=overwrite).run(tmp_path / "mine")
    assert (tmp_path / "mine" / "documents-00001.jsonl").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InvalidInput, match="can't be written"):
        Exporter(embedded, "books").run(tmp_path / "file")


def test_an_export_goes_on_and_takes_what_changed_meanwhile(
    embedded: EmbeddedStore, tmp_path: Path
) -> None:
    indexer = make_indexer(embedded, ANALYZER, FakeEmbedder())
    indexer.ensure_collection("books")
    put(indexer, "books", some_documents(100))

    stops = iter(("", "", "enough"))
    exporter = Exporter(embedded, "books", vectors=True, part_documents=7, stop=lambda: next(stops))
    manifest = exporter.run(tmp_path / "a")
    assert (manifest.state, manifest.documents) == ("partial", 21)
    with pytest.raises(InvalidInput, match="cut off"):
        Archive(tmp_path / "a")

    untouched = (tmp_path / "a" / "documents-00002.jsonl").stat().st_mtime_ns
    (tmp_path / "a" / "documents-00003.jsonl").write_bytes(b"damaged")
    first = json.loads((tmp_path / "a" / "documents-00001.jsonl").read_bytes().splitlines()[0])
    put(indexer, "books", [Document.create(id=first["id"], text="changed")])
    Exporter(embedded, "books", vectors=True, part_documents=7).run(tmp_path / "a")
    assert (tmp_path / "a" / "documents-00002.jsonl").stat().st_mtime_ns == untouched
    embedder = FakeEmbedder()
    again = make_indexer(embedded, ANALYZER, embedder)
    assert import_archive(embedded, again, tmp_path / "a", "again").whole
    assert contents(embedded, "again") == contents(embedded, "books")
    assert embedder.texts == []


def test_the_beginning_of_another_export_is_not_gone_on_with(
    embedded: EmbeddedStore, tmp_path: Path
) -> None:
    indexer = make_indexer(embedded, ANALYZER, FakeEmbedder())
    for name in ("books", "others"):
        indexer.ensure_collection(name)
        put(indexer, name, some_documents(9))
    Exporter(embedded, "books", part_documents=2, stop=lambda: "enough").run(tmp_path / "a")
    for name, vectors in (("others", False), ("books", True)):
        with pytest.raises(InvalidInput, match="the beginning of another export"):
            Exporter(embedded, name, vectors=vectors).run(tmp_path / "a")
    Exporter(embedded, "others", vectors=True, overwrite=True).run(tmp_path / "a")


def test_an_export_while_others_write(store: Store, tmp_path: Path) -> None:
    """Each document comes once, as it was at some moment, with the vectors of that form."""
    embedder = FakeEmbedder()
    indexer = make_indexer(store, ANALYZER, embedder)
    name = unique_name()
    indexer.ensure_collection(name)
    before = some_documents(400)
    put(indexer, name, before)
    forms: dict[str, set[str]] = {each.id: {each.content_hash} for each in before}
    ended = threading.Event()

    def write(number: int) -> None:
        random = Random(number)
        while not ended.is_set():
            at = random.randrange(number, 400, 2)
            if random.random() < 0.1:
                store.delete(name, f"d{at}") if f"d{at}" in store.states(name, [f"d{at}"]) else None
                continue
            changed = Document.create(
                id=f"d{at}", title=f"新{random.random()}", text=some_documents(at + 1)[at].text
            )
            forms[changed.id].add(changed.content_hash)
            put(indexer, name, [changed])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        manifest = Exporter(store, name, vectors=True, part_documents=20).run(tmp_path / "a")
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    with Archive(tmp_path / "a") as archive:
        archive.check()
        found = [each for part in archive.parts() for each in part.documents()]
    assert len({each.id for each in found}) == len(found) == manifest.documents
    assert all(each.content_hash in forms[each.id] for each in found)
    assert manifest.vectors > 0.8 * manifest.documents
    assert import_archive(store, indexer, tmp_path / "a", f"{name}-2").whole
    for passage, vector in chunks(store, f"{name}-2").values():
        np.testing.assert_allclose(vector, embedder.embed_query(passage), atol=1e-6)


@pytest.mark.parametrize("version", ["1", "2"])
def test_an_export_across_a_rebuild(embedded: EmbeddedStore, tmp_path: Path, version: str) -> None:
    """With the same embedder nothing is lost; another one's vectors are never mixed in."""
    embedder = FakeEmbedder()
    indexer = make_indexer(embedded, ANALYZER, embedder)
    indexer.ensure_collection("books")
    put(indexer, "books", some_documents(40))
    live = live_collections(embedded, ANALYZER, FakeEmbedder(version=version), Chunker(len, 40))

    def rebuild(done: int) -> None:
        if done == 20:
            Rebuilder(embedded, live, keep=0).rebuild("books", by="test").run()

    exporter = Exporter(embedded, "books", vectors=True, part_documents=10, progress=rebuild)
    if version == "2":
        with pytest.raises(InvalidInput, match="--overwrite"):
            exporter.run(tmp_path / "a")
        return
    manifest = exporter.run(tmp_path / "a")
    assert manifest.vectors >= 40
    embedder.calls.clear()
    assert import_archive(embedded, indexer, tmp_path / "a", "again").whole
    for passage, vector in chunks(embedded, "again").values():
        assert vector is not None
        assert vector.tobytes() == embedder.embed_query(passage).tobytes()


def test_a_full_disk_is_said_and_gone_on_from(embedded: EmbeddedStore, tmp_path: Path) -> None:
    indexer = make_indexer(embedded, ANALYZER)
    indexer.ensure_collection("books")
    put(indexer, "books", [Document.create(id=f"d{n}", text="长" * 40_000) for n in range(6)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(StoreFull, match="Make room"):
            Exporter(embedded, "books", part_documents=3).run(tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert not list((tmp_path / "a").glob(".*"))
    assert Exporter(embedded, "books", part_documents=3).run(tmp_path / "a").state == "whole"


def test_two_exports_into_one_folder(embedded: EmbeddedStore, tmp_path: Path) -> None:
    indexer = make_indexer(embedded, ANALYZER)
    indexer.ensure_collection("books")
    put(indexer, "books", some_documents(5))

    def another(_: int) -> None:
        with pytest.raises(InvalidInput, match="Another process is writing"):
            Exporter(embedded, "books").run(tmp_path / "a")

    assert Exporter(embedded, "books", progress=another).run(tmp_path / "a").state == "whole"


# Scripts -------------------------------------------------------------------------------------------


def run(data: Path, name: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / name, *map(str, arguments)],
        env=environment(data, embedder="auto"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_scripts(embedded: EmbeddedStore, tmp_path: Path) -> None:
    data, archive = tmp_path, tmp_path / "a.tar.gz"
    (tmp_path / "files").mkdir()
    for number in range(5):
        (tmp_path / "files" / f"{number}.md").write_text(
            f"# 第{number}条\n\n请假须提前{number}天。"
        )
    script("index_documents", str(tmp_path / "files"), "--collection=books", data=data)
    done = run(data, "export_collection", archive, "--collection=books", "--vectors")
    assert done.returncode == 0, done.stderr
    assert "Exported 5 documents of books with 5 vectors" in done.stdout
    done = run(data, "export_collection", archive, "--collection=books", "--vectors")
    assert done.returncode == 2
    assert "--overwrite" in done.stderr
    other = tmp_path / "other"
    done = run(other, "import_collection", archive)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "books: 5 documents written (5 chunks)" in done.stdout
    there = EmbeddedStore(other / "store")
    assert there.collection("books").recipe == embedded.collection("books").recipe
    assert_same_chunks(chunks(there, "books"), chunks(embedded, "books"))
    there.close()
    damaged = bytearray(archive.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    archive.write_bytes(damaged)
    for name, *arguments in (
        ("import_collection", archive, "--as=again"),
        ("import_collection", tmp_path / "missing"),
        ("export_collection", tmp_path / "b", "--collection=missing"),
        ("export_collection", tmp_path / "b", "--collection=Bad Name"),
        ("export_collection", "/proc/a", "--collection=books"),
    ):
        done = run(data, str(name), *arguments)
        assert done.returncode == 2, done
        assert done.stderr.startswith(f"{name}: ")
        assert "Traceback" not in done.stderr
    assert [each.name for each in embedded.collections()] == ["books"]
