"""Files of the schema's older versions are opened and go on working."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from server.stores.contract import LegsRequest
from server.stores.embedded.schema import SCHEMA_VERSION
from server.stores.embedded.store import EmbeddedStore
from tests.stores.builders import (
    NEXT_RECIPE,
    RECIPE,
    bm25_ids,
    derivation,
    vector_of,
    words,
    write,
)
from tests.stores.embedded_folder import check_sound, place, process, put, query

SCHEMA_1 = (Path(__file__).parent / "schema_1.sql").read_text()
TABLES = ("documents", "texts", "tombstones", "labels", "chunks", "terms", "vectors", "removals")


OLD_RECIPE = replace(RECIPE, mapping=1)
STAMPED = (
    '{"embedder": "test", "dimensions": 8, "analyzer": "test-1", "chunker": "test-1", "mapping": 1'
)


@pytest.fixture(params=[1, 2, 3])
def version(request: pytest.FixtureRequest) -> int:
    made: int = request.param
    return made


@pytest.fixture
def folder(tmp_path: Path, version: int) -> Path:
    """A store whose one collection has that version: documents a, b, c without b, c without chunks."""
    made = tmp_path / "store"
    with closing(EmbeddedStore(made)) as store:
        store.create_collection("c", recipe=RECIPE, description="员工手册")
        put(store, write("a", "red one", "red two", acl=["hr"]), write("b", "red"), write("c"))
        put(store, write("a", "red three", acl=["hr"]))
        store.delete("c", "b")
    database = place(made) / "collection.db"
    as_version_3(database)
    if version < 3:
        as_version_2(database)
    if version == 1:
        as_version_1(database)
    return made


def as_version_3(database: Path) -> None:
    stamped = f'{STAMPED}, "model": "", "dictionary": 0}}'
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DROP TABLE sparse")
        connection.execute("UPDATE generations SET recipe = ?", (stamped,))
        connection.execute("PRAGMA user_version = 3")
        connection.commit()


def as_version_2(database: Path) -> None:
    stamped = f'{STAMPED}, "model": "", "dictionary": 0}}'
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DROP TABLE windows")
        connection.execute("UPDATE generations SET recipe = ?", (stamped,))
        connection.execute("PRAGMA user_version = 2")
        connection.commit()


def as_version_1(database: Path) -> None:
    newer = database.with_name("newer.db")
    database.rename(newer)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(SCHEMA_1)
        connection.execute("ATTACH ? AS newer", (str(newer),))
        for table in TABLES:
            connection.execute(f"INSERT INTO {table} SELECT * FROM newer.{table}")
        connection.execute(
            "INSERT INTO state SELECT only, description, generation, sequence, pruned, documents "
            "FROM newer.state"
        )
        connection.execute(
            "INSERT INTO generations SELECT id, ?, text_folder, text_sequence, chunks "
            "FROM newer.generations",
            (STAMPED + "}",),
        )
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    newer.unlink()


@pytest.fixture
def store(folder: Path) -> Iterator[EmbeddedStore]:
    opened = EmbeddedStore(folder)
    yield opened
    opened.close()


def check_as_before(store: EmbeddedStore) -> None:
    found = store.collection("c")
    assert (found.description, found.recipe) == ("员工手册", OLD_RECIPE)
    assert (found.documents, found.chunks, found.generation) == (2, 1, "000001")
    assert store.document("c", "a").document == write("a", "red three", acl=["hr"]).document
    assert store.document("c", "a").revision == 2
    check_sound(store)


def test_an_older_file_opens_and_goes_on(store: EmbeddedStore, folder: Path) -> None:
    check_as_before(store)
    assert query(folder, "PRAGMA user_version") == (SCHEMA_VERSION,)
    live = store.live("c")
    assert (live.id, live.edition, live.state, live.fence) == ("000001", 1, "live", "")
    assert live.created_at.startswith("20")
    assert store.generations.pending_count("c", live.id) == 0
    assert all(found.level for found in store.audits.every("c"))
    assert store.audits.drift("c") == []
    assert store.notes.put("c", "a", {"b": 1}, expected=0).version == 1
    put(store, write("b", "red"), write("a", "red four"))
    assert store.document("c", "b").revision == 3
    check_sound(store)


def test_an_older_file_is_rebuilt(store: EmbeddedStore) -> None:
    made = store.generations.create("c", recipe=NEXT_RECIPE)
    assert made.id == "000002"
    fence = store.generations.fence("c")
    pending = list(store.generations.pending("c", made.id))
    assert [each.document_id for each in pending] == ["a", "c"]
    store.generations.derive("c", made.id, [derivation(each, NEXT_RECIPE) for each in pending])
    store.generations.promote("c", made.id, fence=fence)
    request = LegsRequest(text=words("red"), vector=vector_of("x", NEXT_RECIPE.dimensions))
    legs = store.search("c", request)
    assert legs.bm25 is not None
    assert legs.vector is not None
    assert len(legs.bm25.hits) == len(legs.vector.hits) == 1
    assert store.passages("c", ["a:0"], windows=True)["a:0"].windows is not None
    back = store.generations.fence("c")
    store.generations.promote("c", "000001", fence=back)
    check_sound(store)


def test_many_open_an_older_file_at_once(folder: Path) -> None:
    running = [process("embedded_writer", folder, f"p{number}", "2") for number in range(2)]
    stores = [EmbeddedStore(folder) for _ in range(4)]
    failures: list[BaseException] = []

    def look(store: EmbeddedStore) -> None:
        try:
            for _ in range(5):
                assert store.live("c").recipe == OLD_RECIPE
                assert bm25_ids(store, "c", "three") == ["a:0"]
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test shows it
            failures.append(error)

    threads = [threading.Thread(target=look, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in running:
        each.communicate(timeout=60)
        assert each.returncode == 0
    assert failures == []
    assert stores[0].collection("c").documents == 2 + 2 * 2
    check_sound(stores[0])
    for store in stores:
        store.close()


def test_an_older_backup_is_restored(
    store: EmbeddedStore, folder: Path, version: int, tmp_path: Path
) -> None:
    assert query(folder, "PRAGMA user_version") == (version,)
    copy = tmp_path / "old.db"
    copy.write_bytes((place(folder) / "collection.db").read_bytes())
    restored = store.restore("d", copy)
    assert replace(restored, name="c") == store.collection("c")
    assert bm25_ids(store, "d", "three") == ["a:0"]
