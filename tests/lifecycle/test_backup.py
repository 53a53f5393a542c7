"""Backups under write load, and what a restore brings back: every write acknowledged before."""

import json
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from server.documents import Document
from server.errors import CollectionExists, CollectionNotFound, InvalidInput
from server.ingest.indexer import Indexer, Put
from server.lifecycle.backup import Backups
from server.lifecycle.snapshots import Snapshots
from server.stores.elasticsearch.store import ElasticsearchStore
from server.stores.embedded.store import EmbeddedStore
from server.web.keys import Keys
from tests.fakes import FakeEmbedder, make_indexer
from tests.lifecycle.archives import some_documents
from tests.lifecycle.moves import ANALYZER, assert_same_chunks, chunks, contents, put
from tests.product import ROOT, environment, script
from tests.services.elasticsearch import VERSIONS, Node, own_node


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedStore]:
    store = EmbeddedStore(tmp_path / "data" / "store")
    yield store
    store.close()


@dataclass
class Writes:
    """Acknowledged ones: in order, with the time of the acknowledgement."""

    acknowledged: list[tuple[float, Document]] = field(default_factory=list)

    def before(self, moment: float) -> dict[str, Document]:
        return {document.id: document for at, document in self.acknowledged if at < moment}


@contextmanager
def writing(indexer: Indexer, collection: str) -> Iterator[Writes]:
    """New documents, one after the other, without pause."""
    writes, ended = Writes(), threading.Event()

    def run() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            document = Document.create(id=f"new{number}", text=f"新文件第{number}号。")
            [result] = indexer.put(collection, [document])
            assert isinstance(result, Put)
            writes.acknowledged.append((time.monotonic(), document))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        while not writes.acknowledged:
            time.sleep(0.01)
        yield writes
    finally:
        ended.set()
        thread.join()


def test_under_write_load(embedded: EmbeddedStore, tmp_path: Path) -> None:
    indexer = make_indexer(embedded, ANALYZER, FakeEmbedder())
    for name in ("books", "others"):
        indexer.ensure_collection(name, f"of {name}")
        put(indexer, name, some_documents(150))
    embedded.notes.put("books", "vocabulary:x", {"lines": ["差旅"]})
    backups = Backups(embedded, tmp_path / "backups")
    with writing(indexer, "books") as writes:
        for number in range(3):
            moment = time.monotonic()
            backups.create(f"b{number}", ["books", "others"], {})
            before = writes.before(moment)
            restored = backups.restore(f"b{number}", {"books": f"again{number}"})
            found = contents(embedded, f"again{number}")
            assert before.items() <= found.items()
            originals = {each.id: each for each in some_documents(150)}
            assert originals.items() <= found.items()
            written = {each.id: each for _, each in list(writes.acknowledged)}
            assert found.items() <= (originals | written).items()
            assert [each.documents for each in restored] == [len(found)]
    assert [backup.name for backup in backups.all()] == ["b0", "b1", "b2"]
    assert embedded.collection("again0").description == "of books"
    note = embedded.notes.get("again0", "vocabulary:x")
    assert note is not None
    assert note.value == {"lines": ["差旅"]}
    # What came back is served and written to as before, and has its vectors.
    assert_same_chunks(
        chunks(embedded, "again0"),
        {
            key: value
            for key, value in chunks(embedded, "books").items()
            if key in chunks(embedded, "again0")
        },
    )
    put(indexer, "again0", [Document.create(id="d0", text="changed")])
    assert embedded.document("again0", "d0").revision == 2


