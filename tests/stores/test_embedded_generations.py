"""What the embedded store promises of generations beyond the contract: kill -9, several processes."""

import random
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from server.errors import FenceLost, GenerationChanged
from server.stores.contract import LegsRequest, Written
from server.stores.embedded.store import EmbeddedStore
from server.stores.filters import Terms
from server.stores.generations import Derivation
from tests.stores.builders import (
    NEXT_RECIPE,
    RECIPE,
    bm25_ids,
    derivation,
    derived,
    unit,
    vector_ids,
    vector_of,
    words,
    write,
)
from tests.stores.embedded_folder import check_sound, execute, place, process, put, query

COUNT = 600


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> Iterator[EmbeddedStore]:
    opened = EmbeddedStore(folder, lift_seconds=0.5)
    opened.create_collection("c", recipe=RECIPE)
    yield opened
    opened.close()


def rebuilder(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return process("embedded_rebuilder", folder, *arguments)


def fill(store: EmbeddedStore, generation: str, recipe: object = NEXT_RECIPE) -> None:
    batch = [
        derivation(each, NEXT_RECIPE if recipe is NEXT_RECIPE else RECIPE)
        for each in store.generations.pending("c", generation)
    ]
    assert store.generations.derive("c", generation, batch) == [True] * len(batch)


def promote(store: EmbeddedStore, generation: str, recipe: object = NEXT_RECIPE) -> None:
    fence = store.generations.fence("c")
    fill(store, generation, recipe)
    store.generations.promote("c", generation, fence=fence)


def killed_at(running: subprocess.Popen[str], step: str, seconds: float) -> None:
    """Kill the process ``seconds`` after it said that it is about to do ``step``."""
    assert running.stdout is not None
    for line in running.stdout:
        if line.strip() == step:
            break
    time.sleep(seconds)
    running.kill()
    running.stdout.close()
    assert running.wait() == -9


class TestKilled:
    @pytest.mark.parametrize("step", ["create", "derive", "settle", "promote", "drop"])
    def test_a_rebuild_killed_anywhere_leaves_the_live_generation_sound(
        self, store: EmbeddedStore, folder: Path, step: str
    ) -> None:
        put(store, *(write(f"d{i:03}", "red one", "red two") for i in range(COUNT)))
        for round_number in range(3):
            running = rebuilder(folder, "0")
            killed_at(running, step, random.Random(f"{step}{round_number}").random() / 25)
            check_sound(store)
            live = store.live("c")
            [result] = store.write("c", [write("d000", "red one", "red two")], key=live.key)
            if live.fence:
                assert isinstance(result, GenerationChanged)
            else:
                assert isinstance(result, Written), result
            store.delete("c", "d001")  # lifts the fence of the dead, if one stands
            put(store, write("d001", "red one", "red two"))
            check_sound(store)
        for left in store.generations.all("c"):
            if left.state != "live":
                store.generations.drop("c", left.id)
        running = rebuilder(folder, "1")
        assert running.communicate(timeout=120)[0].split()[-1] == "done"
        check_sound(store)
        [live] = store.generations.all("c")
        assert live.recipe.analyzer == "rebuilt-1"
        assert len(list(place(folder).glob("generations/*"))) == 1
        assert query(folder, f"SELECT count(*) FROM chunks WHERE generation != {live.id}") == (0,)
        assert store.audits.drift("c") == []

    def test_an_interrupted_fill_goes_on_where_it_was(
        self, store: EmbeddedStore, folder: Path
    ) -> None:
        put(store, *(write(f"d{i:03}", "red one", "red two") for i in range(COUNT)))
        running = rebuilder(folder, "1", "settle")
        killed_at(running, "settle", 0)
        [_, made] = store.generations.all("c")
        assert made.state == "building"
        assert store.generations.pending_count("c", made.id) == 0
        for _ in range(2):
            store.generations.settle("c", made.id)
        promote(store, made.id, RECIPE)
        check_sound(store)

    def test_a_fence_whose_maker_is_dead_is_lifted_by_who_waits(
        self, store: EmbeddedStore, folder: Path
    ) -> None:
        put(store, write("a", "red"), write("b", "red"))
        killed_at(rebuilder(folder, "1", "promote"), "promote", 0)
        fence = store.live("c").fence
        assert fence
        started = time.monotonic()
        assert store.delete("c", "a").chunks == 1
        assert 0.4 < time.monotonic() - started < 5
        assert store.live("c").fence == ""
        [_, made] = store.generations.all("c")
        with pytest.raises(FenceLost):
            store.generations.promote("c", made.id, fence=fence)
        put(store, write("c", "red"))
        check_sound(store)

    def test_a_new_fence_starts_the_wait_anew(self, store: EmbeddedStore) -> None:
        put(store, write("a", "red"))
        stop = threading.Event()

        def fencing() -> None:
            while not stop.is_set():
                fence = store.generations.fence("c")
                time.sleep(0.3)
                assert store.generations.lift("c", fence)  # nobody else did
                time.sleep(0.12)

        thread = threading.Thread(target=fencing)
        thread.start()
        try:
            time.sleep(0.1)
            assert store.delete("c", "a").chunks == 1
        finally:
            stop.set()
            thread.join()

    def test_a_killed_drop_is_finished_by_the_next(
        self, store: EmbeddedStore, folder: Path
    ) -> None:
        put(store, write("a", "red"), write("b", "red"))
        live = store.live("c")
        made = store.generations.create("c", recipe=NEXT_RECIPE)
        fill(store, made.id)
        execute(folder, f"UPDATE generations SET state = 'dropped' WHERE id = {int(made.id)}")
        (place(folder) / "generations" / "000003").mkdir()  # of a create that was killed
        assert store.generations.all("c") == [live]
        store.generations.drop("c", made.id)
        assert query(folder, "SELECT count(*) FROM generations") == (1,)
        assert query(folder, "SELECT count(*) FROM chunks") == (2,)
        assert [left.name for left in (place(folder) / "generations").iterdir()] == [live.id]
        check_sound(store)


class TestSeveralProcesses:
    def test_each_sees_the_other_s_promotion_at_once(
        self, store: EmbeddedStore, folder: Path
    ) -> None:
        other = EmbeddedStore(folder)
        put(store, write("a", "red"), write("b", "red"))
        old = store.live("c")
        assert other.search("c", LegsRequest(text=words("red"), vector=unit(1))).errors == {}
        made = store.generations.create("c", recipe=NEXT_RECIPE)
        promote(store, made.id)
        assert other.live("c") == store.live("c")
        assert other.live("c").id == made.id
        for opened in (store, other):
            request = LegsRequest(text=words("next-1"), vector=vector_of("x", 4))
            legs = opened.search("c", request)
            assert legs.generation == made.id
            assert legs.bm25 is not None
            assert legs.vector is not None
            assert len(legs.bm25.hits) == len(legs.vector.hits) == 2
            with pytest.raises(GenerationChanged):
                opened.search("c", replace(request, generation=old.id))
            [result] = opened.write("c", [write("a", "blue")], key=old.key)
            assert isinstance(result, GenerationChanged)
            assert (result.claimed, result.created) == (None, None)
        assert store.document("c", "a").document.text == "red"
        other.close()

    def test_a_rebuild_beside_writers(self, store: EmbeddedStore, folder: Path) -> None:
        """Each in a process of its own."""
        put(store, *(write(f"d{i:03}", "red one", "red two") for i in range(COUNT)))
        running = rebuilder(folder, "3")
        number = 0
        while running.poll() is None:
            number += 1
            key = store.live("c").key
            [result] = store.write("c", [write("own", f"red n{number}")], key=key)
            if isinstance(result, Written):
                assert bm25_ids(store, "c", f"n{number}") == ["own:0"]
            else:
                assert isinstance(result, GenerationChanged)
                number -= 1
            assert len(bm25_ids(store, "c", "red", k=2_000)) >= 2 * COUNT
            assert len(vector_ids(store, "c", unit(1), k=2_000)) >= 2 * COUNT
        assert running.stdout is not None
        running.stdout.close()
        assert running.wait() == 0
        assert store.document("c", "own").document.text == f"red n{number}"
        check_sound(store)
        assert store.audits.drift("c") == []


class TestTextIndexes:
    def test_a_kept_generation_follows_from_where_it_was(
        self, store: EmbeddedStore, folder: Path
    ) -> None:
        put(store, write("a", "red"), write("b", "red"))
        old = store.live("c")
        made = store.generations.create("c", recipe=NEXT_RECIPE)
        promote(store, made.id)
        document = write("a", "red anew", "red again").document
        given = replace(write("a"), document=document, chunks=derived(document, NEXT_RECIPE))
        put(store, given)
        store.delete("c", "b")
        promote(store, old.id, RECIPE)
        check_sound(store)
        assert [found.name for found in place(folder).glob("generations/*/text-*")] == [
            "text-1",
            "text-1",
        ]

    def test_one_past_the_record_of_removals_is_made_anew(
        self, store: EmbeddedStore, folder: Path
    ) -> None:
        put(store, write("a", "red"), write("b", "red"))
        old = store.live("c")
        made = store.generations.create("c", recipe=NEXT_RECIPE)
        promote(store, made.id)
        store.delete("c", "b")
        execute(folder, "DELETE FROM removals", "UPDATE state SET pruned = sequence")
        store.generations.settle("c", old.id)
        promote(store, old.id, RECIPE)
        check_sound(store)
        assert (place(folder) / "generations" / old.id / "text-2").is_dir()

    def test_filling_leaves_the_live_index_as_it_is(
        self, store: EmbeddedStore, folder: Path
    ) -> None:
        put(store, write("a", "red"), write("b", "red"))
        made = store.generations.create("c", recipe=NEXT_RECIPE)
        before = sorted(file.name for file in place(folder).glob("generations/000001/text-1/*"))
        fill(store, made.id)
        check_sound(store)
        after = sorted(file.name for file in place(folder).glob("generations/000001/text-1/*"))
        assert after == before


class TestVectors:
    def test_a_filter_holds_for_chunks_of_older_versions(self, store: EmbeddedStore) -> None:
        """Masks are carried on over chunks that are derived again, in any order."""
        put(store, *(write(f"d{i}", "red", metadata={"even": i % 2 == 0}) for i in range(20)))
        live = store.live("c")
        even = Terms("even", (True,))
        expected = sorted(f"d{i}:0" for i in range(0, 20, 2))
        assert sorted(vector_ids(store, "c", unit(1), filter=even)) == expected
        for i in (17, 4, 12, 3):
            stored = store.document("c", f"d{i}")
            put_again = Derivation(
                document_id=f"d{i}",
                revision=stored.revision,
                document=stored.document,
                chunks=derived(stored.document, RECIPE),
            )
            assert store.generations.derive("c", live.id, [put_again]) == [True]
            assert sorted(vector_ids(store, "c", unit(1), filter=even)) == expected
        put(store, write("d3", "red", metadata={"even": True}))
        assert sorted(vector_ids(store, "c", unit(1), filter=even)) == sorted([*expected, "d3:0"])
