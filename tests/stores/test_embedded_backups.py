"""Backups of the embedded store, made while it is being written."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from server.errors import CollectionExists, CollectionNotFound, InvalidInput
from server.stores.embedded.store import EmbeddedStore
from server.stores.notes import Note
from tests.stores.builders import (
    NEXT_RECIPE,
    RECIPE,
    bm25_ids,
    derivation,
    unit,
    vector_ids,
    write,
)
from tests.stores.embedded_folder import check_sound, put


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    opened = EmbeddedStore(tmp_path / "store")
    opened.create_collection("c", recipe=RECIPE, notes={"dictionary:0": {"words": ["差旅"]}})
    yield opened
    opened.close()


def found(store: EmbeddedStore, name: str) -> list[list[str]]:
    return [sorted(bm25_ids(store, name, "red")), sorted(vector_ids(store, name, unit(1)))]


def test_a_collection_comes_back_as_it_was(store: EmbeddedStore, tmp_path: Path) -> None:
    put(store, write("a", "red one", "red two", acl=["hr"]), write("b", "red"), write("gone", "x"))
    store.delete("c", "gone")
    file = store.backup("c", tmp_path / "backups" / "today")
    assert file.parent == tmp_path / "backups" / "today"
    assert [each.name for each in file.parent.iterdir()] == [file.name]
    put(store, write("a", "blue"), write("later", "red"))
    restored = store.restore("d", file)
    assert (restored.name, restored.documents, restored.chunks) == ("d", 2, 3)
    assert restored.recipe == RECIPE
    assert found(store, "d") == [["a:0", "a:1", "b:0"]] * 2
    assert (
        store.document("d", "a").document == write("a", "red one", "red two", acl=["hr"]).document
    )
    assert store.notes.under("d", "") == {
        "dictionary:0": Note(value={"words": ["差旅"]}, version=1)
    }
    put(store, write("a", "red"))
    [result] = store.write("d", [write("gone", "red")], refresh=True)
    assert result.revision == 3  # type: ignore[union-attr]
    assert found(store, "d") == [["a:0", "a:1", "b:0", "gone:0"]] * 2
    assert store.audits.drift("d") == []


def test_a_newer_backup_takes_the_place_of_an_older(store: EmbeddedStore, tmp_path: Path) -> None:
    first = store.backup("c", tmp_path)
    put(store, write("a", "red"))
    assert store.backup("c", tmp_path) == first
    assert store.restore("d", first).documents == 1


def test_a_backup_beside_writers_is_of_one_moment(store: EmbeddedStore, tmp_path: Path) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def writing() -> None:
        number = 1
        try:
            while not stop.is_set():
                number += 1
                put(store, write("a", f"red {number}"), write("b", f"red {number}"))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test shows it
            failures.append(error)

    thread = threading.Thread(target=writing)
    put(store, write("a", "red 1"), write("b", "red 1"))  # in one transaction, always alike
    put(store, *(write(f"d{i}", "red " + "filler " * 200) for i in range(500)))
    thread.start()
    try:
        for number in range(5):
            name = f"r{number}"
            store.restore(name, store.backup("c", tmp_path / "backups"))
            a, b = (store.document(name, each).document.text for each in "ab")
            assert a == b
            assert bm25_ids(store, name, a.split()[1]) == ["a:0", "b:0"]
            assert store.collection(name).documents == 502
            assert store.audits.drift(name) == []
    finally:
        stop.set()
        thread.join()
    assert failures == []
    check_sound(store)


def test_kept_and_building_generations_come_along(store: EmbeddedStore, tmp_path: Path) -> None:
    put(store, write("a", "red"), write("b", "red"))
    made = store.generations.create("c", recipe=NEXT_RECIPE)
    pending = list(store.generations.pending("c", made.id))
    store.generations.derive("c", made.id, [derivation(pending[0], NEXT_RECIPE)])
    store.generations.fence("c")
    store.restore("d", store.backup("c", tmp_path))
    live = store.live("d")
    assert live.fence == ""  # its maker is not here
    assert store.generations.all("d") == [live, made]
    assert store.generations.pending_count("d", made.id) == 1
    store.generations.derive("d", made.id, [derivation(pending[1], NEXT_RECIPE)])
    store.generations.settle("d", made.id)
    fence = store.generations.fence("d")
    promoted = store.generations.promote("d", made.id, fence=fence)
    assert promoted == replace(made, state="live")
    assert sorted(bm25_ids(store, "d", NEXT_RECIPE.analyzer)) == ["a:0", "b:0"]
    store.generations.drop("d", live.id)
    assert store.audits.drift("d") == []


def test_a_name_that_is_taken_is_refused(store: EmbeddedStore, tmp_path: Path) -> None:
    file = store.backup("c", tmp_path)
    with pytest.raises(CollectionExists):
        store.restore("c", file)
    with pytest.raises(InvalidInput):
        store.restore("NO", file)
    with pytest.raises(CollectionNotFound):
        store.backup("never", tmp_path)


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "rubbish", "cut", "bits", "other"])
def test_what_is_no_backup_is_refused(store: EmbeddedStore, tmp_path: Path, kind: str) -> None:
    put(store, *(write(f"d{i}", "red " + "filler " * 50) for i in range(200)))
    file = store.backup("c", tmp_path)
    whole = file.read_bytes()
    match kind:
        case "missing":
            file.unlink()
        case "folder":
            file.unlink()
            file.mkdir()
        case "empty":
            file.write_bytes(b"")
        case "rubbish":
            file.write_bytes(b"rubbish " * 1_000)
        case "cut":
            file.write_bytes(whole[: len(whole) // 2])
        case "bits":
            middle = len(whole) // 2
            file.write_bytes(whole[:middle] + b"\xff" * 40_000 + whole[middle + 40_000 :])
        case _:
            file.unlink()
            with closing(sqlite3.connect(file)) as connection:
                connection.execute("CREATE TABLE a (b)")
                connection.execute("PRAGMA user_version = 2")
    with pytest.raises(InvalidInput):
        store.restore("d", file)
    assert [each.name for each in store.collections()] == ["c"]
    check_sound(store)
