"""What the store with ChromaDB promises beyond the contract: kill -9, several processes, damage, loss."""

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from server.app import open_store as open_store_of
from server.errors import ConfigurationError
from server.settings import Settings
from server.stores.chroma.engine import ChromaEngine
from server.stores.contract import LegsRequest
from server.stores.embedded.store import EmbeddedStore
from server.stores.filters import Filter, Not, Range, Terms
from tests.stores.builders import DIMENSIONS, RECIPE, unit, vector_ids, write
from tests.stores.chroma_folder import copies, eager, note
from tests.stores.embedded_folder import check_sound, execute, place, process, put


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def open_store(folder: Path) -> Iterator[Callable[[], EmbeddedStore]]:
    """Opens the folder again, as another process would."""
    opened: list[EmbeddedStore] = []

    def open_again() -> EmbeddedStore:
        opened.append(EmbeddedStore(folder, engine=eager(folder)))
        return opened[-1]

    yield open_again
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], EmbeddedStore]) -> EmbeddedStore:
    opened = open_store()
    opened.create_collection("c", recipe=RECIPE)
    return opened


def test_two_processes_have_copies_of_their_own(
    store: EmbeddedStore, open_store: Callable[[], EmbeddedStore], folder: Path
) -> None:
    other = open_store()
    for number in range(4):
        put(store if number % 2 else other, write(f"d{number}", "red", vectors=[unit(1, number)]))
        expected = [f"d{found}:0" for found in range(number + 1)]
        assert vector_ids(store, "c", unit(1)) == vector_ids(other, "c", unit(1)) == expected
    assert [copy.name for copy in copies(folder)] == ["copy-1", "copy-2"]
    store.delete("c", "d0")
    assert vector_ids(other, "c", unit(1)) == ["d1:0", "d2:0", "d3:0"]
    check_sound(store)
    check_sound(other)


def test_the_next_process_goes_on_with_the_copy(
    store: EmbeddedStore, open_store: Callable[[], EmbeddedStore], folder: Path
) -> None:
    put(store, *(write(f"d{number}", "red") for number in range(5)))
    check_sound(store)
    store.close()
    [copy] = copies(folder)
    before = note(copy)
    again = open_store()
    check_sound(again)
    put(again, write("d5", "red"))
    again.delete("c", "d0")
    check_sound(again)
    again.close()
    assert copies(folder) == [copy]
    after = note(copy)
    assert (before["count"], after["count"]) == (5, 5)
    assert after["data"] == before["data"]  # went on, not made anew
    assert after["level"] > before["level"]


def test_kill_9_loses_nothing(
    store: EmbeddedStore, open_store: Callable[[], EmbeddedStore], folder: Path
) -> None:
    store.close()
    told: set[str] = set()
    for round_number in range(3):
        running = process("chroma_searcher", folder, f"r{round_number}")
        assert running.stdout is not None
        lines = [running.stdout.readline() for _ in range(random.Random(round_number).randrange(9))]
        time.sleep(random.Random(round_number).random() / 10)
        running.kill()
        lines += running.stdout.readlines()
        running.stdout.close()
        assert running.wait() == -9
        told |= {line.strip() for line in lines if line.endswith("\n")}
    again = open_store()
    check_sound(again)
    assert told <= {found.document.id for found in again.documents("c")}
    assert [copy.name for copy in copies(folder)] == ["copy-1"]


def test_beside_another_process_that_writes_and_searches(
    store: EmbeddedStore, folder: Path
) -> None:
    running = process("chroma_searcher", folder, "other")
    assert running.stdout is not None
    for number in range(6):
        document = running.stdout.readline().strip()
        put(store, write(f"own-{number}", "red"))
        found = vector_ids(store, "c", unit(1), k=10_000)
        assert {f"{document}:0", f"own-{number}:0"} <= set(found)
    running.kill()
    running.wait()
    running.stdout.close()
    check_sound(store)


def truncated(data: Path) -> None:
    [file] = data.glob("*/data_level0.bin")
    file.write_bytes(file.read_bytes()[:100])


def overwritten(data: Path) -> None:
    database = data / "chroma.sqlite3"
    database.write_bytes(b"\0" * database.stat().st_size)


def without_files(data: Path) -> None:
    for file in data.glob("*/*"):
        file.unlink()


def gone(data: Path) -> None:
    shutil.rmtree(data)


def noted(**values: object) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        file = data.parent / "sound.json"
        file.write_text(json.dumps({**note(data.parent), **values}), encoding="utf-8")

    return change


def without_note(data: Path) -> None:
    (data.parent / "sound.json").unlink()


def with_half_a_note(data: Path) -> None:
    (data.parent / "sound.json").write_text("{", encoding="utf-8")


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        overwritten,
        without_files,
        gone,
        without_note,
        with_half_a_note,
        noted(count=3),
        noted(chromadb="0.1"),
        noted(sizes=None),
        noted(data="../../../.."),
    ],
    ids=[
        "truncated",
        "overwritten",
        "without files",
        "gone",
        "without note",
        "half a note",
        "another count",
        "another version",
        "no sizes",
        "another folder",
    ],
)
def test_a_damaged_copy_is_made_anew(
    store: EmbeddedStore,
    open_store: Callable[[], EmbeddedStore],
    folder: Path,
    damage: Callable[[Path], None],
) -> None:
    put(store, *(write(f"d{number}", "red", vectors=[unit(1, number)]) for number in range(20)))
    store.delete("c", "d7")
    check_sound(store)
    store.close()
    [copy] = copies(folder)
    [data] = copy.glob("data-*")
    damage(data)
    again = open_store()
    check_sound(again)
    [new] = copy.glob("data-*")
    assert new != data
    assert note(copy)["count"] == 19
    put(again, write("after", "red"))
    check_sound(again)