def test_keys_are_in_it_and_for_their_owner_alone(embedded: EmbeddedStore, tmp_path: Path) -> None:
    make_indexer(embedded, ANALYZER).ensure_collection("books")
    token = Keys.in_folder(tmp_path / "data").create(name="one", role="admin")
    files = {name: tmp_path / "data" / name for name in ("keys.sqlite", "dictionary.txt")}
    backups = Backups(embedded, tmp_path / "backups")
    backup = backups.create("b", ["books"], files)
    assert [each.name for each in backup.files] == ["keys.sqlite"]
    copied = tmp_path / "backups" / "b" / backup.files[0].file
    assert stat.S_IMODE(copied.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "backups" / "b").stat().st_mode) == 0o700
    with pytest.raises(InvalidInput, match="never overwrites a file"):
        backups.restore("b", {"books": "again"}, files=files)
    with pytest.raises(CollectionNotFound):
        embedded.collection("again")
    elsewhere = {name: tmp_path / "other" / name for name in files}
    backups.restore("b", {"books": "again"}, files=elsewhere)
    found = Keys.in_folder(tmp_path / "other").find(token)
    assert found is not None
    assert found.name == "one"


def test_nothing_is_overwritten(embedded: EmbeddedStore, tmp_path: Path) -> None:
    make_indexer(embedded, ANALYZER).ensure_collection("books")
    backups = Backups(embedded, tmp_path / "backups")
    backups.create("b", ["books"], {})
    with pytest.raises(CollectionExists, match="never overwrites"):
        backups.restore("b", {"books": "books"})
    with pytest.raises(InvalidInput, match="There is a backup"):
        backups.create("b", ["books"], {})
    for name in ("../b", "", "B", ".b", "x" * 65):
        with pytest.raises(InvalidInput, match="backup's name"):
            backups.create(name, ["books"], {})
    with pytest.raises(InvalidInput, match="There is no backup"):
        backups.restore("c", {"books": "again"})
    with pytest.raises(CollectionNotFound, match="holds no collection"):
        backups.restore("b", {"others": "others"})


def test_a_backup_that_fails_leaves_nothing(embedded: EmbeddedStore, tmp_path: Path) -> None:
    make_indexer(embedded, ANALYZER).ensure_collection("books")
    backups = Backups(embedded, tmp_path / "backups")
    with pytest.raises(CollectionNotFound):
        backups.create("b", ["books", "missing"], {})
    assert list((tmp_path / "backups").iterdir()) == []
    (tmp_path / "backups" / ".draft-of-a-killed-one").mkdir()
    backups.create("b", ["books"], {})
    assert [path.name for path in (tmp_path / "backups").iterdir()] == ["b"]


@pytest.mark.parametrize("what", ["flipped", "missing", "elsewhere", "manifest", "newer"])
def test_damage_is_found_before_anything_is_made(
    embedded: EmbeddedStore, tmp_path: Path, what: str
) -> None:
    indexer = make_indexer(embedded, ANALYZER)
    for name in ("books", "others"):
        indexer.ensure_collection(name)
        put(indexer, name, some_documents(10))
    backups = Backups(embedded, tmp_path / "backups")
    backup = backups.create("b", ["books", "others"], {})
    path = tmp_path / "backups" / "b" / backup.collections[1].file
    manifest = tmp_path / "backups" / "b" / "backup.json"
    stated = json.loads(manifest.read_bytes())
    if what == "flipped":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif what == "missing":
        path.unlink()
    elif what == "elsewhere":
        path.rename(tmp_path / "elsewhere.db")
        stated["collections"][1]["file"] = "../../elsewhere.db"
        manifest.write_text(json.dumps(stated))
    elif what == "manifest":
        stated["collections"][1].pop("name")
        manifest.write_text(json.dumps(stated))
    else:
        manifest.write_text(json.dumps(stated | {"format": 2}))
    with pytest.raises(InvalidInput):
        backups.restore("b", {"books": "books2", "others": "others2"})
    assert [each.name for each in embedded.collections()] == ["books", "others"]


