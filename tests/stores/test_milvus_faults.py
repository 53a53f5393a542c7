"""What vectors in Milvus promise beyond the contract: kill -9, several processes, damage, odd filters."""

import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pymilvus import MilvusClient

from server.errors import InvalidInput, StoreUnavailable
from server.stores.contract import LegsRequest
from server.stores.embedded.store import EmbeddedStore
from server.stores.filters import All, Exists, Filter, Not, Range, Terms
from server.stores.milvus import progress
from server.stores.milvus.engine import MilvusEngine
from server.stores.milvus.lite import Lite
from server.stores.milvus.progress import Progress
from tests.stores.builders import RECIPE, bm25_ids, unit, vector_ids, words, write
from tests.stores.embedded_folder import check_sound, execute, place, process, put


def opened_in(folder: Path) -> EmbeddedStore:
    return EmbeddedStore(folder, engine=MilvusEngine(folder))


def level_folder(folder: Path) -> Path:
    return place(folder) / "generations" / "000001" / "milvus"


def level(folder: Path) -> Progress:
    found = progress.read(level_folder(folder))
    assert found is not None
    return found


def rows(folder: Path) -> set[str]:
    """The Milvus collections, seen over the socket of whoever serves them."""
    client = MilvusClient(uri=Lite(folder / "milvus").address(), dedicated=True)
    try:
        return set(client.list_collections())
    finally:
        client.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> Iterator[EmbeddedStore]:
    opened = opened_in(folder)
    opened.create_collection("c", recipe=RECIPE)
    yield opened
    opened.close()


@pytest.fixture
def other(store: EmbeddedStore, folder: Path) -> Iterator[EmbeddedStore]:
    """The same folder opened again, as another process would: it asks the first one's Milvus Lite."""
    opened = opened_in(folder)
    yield opened
    opened.close()