def test_files_that_vanish_below_a_server_cost_no_result(
    store: EmbeddedStore, open_store: Callable[[], EmbeddedStore], folder: Path
) -> None:
    put(store, write("a", "red"))
    check_sound(store)
    shutil.rmtree(folder / "chroma")
    for number in range(3):
        put(store, write(f"b{number}", "red"))
        check_sound(store)
    check_sound(open_store())


def test_a_place_that_takes_no_files_costs_no_result(store: EmbeddedStore, folder: Path) -> None:
    (folder / "chroma").write_text("in the way", encoding="utf-8")
    put(store, write("a", "red"), write("b", "red"))
    check_sound(store)
    store.delete("c", "a")
    check_sound(store)


def test_a_copy_that_is_behind_the_record_of_removals_is_made_anew(
    store: EmbeddedStore, open_store: Callable[[], EmbeddedStore], folder: Path
) -> None:
    put(store, write("a", "red"), write("b", "red"))
    check_sound(store)
    store.close()
    plain = EmbeddedStore(folder)
    plain.delete("c", "a")
    plain.close()
    execute(folder, "DELETE FROM removals", "UPDATE state SET pruned = sequence")
    again = open_store()
    check_sound(again)
    [copy] = copies(folder)
    assert note(copy)["count"] == 1


def test_what_is_dropped_leaves_no_files(
    store: EmbeddedStore, open_store: Callable[[], EmbeddedStore], folder: Path
) -> None:
    put(store, write("a", "red"))
    check_sound(store)
    new = store.generations.create("c", recipe=RECIPE)
    store.generations.promote("c", new.id, fence=store.generations.fence("c"))
    put(store, write("b", "red"))
    assert vector_ids(store, "c", unit(1)) == ["b:0"]
    assert [copy.parent.name for copy in copies(folder)] == ["000001", "000002"]
    store.generations.drop("c", "000001")
    assert [copy.parent.name for copy in copies(folder)] == ["000002"]
    left = shutil.copytree(folder / "chroma" / place(folder).name, folder / "chroma" / "x.killed")
    store.delete_collection("c")
    assert copies(folder) == copies_below(left)
    open_store()
    assert copies(folder) == []


def copies_below(collection: Path) -> list[Path]:
    return sorted(collection.glob("*/copy-*"))


def nearby(random_numbers: np.random.Generator, many: int) -> list[np.ndarray]:
    vectors = random_numbers.standard_normal((many, DIMENSIONS)).astype(np.float32)
    return list(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.mark.parametrize(
    "engine",
    [{}, {"exact": 20, "tail": 50, "patience": 60}, {"exact": 0, "tail": 0, "patience": 60}],
    ids=["few", "some", "all asked"],
)
def test_it_finds_what_faiss_finds(folder: Path, engine: dict[str, int]) -> None:
    """Whatever the filter keeps, while documents come, change and go."""
    random_numbers = np.random.default_rng(7)
    plain = EmbeddedStore(folder)
    other = EmbeddedStore(folder, engine=ChromaEngine(folder / "chroma", **engine))
    plain.create_collection("c", recipe=RECIPE)
    conditions: list[Filter | None] = [
        None,
        Terms("one", (True,)),
        Range(key="n", lt=3),
        Range(key="n", gte=2),
        Not(Terms("n", (4,))),
        Terms("acl", ("nobody's",)),
    ]
    for round_number in range(2):
        documents = [
            write(
                f"d{number}",
                "red",
                "red",
                vectors=nearby(random_numbers, 2),
                metadata={"n": number % 10, "one": number == 77},
            )
            for number in range(round_number * 50, round_number * 50 + 150)
        ]
        put(plain, *documents)
        for number in range(round_number * 50, round_number * 50 + 20):
            plain.delete("c", f"d{number}")
        for vector in nearby(random_numbers, 2):
            for condition in conditions:
                for k in (1, 10, 200):
                    request = LegsRequest(vector=vector, filter=condition, k=k)
                    legs = [opened.search("c", request).vector for opened in (plain, other)]
                    assert legs[0] is not None
                    assert legs[1] is not None
                    expected, found = dict(legs[0].hits), dict(legs[1].hits)
                    assert len(found) == len(expected)
                    common = expected.keys() & found.keys()
                    assert len(common) >= 0.99 * len(expected), (condition, k)
                    assert [found[name] for name in common] == pytest.approx(
                        [expected[name] for name in common], abs=1e-6
                    )
    plain.close()
    other.close()


def test_ties_come_by_chunk_id_however_many(store: EmbeddedStore) -> None:
    names = [f"d{number:03}" for number in random.Random(1).sample(range(500), 400)]
    put(store, *(write(name, "red", vectors=[unit(1, 1)]) for name in names))
    assert vector_ids(store, "c", unit(1), k=20) == [f"{name}:0" for name in sorted(names)[:20]]
    condition = Terms("document_id", tuple(names[:150]))
    assert vector_ids(store, "c", unit(1), k=20, filter=condition) == [
        f"{name}:0" for name in sorted(names[:150])[:20]
    ]


def test_without_chromadb_the_setting_says_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.stores.chroma.engine.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="tanyuan\\[chroma\\]"):
        open_store_of(Settings(data=folder, store="chroma"))