def test_the_script(embedded: EmbeddedStore, tmp_path: Path) -> None:
    data, place = tmp_path / "data", str(tmp_path / "backups")
    indexer = make_indexer(embedded, ANALYZER)
    for name in ("books", "others"):
        indexer.ensure_collection(name)
        put(indexer, name, some_documents(20))
    script("keys", "create", "--name=a", "--role=admin", data=data)
    made = script("backup", "create", place, "--all", "--name=nightly", data=data)
    assert [each["name"] for each in made["collections"]] == ["books", "others"]
    script("backup", "create", place, "--collection=books", data=data)
    listed = script("backup", "list", place, data=data)
    assert {backup["name"] for backup in listed} > {"nightly"}
    other = tmp_path / "other"
    restored = script("backup", "restore", place, "nightly", "--all", "--files", data=other)
    assert restored == {
        "collections": {"books": 20, "others": 20},
        "files": ["keys.sqlite"],
        "pending": {},
    }
    assert len(script("keys", "list", data=other)) == 1
    one = script("backup", "restore", place, "nightly", "--collection=books", "--as=b", data=data)
    assert one["collections"] == {"b": 20}
    again = subprocess.run(
        [sys.executable, ROOT / "scripts/backup", "restore", place, "nightly", "--all"],
        env=environment(data),
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 2
    assert "never overwrites" in again.stderr
    assert "Traceback" not in again.stderr


def test_a_killed_backup_is_not_there(embedded: EmbeddedStore, tmp_path: Path) -> None:
    indexer = make_indexer(embedded, ANALYZER)
    for number in range(6):
        indexer.ensure_collection(f"c{number}")
        put(indexer, f"c{number}", some_documents(200))
    place = tmp_path / "backups"
    with subprocess.Popen(
        [sys.executable, ROOT / "scripts/backup", "create", place, "--all", "--name=b"],
        env=environment(tmp_path / "data"),
    ) as process:
        while not (place / ".draft-b" / "collections" / "c1.db").exists():
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert not (place / "b").exists()
    backups = Backups(embedded, place)
    assert backups.all() == []
    backups.create("b", ["c0"], {})
    assert [path.name for path in place.iterdir()] == ["b"]


# Elasticsearch -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=VERSIONS)
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    with own_node(request.param) as running:
        yield running


def test_snapshots_of_elasticsearch(node: Node, tmp_path: Path) -> None:
    data, place = tmp_path / "data", str(node.folder / "snapshots" / "nightly")
    store = ElasticsearchStore(node.url, prefix="backup")
    settings = {
        "store": "elasticsearch",
        "elasticsearch_url": node.url,
        "index_prefix": "backup",
        "embedder": "none",
    }
    indexer = make_indexer(store, ANALYZER, FakeEmbedder())
    for name in ("books", "others"):
        indexer.ensure_collection(name, "旧书")
        put(indexer, name, some_documents(60))
    before, vectors = contents(store, "books"), chunks(store, "books")

    made = script("backup", "create", place, "--all", "--name=one", data=data, **settings)
    assert [each["name"] for each in made["collections"]] == ["books", "others"]
    with pytest.raises(InvalidInput, match="There is a backup"):
        Snapshots(store, place).create("one", ["books"], {})
    with pytest.raises(CollectionExists, match="never overwrites"):
        Snapshots(store, place).restore("one", {"books": "books"})
    store.delete_collection("books")
    restored = script(
        "backup", "restore", place, "one", "--collection=books", data=data, **settings
    )
    assert restored["collections"] == {"books": 60}
    assert restored["pending"] == {"books": 0}
    assert contents(store, "books") == before
    assert_same_chunks(chunks(store, "books"), vectors)
    [listed] = script("backup", "list", place, data=data, **settings)
    assert listed["name"] == "one"
    with pytest.raises(InvalidInput, match="own name"):
        Snapshots(store, place).restore("one", {"books": "b"})
    with pytest.raises(InvalidInput, match="no files"):
        Snapshots(store, place).restore("one", {"books": "b"}, files={"keys.sqlite": tmp_path})
    with pytest.raises(InvalidInput):
        Snapshots(store, "/not/allowed")
    for collection in store.collections():
        store.delete_collection(collection.name)
    store.close()
