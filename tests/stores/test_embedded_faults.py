"""What the embedded store promises beyond the contract: kill -9, several processes, damage, a full disk."""

import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.errors import CollectionNotFound, StoreTimeout, StoreUnavailable
from server.recipes import Recipe
from server.stores.contract import LegsRequest
from server.stores.embedded.locks import WriteLock
from server.stores.embedded.store import EmbeddedStore
from server.stores.filters import Terms
from tests.stores.builders import (
    LEXICAL_RECIPE,
    RECIPE,
    bm25_ids,
    unit,
    vector_ids,
    words,
    write,
)
from tests.stores.embedded_folder import (
    check_sound,
    execute,
    place,
    process,
    put,
    query,
    text_folder,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> Iterator[EmbeddedStore]:
    opened = EmbeddedStore(folder)
    opened.create_collection("c", recipe=RECIPE)
    yield opened
    opened.close()


@pytest.fixture
def other(store: EmbeddedStore, folder: Path) -> Iterator[EmbeddedStore]:
    """The same folder opened again, as another process would."""
    opened = EmbeddedStore(folder, lock_timeout=0.3)
    yield opened
    opened.close()


def writer(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return process("embedded_writer", folder, *arguments)


class TestKilled:
    def test_what_was_acknowledged_survives_kill_9(self, folder: Path) -> None:
        opened = EmbeddedStore(folder)
        opened.create_collection("c", recipe=RECIPE)
        opened.close()
        acknowledged: dict[str, tuple[str, int]] = {}
        for round_number in range(5):
            running = writer(folder, f"r{round_number}", "0")
            assert running.stdout is not None
            wanted = random.Random(round_number).randrange(3, 20)
            lines = [running.stdout.readline() for _ in range(wanted)]
            time.sleep(random.Random(round_number).random() / 20)
            running.kill()
            lines += running.stdout.readlines()
            running.stdout.close()
            assert running.wait() == -9
            for line in lines:
                if line.endswith("\n"):
                    document, mark, revision = line.split()
                    acknowledged[document] = (mark, int(revision))
        opened = EmbeddedStore(folder)
        check_sound(opened)
        assert text_folder(folder).name == "text-1"  # followed, never built anew
        for document, (mark, revision) in acknowledged.items():
            stored = opened.document("c", document)
            assert stored.chunks == 2
            if stored.revision == revision:
                assert bm25_ids(opened, "c", mark) == [f"{document}:0", f"{document}:1"]
            else:  # one more write was done when the kill came, but not told
                assert stored.revision == revision + 1
                assert bm25_ids(opened, "c", mark) == []
        unknown = {found.document.id for found in opened.documents("c")} - acknowledged.keys()
        assert len(unknown) <= 5
        put(opened, write("after", "red"))
        opened.close()

    @pytest.mark.parametrize("first", ["search", "write", "refresh"])
    def test_a_text_index_left_behind_catches_up(
        self, store: EmbeddedStore, other: EmbeddedStore, folder: Path, first: str
    ) -> None:
        """Killed between the database's commit and the text index's."""
        put(store, write("a", "red old"), write("b", "red"), write("c", "red"))
        before = shutil.copytree(text_folder(folder), folder / "before")
        [sequence] = query(folder, "SELECT text_sequence FROM generations")
        put(store, write("a", "red new", "red newer"), write("d", "red"))
        store.delete("c", "b")
        store.close()
        other.close()
        shutil.rmtree(text_folder(folder))
        shutil.copytree(before, place(folder) / "generations" / "000001" / "text-1")
        execute(folder, f"UPDATE generations SET text_sequence = {sequence}")
        opened = EmbeddedStore(folder)
        if first == "write":
            put(opened, write("e", "red"))
        elif first == "refresh":
            opened.refresh("c")
        assert bm25_ids(opened, "c", "old") == []
        assert bm25_ids(opened, "c", "newer") == ["a:1"]
        check_sound(opened)
        assert text_folder(folder).name == "text-1"  # followed, never built anew
        opened.close()

    def test_doing_it_twice_changes_nothing(self, store: EmbeddedStore, folder: Path) -> None:
        """Killed after the text index's commit, before that was noted."""
        put(store, write("a", "red"), write("b", "red"))
        put(store, write("a", "red again"))
        store.close()
        execute(folder, "UPDATE generations SET text_sequence = 0")
        opened = EmbeddedStore(folder)
        check_sound(opened)
        assert text_folder(folder).name == "text-1"
        opened.close()

    def test_drafts_of_killed_processes_are_cleared(
        self, store: EmbeddedStore, folder: Path
    ) -> None:
        (folder / "collections" / ".draft").mkdir()
        EmbeddedStore(folder).close()
        assert not (folder / "collections" / ".draft").exists()
        assert [found.name for found in store.collections()] == ["c"]


class TestSeveralProcesses:
    def test_each_sees_what_the_others_write(self, store: EmbeddedStore, folder: Path) -> None:
        put(store, write("own", "red"))
        assert bm25_ids(store, "c", "red") == ["own:0"]
        running = writer(folder, "script", "3")
        assert running.stdout is not None
        for _ in range(3):
            document, mark, _ = running.stdout.readline().split()
            assert bm25_ids(store, "c", mark) == [f"{document}:0", f"{document}:1"]
            assert f"{document}:1" in vector_ids(store, "c", unit(1))
        assert running.wait() == 0
        running.stdout.close()
        check_sound(store)
        assert text_folder(folder).name == "text-1"  # followed, never built anew

    def test_many_write_at_once(self, store: EmbeddedStore, folder: Path) -> None:
        processes = [writer(folder, f"p{number}", "12") for number in range(3)]
        for number in range(20):
            put(store, write(f"own-{number}", "red"))
        for running in processes:
            output, _ = running.communicate(timeout=120)
            assert running.returncode == 0
            assert len(output.splitlines()) == 12
        check_sound(store)
        assert store.collection("c").documents == 20 + 3 * 7
        for number in range(3):
            assert store.document("c", f"p{number}-again").revision == 6
        assert text_folder(folder).name == "text-1"  # followed, never built anew

    def test_a_waiting_writer_is_not_starved(
        self, store: EmbeddedStore, other: EmbeddedStore
    ) -> None:
        stop = threading.Event()

        def flood() -> None:
            while not stop.is_set():
                put(store, *(write(f"flood-{i}", "red") for i in range(20)))

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            patient = EmbeddedStore(other._folder, lock_timeout=20)
            for number in range(5):
                put(patient, write(f"patient-{number}", "red"))
            patient.close()
        finally:
            stop.set()
            thread.join()
        check_sound(store)

    def test_readers_go_on_while_a_writer_holds_the_lock(
        self, store: EmbeddedStore, other: EmbeddedStore, folder: Path
    ) -> None:
        put(store, write("a", "red"))
        with WriteLock(place(folder), timeout=1).held():
            with pytest.raises(StoreTimeout):
                other.write("c", [write("b", "red")])
            with pytest.raises(StoreTimeout):
                other.delete("c", "a")
            assert bm25_ids(other, "c", "red") == ["a:0"]
            assert vector_ids(other, "c", unit(1)) == ["a:0"]
            assert other.document("c", "a").revision == 1
        put(other, write("b", "red"))
        assert sorted(bm25_ids(store, "c", "red")) == ["a:0", "b:0"]

    def test_a_collection_deleted_elsewhere_is_gone_here(
        self, store: EmbeddedStore, other: EmbeddedStore
    ) -> None:
        put(store, write("a", "red"))
        scan = other.documents("c")
        next(scan)
        assert bm25_ids(other, "c", "red") == ["a:0"]
        assert store.delete_collection("c") == 1
        for call in (
            lambda: other.search("c", LegsRequest(text=words("red"), vector=unit(1))),
            lambda: other.live("c"),
            lambda: other.write("c", [write("b", "red")]),
            lambda: other.document("c", "a"),
            lambda: list(other.documents("c")),
        ):
            with pytest.raises(CollectionNotFound):
                call()
        assert other.collections() == []
        store.create_collection("c", recipe=LEXICAL_RECIPE)
        assert other.live("c").recipe == LEXICAL_RECIPE
        assert other.search("c", LegsRequest(text=words("red"))).bm25.hits == ()  # type: ignore[union-attr]

    def test_deleting_beside_readers_and_writers_is_clean(
        self, store: EmbeddedStore, other: EmbeddedStore
    ) -> None:
        failures: list[BaseException] = []

        def work(opened: EmbeddedStore, call: Callable[[EmbeddedStore], object]) -> None:
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                try:
                    call(opened)
                except (CollectionNotFound, StoreTimeout):
                    pass
                except BaseException as error:  # noqa: BLE001 - whatever it is, the test shows it
                    failures.append(error)

        request = LegsRequest(text=words("red"), vector=unit(1))
        threads = [
            threading.Thread(target=work, args=arguments)
            for opened in (store, other)
            for arguments in (
                (opened, lambda s: s.search("c", request)),
                (opened, lambda s: s.write("c", [write("a", "red")])),
                (opened, lambda s: list(s.documents("c"))),
                (opened, lambda s: s.collections()),
            )
        ]
        for thread in threads:
            thread.start()
        for _ in range(6):
            time.sleep(0.15)
            store.delete_collection("c")
            store.create_collection("c", recipe=RECIPE)
        for thread in threads:
            thread.join()
        assert failures == []
        put(store, write("a", "red"))
        check_sound(store)

    def test_a_document_being_replaced_is_always_found(
        self, store: EmbeddedStore, other: EmbeddedStore
    ) -> None:
        put(store, write("a", "red", metadata={"x": 1}))
        stop = threading.Event()

        def replace() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                put(store, write("a", f"red {number}", metadata={"x": 1}))

        thread = threading.Thread(target=replace)
        thread.start()
        try:
            for _ in range(150):
                for opened in (store, other):
                    legs = opened.search(
                        "c",
                        LegsRequest(text=words("red"), vector=unit(1), filter=Terms("x", (1,))),
                    )
                    assert legs.bm25 is not None
                    assert legs.vector is not None
                    assert [name for name, _ in legs.bm25.hits] == ["a:0"]
                    assert [name for name, _ in legs.vector.hits] == ["a:0"]
        finally:
            stop.set()
            thread.join()


class TestDamage:
    @pytest.mark.parametrize("opened_before", [False, True])
    @pytest.mark.parametrize("kind", ["missing", "empty", "meta", "files", "lost commit"])
    def test_the_text_index_mends_itself(
        self, store: EmbeddedStore, folder: Path, kind: str, opened_before: bool
    ) -> None:
        put(store, write("a", "red one"))
        put(store, write("b", "red two", "red blue"))
        damaged = text_folder(folder)
        if kind == "lost commit":
            kept = shutil.copytree(damaged, folder / "kept")
            put(store, write("c", "red three"))
            shutil.rmtree(damaged)
            shutil.copytree(kept, damaged)
        elif kind == "missing":
            shutil.rmtree(damaged)
        elif kind == "empty":
            shutil.rmtree(damaged)
            damaged.mkdir()
        elif kind == "meta":
            (damaged / "meta.json").write_text("{")
        else:
            for file in damaged.glob("*.term"):
                file.unlink()
        if opened_before:
            put(store, write("d", "red four"))  # the index is written, so the damage shows
            check_sound(store)
        store.close()
        opened = EmbeddedStore(folder)
        check_sound(opened)
        put(opened, write("e", "blue"))
        assert sorted(bm25_ids(opened, "c", "blue")) == ["b:1", "e:0"]
        opened.delete("c", "e")
        put(opened, write("b", "red two"))
        check_sound(opened)
        opened.close()

    def test_frequencies_mend_it_too(self, store: EmbeddedStore, folder: Path) -> None:
        put(store, write("a", "red one"))
        shutil.rmtree(text_folder(folder))
        store.close()
        opened = EmbeddedStore(folder)
        found = opened.frequencies("c", {"words": ["red", "two"]})
        assert (found.chunks, found.of["words"]) == (1, {"red": 1, "two": 0})
        check_sound(opened)
        opened.close()

    def test_a_damaged_database_is_named(self, store: EmbeddedStore, folder: Path) -> None:
        put(store, write("a", "red"))
        store.create_collection("sound", recipe=RECIPE)
        store.close()
        database = place(folder) / "collection.db"
        database.write_bytes(b"rubbish " * 1_000)
        opened = EmbeddedStore(folder)
        with pytest.raises(StoreUnavailable, match=r"collection\.db|damaged"):
            opened.live("c")
        assert opened.live("sound").recipe == RECIPE
        opened.close()

    def test_another_version_s_files_are_refused(self, store: EmbeddedStore, folder: Path) -> None:
        store.close()
        execute(folder, "PRAGMA user_version = 99")
        opened = EmbeddedStore(folder)
        with pytest.raises(StoreUnavailable, match="schema version 99"):
            opened.live("c")
        opened.close()

    def test_a_process_that_slept_long_loads_anew(
        self, store: EmbeddedStore, other: EmbeddedStore, folder: Path
    ) -> None:
        """The record of removals is kept for a while only."""
        put(store, write("a", "red"), write("b", "red"))
        assert len(vector_ids(other, "c", unit(1))) == 2
        store.delete("c", "a")
        execute(folder, "DELETE FROM removals", "UPDATE state SET pruned = sequence")
        put(store, write("c", "red"))
        assert sorted(vector_ids(other, "c", unit(1))) == ["b:0", "c:0"]

    def test_removed_vectors_are_thrown_out_in_time(
        self, store: EmbeddedStore, other: EmbeddedStore
    ) -> None:
        for number in range(5):
            batch = [
                write(f"d{i}", "red", vectors=[unit(i, number)], metadata={"round": number, "i": i})
                for i in range(1, 701)
            ]
            put(store, *batch)
            wanted = Terms("i", (3, 4))
            assert sorted(vector_ids(other, "c", unit(1), filter=wanted)) == ["d3:0", "d4:0"]
        for opened in (store, other):
            latest = Terms("round", (4,))
            assert len(vector_ids(opened, "c", unit(1), filter=latest, k=1_000)) == 700
            assert vector_ids(opened, "c", unit(1), filter=Terms("round", (3,))) == []
            assert vector_ids(opened, "c", unit(1, 4), k=1) == ["d1:0"]


class TestFullDisk:
    def test_a_disk_that_takes_no_more_is_named_and_survived(
        self, store: EmbeddedStore, folder: Path
    ) -> None:
        put(store, write("before", "red"))
        running = writer(folder, "--file-limit", str(3_000_000))
        output, _ = running.communicate(timeout=120)
        assert running.returncode == 0
        *stored, full, after = output.split()
        assert (full, after) == ("full", "after")
        assert stored
        for name in stored:
            assert store.document("c", name).revision == 1
        check_sound(store)
        assert store.collection("c").documents == len(stored) + 2


class TestClosing:
    def test_a_closed_store_says_so(self, folder: Path) -> None:
        opened = EmbeddedStore(folder)
        opened.create_collection("c", recipe=RECIPE)
        put(opened, write("a", "red"))
        opened.close()
        opened.close()
        for call in (
            lambda: opened.live("c"),
            opened.check,
            lambda: opened.create_collection("d", recipe=RECIPE),
        ):
            with pytest.raises(StoreUnavailable, match="closed"):
                call()

    def test_a_folder_that_is_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "store").write_text("no folder")
        with pytest.raises(StoreUnavailable):
            EmbeddedStore(tmp_path / "store")

    def test_another_recipe_is_kept_apart(self, store: EmbeddedStore) -> None:
        recipe = Recipe(embedder="other", dimensions=3, analyzer="a", chunker="c")
        store.create_collection("d", recipe=recipe)
        assert (store.live("c").recipe, store.live("d").recipe) == (RECIPE, recipe)