def writer(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return process("milvus_writer", folder, *arguments)


class TestKilled:
    def test_what_was_acknowledged_survives_kill_9_of_the_process_that_serves(
        self, folder: Path
    ) -> None:
        """The writer holds Milvus Lite, this process asks it, and takes over when it is killed."""
        opened = opened_in(folder)
        opened.create_collection("c", recipe=RECIPE)
        opened.close()
        for number in range(2):
            opened = opened_in(folder)
            running = writer(folder, f"r{number}", "0")
            assert running.stdout is not None
            acknowledged = [running.stdout.readline().split()[0] for _ in range(6)]
            found = vector_ids(opened, "c", unit(1), k=1_000)
            assert {f"{document}:0" for document in acknowledged} <= set(found)
            time.sleep(random.Random(number).random() / 20)
            running.kill()
            running.stdout.close()
            assert running.wait() == -9
            check_sound(opened)
            put(opened, write(f"after{number}", "red"))
            check_sound(opened)
            opened.close()

    @pytest.mark.parametrize("done", ["nothing", "inserted", "everything"])
    def test_a_change_left_half_done_is_done_again(
        self, store: EmbeddedStore, other: EmbeddedStore, folder: Path, done: str
    ) -> None:
        put(store, write("a", "red old"), write("b", "red"), write("c", "red"))
        before = level(folder)
        put(store, write("a", "red new", "red newer"), write("d", "red"))
        store.delete("c", "b")
        check_sound(store)
        after = level(folder)
        client = MilvusClient(uri=Lite(folder / "milvus").address(), dedicated=True)
        if done == "nothing":
            client.delete(after.name, filter=f"chunk > {before.level}")
        elif done == "inserted":  # the deleted ones can't come back; one that came lacks
            client.delete(after.name, ids=[after.level])
        client.close()
        progress.write(level_folder(folder), replace(before, target=after.level))
        check_sound(other)
        check_sound(store)
        now = level(folder)
        assert (now.name, now.level, now.rows) == (after.name, after.level, after.rows)

    def test_collections_that_killed_processes_left_are_dropped(
        self, store: EmbeddedStore, folder: Path
    ) -> None:
        put(store, write("a", "red"))
        name = level(folder).name
        client = MilvusClient(uri=Lite(folder / "milvus").address(), dedicated=True)
        client.create_collection("tanyuan_here_0123456789ab_000001_abcdef", dimension=2)
        client.create_collection("somebody_else", dimension=2)
        client.close()
        store.close()
        opened = opened_in(folder)
        check_sound(opened)
        assert rows(folder) == {name, "somebody_else"}
        opened.create_collection("d", recipe=RECIPE)
        opened.write("d", [write("a", "red")])
        assert len(rows(folder)) == 3
        opened.delete_collection("d")
        assert rows(folder) == {name, "somebody_else"}
        opened.close()


class TestSeveralProcesses:
    def test_writes_of_one_are_seen_by_the_other(
        self, store: EmbeddedStore, other: EmbeddedStore
    ) -> None:
        for number in range(5):
            put(store, write(f"a{number}", "red"))
            assert f"a{number}:0" in vector_ids(other, "c", unit(1))
            put(other, write(f"a{number}", "red", "red"))
            assert f"a{number}:1" in vector_ids(store, "c", unit(1))
        check_sound(store)

    def test_when_the_one_that_serves_ends_another_takes_over(
        self, store: EmbeddedStore, other: EmbeddedStore
    ) -> None:
        put(store, write("a", "red"))
        assert vector_ids(other, "c", unit(1)) == ["a:0"]
        store.close()
        assert vector_ids(other, "c", unit(1)) == ["a:0"]
        put(other, write("b", "red"))
        check_sound(other)

    def test_a_long_path_serves_too(self, tmp_path: Path) -> None:
        """Longer than a socket's may be."""
        deep = tmp_path / "资料" / ("long " * 40)
        deep.mkdir(parents=True)
        first, second = opened_in(deep), opened_in(deep)
        first.create_collection("c", recipe=RECIPE)
        put(first, write("a", "red"))
        check_sound(second)
        first.close()
        check_sound(second)
        second.close()

    def test_files_held_by_one_that_does_not_serve_are_named(
        self, folder: Path, store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from milvus_lite.db import MilvusLite

        monkeypatch.setattr("server.stores.milvus.lite._PATIENCE", 0.2)
        (folder / "milvus").mkdir()
        stranger = MilvusLite(str(folder / "milvus" / "data"))
        put(store, write("a", "red"))
        legs = store.search("c", LegsRequest(text=words("red"), vector=unit(1)))
        assert legs.bm25 is not None
        assert legs.bm25.total == 1
        assert "Another process holds" in legs.errors["vector"].message
        stranger.close()
        check_sound(store)


class TestDamage:
    @pytest.mark.parametrize("damage", ["rubbish", "lost", "emptied", "level"])
    def test_vectors_are_taken_over_anew(
        self, store: EmbeddedStore, folder: Path, damage: str
    ) -> None:
        put(store, *[write(f"a{i}", "red", "red too") for i in range(20)])
        store.delete("c", "a3")
        name = level(folder).name
        store.close()
        data = folder / "milvus" / "data" / "collections" / name
        if damage == "rubbish":
            for file in [*data.rglob("*.parquet"), *data.glob("manifest*"), *data.rglob("*.arrow")]:
                file.write_bytes(b"rubbish " * 100)
        elif damage == "lost":
            shutil.rmtree(folder / "milvus")
        elif damage == "emptied":
            for file in [*data.rglob("*.parquet"), *data.glob("manifest*"), *data.rglob("*.arrow")]:
                file.unlink()
        else:
            (level_folder(folder) / "level.json").write_text("{")
        opened = opened_in(folder)
        check_sound(opened)
        assert level(folder).name != name
        assert rows(folder) == {level(folder).name}
        put(opened, write("after", "red"))
        check_sound(opened)
        opened.close()

    def test_changes_lost_with_the_power_are_noticed(
        self, store: EmbeddedStore, folder: Path
    ) -> None:
        """A deleted row is back and a new one is gone, so that the count is right."""
        put(store, write("a", "red"), write("b", "red"))
        client = MilvusClient(uri=Lite(folder / "milvus").address(), dedicated=True)
        name = level(folder).name
        before = client.query(name, filter="chunk > 0", output_fields=["*"])
        put(store, write("a", "red again"))
        client.delete(
            name, ids=[max(row["chunk"] for row in client.query(name, filter="chunk > 0"))]
        )
        client.insert(name, [min(before, key=lambda row: row["chunk"])])
        client.close()
        check_sound(store)
        assert level(folder).name != name

    def test_files_that_cant_be_used_are_named(self, store: EmbeddedStore, folder: Path) -> None:
        put(store, write("a", "red"))
        store.close()
        shutil.rmtree(folder / "milvus" / "data")
        (folder / "milvus" / "data").write_text("no folder")
        opened = opened_in(folder)
        legs = opened.search("c", LegsRequest(text=words("red"), vector=unit(1)))
        assert legs.bm25 is not None
        assert "can be deleted" in legs.errors["vector"].message
        with pytest.raises(StoreUnavailable, match="can be deleted"):
            opened.check()
        (folder / "milvus" / "data").unlink()
        check_sound(opened)
        opened.close()

    def test_a_store_that_had_faiss_goes_on(self, folder: Path) -> None:
        opened = EmbeddedStore(folder)
        opened.create_collection("c", recipe=RECIPE)
        put(opened, *[write(f"a{i}", "red", vectors=[unit(1, i)]) for i in range(1, 1_500)])
        expected = vector_ids(opened, "c", unit(1, 7), k=30)
        opened.close()
        opened = opened_in(folder)
        assert vector_ids(opened, "c", unit(1, 7), k=30) == expected
        check_sound(opened)
        opened.close()

    def test_a_damaged_vector_is_left_out(self, store: EmbeddedStore, folder: Path) -> None:
        put(store, write("a", "red"), write("b", "red"), write("c", "red"))
        assert len(vector_ids(store, "c", unit(1))) == 3
        execute(
            folder,
            "UPDATE vectors SET vector = x'00' WHERE chunk = (SELECT min(chunk) FROM vectors)",
        )
        assert sorted(vector_ids(store, "c", unit(1))) == ["b:0", "c:0"]


class TestFiltersThatMilvusCantTake:
    """Each is answered exactly by a pass over the database."""

    def ids(self, store: EmbeddedStore, condition: Filter) -> list[str]:
        return sorted(vector_ids(store, "c", unit(1), filter=condition, k=10_000))

    def test_rows_that_lie_show_nothing(self, store: EmbeddedStore, folder: Path) -> None:
        """Groups are in the query, and the database has the last word."""
        put(store, write("open", "red"), write("closed", "red", acl=["chiefs"]))
        wanted = Terms("acl", ("public",))
        assert self.ids(store, wanted) == ["open:0"]
        client = MilvusClient(uri=Lite(folder / "milvus").address(), dedicated=True)
        found = client.query(level(folder).name, filter="chunk > 0", output_fields=["*"])
        labels = next(
            row["labels"] for row in found if row["chunk"] == min(r["chunk"] for r in found)
        )
        client.upsert(level(folder).name, [{**row, "labels": labels} for row in found])
        client.close()
        assert self.ids(store, wanted) == ["open:0"]

    def test_a_document_of_very_many_labels(self, store: EmbeddedStore) -> None:
        many = {f"k{i}": [f"v{j}" for j in range(1_000)] for i in range(4)}
        put(store, write("many", "red", metadata=many), write("few", "red"))
        assert self.ids(store, Terms("k3", ("v999",))) == ["many:0"]
        assert self.ids(store, Not(Terms("k3", ("v999",)))) == ["few:0"]

    def test_a_range_over_many_values(self, store: EmbeddedStore) -> None:
        put(store, *[write(f"a{i:03}", "red", metadata={"n": i}) for i in range(100)])
        assert len(self.ids(store, Range(key="n", gte=10, lt=90))) == 80
        assert self.ids(store, Range(key="n", gte=98)) == ["a098:0", "a099:0"]
        assert len(self.ids(store, Not(Range(key="n", gte=10)))) == 10

    def test_a_range_over_more_versions_than_an_expression_takes(
        self, store: EmbeddedStore
    ) -> None:
        put(store, *[write(f"a{i:04}", "red", metadata={"n": i}) for i in range(1_100)])
        assert len(self.ids(store, Range(key="n", gte=20))) == 1_080
        assert len(self.ids(store, All((Range(key="n", gte=20), Terms("n", (7, 30)))))) == 1

    def test_a_filter_that_is_very_deep(self, store: EmbeddedStore) -> None:
        put(store, write("a", "red", metadata={"n": 1}), write("b", "red"))
        deep: Filter = Exists("n")
        for _ in range(60):
            deep = Not(All((deep,)))
        assert self.ids(store, deep) == ["a:0"]

    def test_text_that_means_something_to_milvus(self, store: EmbeddedStore) -> None:
        odd = ['") or version >= 0 or ("', "%", "_", "\\", "|", "'", '"', "\x1f"[:0] + "a\nb"]
        put(store, *[write(f"a{i}", "red", metadata={"x": text}) for i, text in enumerate(odd)])
        for i, text in enumerate(odd):
            assert self.ids(store, Terms("x", (text,))) == [f"a{i}:0"]

    def test_a_lone_surrogate_is_refused(self, store: EmbeddedStore) -> None:
        put(store, write("a", "red"))
        with pytest.raises(InvalidInput, match="surrogate"):
            self.ids(store, Terms("acl", ("\udfff",)))

    def test_more_ties_than_milvus_lists_first(self, store: EmbeddedStore) -> None:
        put(store, *[write(f"a{i:04}", "red", vectors=[unit(1)]) for i in range(700)])
        assert vector_ids(store, "c", unit(1), k=3) == ["a0000:0", "a0001:0", "a0002:0"]


def test_what_is_closed_says_so(store: EmbeddedStore, folder: Path) -> None:
    put(store, write("a", "red"))
    assert "Milvus Lite" in store.check()
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.check()
    opened = opened_in(folder)
    assert bm25_ids(opened, "c", "red") == ["a:0"]
    opened.close()
