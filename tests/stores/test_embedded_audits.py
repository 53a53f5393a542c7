"""Damage planted in the embedded store's files is found and mended."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from server.stores.audit import Audited
from server.stores.embedded.store import EmbeddedStore
from server.stores.generations import Derivation
from tests.stores.builders import RECIPE, bm25_ids, derived, unit, vector_ids, write
from tests.stores.embedded_folder import check_sound, execute, place, put, query, text_folder

OF_A = "(SELECT version FROM documents WHERE document_id = 'a')"
FIRST_OF_A = f"(SELECT min(id) FROM chunks WHERE version = {OF_A})"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> Iterator[EmbeddedStore]:
    opened = EmbeddedStore(folder)
    opened.create_collection("c", recipe=RECIPE)
    put(opened, write("a", "red one", "red two"), write("b", "red"), write("z", "red"))
    yield opened
    opened.close()


def audited(store: EmbeddedStore) -> dict[str, Audited]:
    every = list(store.audits.every("c"))
    assert [found.document_id for found in every] == sorted({f.document_id for f in every})
    for found in every:
        one = store.audits.one("c", found.document_id)
        assert [each.key for each in one.chunks] == [each.key for each in found.chunks]
    return {found.document_id: found for found in every}


def derive_again(store: EmbeddedStore, *names: str) -> None:
    for name in names:
        stored = store.document("c", name)
        put_again = Derivation(
            document_id=name,
            revision=stored.revision,
            document=stored.document,
            chunks=derived(stored.document, RECIPE),
        )
        assert store.generations.derive("c", store.live("c").id, [put_again]) == [True]


def check_healthy(store: EmbeddedStore, names: Sequence[str] = ("a", "b", "z")) -> None:
    assert store.audits.drift("c") == []
    found = audited(store)
    assert sorted(found) == sorted(names)
    for each in found.values():
        assert each.level
        assert each.complete
        assert len(each.chunks) == each.chunks_expected
    check_sound(store)


def test_a_document_without_its_chunks(store: EmbeddedStore, folder: Path) -> None:
    execute(folder, f"DELETE FROM chunks WHERE version = {OF_A} AND position = 1")
    found = audited(store)["a"]
    assert (found.chunks_expected, len(found.chunks)) == (2, 1)
    kinds = {(drift.part, drift.kind) for drift in store.audits.drift("c")}
    assert ("text index", "surplus") in kinds
    assert ("vectors", "surplus") in kinds
    assert ("counts", "damaged") in kinds
    derive_again(store, "a")
    store.audits.mend("c")
    check_healthy(store)


def test_chunks_without_their_document(store: EmbeddedStore, folder: Path) -> None:
    execute(folder, f"DELETE FROM texts WHERE version = {OF_A}")
    execute(folder, "DELETE FROM documents WHERE document_id = 'a'")
    found = audited(store)["a"]
    assert (found.document, found.revision) == (None, 0)
    assert [each.chunk.text for each in found.chunks] == ["red one", "red two"]
    keys = [each.key for each in found.chunks]
    sound = audited(store)["b"].chunks[0].key
    assert store.audits.remove("c", [*keys, sound, keys[0]]) == 2
    store.audits.mend("c")
    check_healthy(store, ["b", "z"])
    assert vector_ids(store, "c", unit(1), k=1)[0] in {"b:0", "z:0"}


def test_chunks_whose_document_was_put_again(store: EmbeddedStore, folder: Path) -> None:
    execute(folder, "DELETE FROM documents WHERE document_id = 'a'")
    put(store, write("a", "red anew"))
    found = audited(store)["a"]
    assert [(each.chunk.text, each.revision) for each in found.chunks] == [
        ("red one", 0),
        ("red anew", 1),
        ("red two", 0),
    ]
    assert store.audits.remove("c", [each.key for each in found.chunks]) == 2
    store.audits.mend("c")
    check_healthy(store)


def test_chunks_of_which_nothing_tells_the_document(store: EmbeddedStore, folder: Path) -> None:
    execute(
        folder,
        f"DELETE FROM labels WHERE version = {OF_A}",
        "DELETE FROM documents WHERE document_id = 'a'",
    )
    [strange] = [found for found in audited(store).values() if found.document is None]
    assert strange.document_id.startswith("version ")
    assert store.audits.remove("c", [each.key for each in strange.chunks]) == 2
    store.audits.mend("c")
    check_healthy(store, ["b", "z"])


def test_a_document_that_is_not_level(store: EmbeddedStore, folder: Path) -> None:
    execute(folder, f"DELETE FROM derivations WHERE version = {OF_A}")
    assert not audited(store)["a"].level
    [pending] = store.generations.pending("c", store.live("c").id)
    assert pending.document_id == "a"
    derive_again(store, "a")
    check_healthy(store)


def test_a_document_without_its_text(store: EmbeddedStore, folder: Path) -> None:
    execute(folder, f"DELETE FROM texts WHERE version = {OF_A}")
    assert not audited(store)["a"].complete
    put(store, write("a", "red anew"))
    check_healthy(store)


@pytest.mark.parametrize("damage", ["missing", "short", "long", "nan", "odd"])
def test_a_damaged_vector(store: EmbeddedStore, folder: Path, damage: str) -> None:
    where = f"WHERE chunk = {FIRST_OF_A}"
    match damage:
        case "missing":
            execute(folder, f"DELETE FROM vectors {where}")
        case "short":
            execute(folder, f"UPDATE vectors SET vector = substr(vector, 1, 28) {where}")
        case "long":
            execute(folder, f"UPDATE vectors SET vector = vector || x'00000000' {where}")
        case "odd":
            execute(folder, f"UPDATE vectors SET vector = x'00' {where}")
        case _:
            execute(folder, f"UPDATE vectors SET vector = substr(vector,1,28)||x'0000c07f' {where}")
    vector = audited(store)["a"].chunks[0].vector
    if damage == "missing":
        assert vector is None
    else:
        assert vector is not None
        assert vector.shape != (8,) or not np.isfinite(vector).all()
    store.close()
    opened = EmbeddedStore(folder)
    # Search goes on without it.
    assert sorted(vector_ids(opened, "c", unit(1))) == ["a:1", "b:0", "z:0"]
    derive_again(opened, "a")
    check_healthy(opened)
    opened.close()


def test_a_chunk_that_stands_twice(store: EmbeddedStore, folder: Path) -> None:
    execute(
        folder,
        "DROP INDEX chunks_by_version",
        'INSERT INTO chunks SELECT 900, generation, version, position, start, "end", headings, '
        f"text FROM chunks WHERE id = {FIRST_OF_A}",
        f"INSERT INTO terms SELECT 900, terms FROM terms WHERE chunk = {FIRST_OF_A}",
    )
    found = audited(store)["a"]
    assert [each.chunk.position for each in found.chunks] == [0, 0, 1]
    keys = [each.key for each in found.chunks]
    assert store.audits.remove("c", keys) == 1  # one of the two stays
    assert [each.chunk.position for each in audited(store)["a"].chunks] == [0, 1]
    derive_again(store, "a")
    store.audits.mend("c")
    check_healthy(store)


def test_a_chunk_without_terms(store: EmbeddedStore, folder: Path) -> None:
    execute(folder, f"DELETE FROM terms WHERE chunk = {FIRST_OF_A}")
    assert ("terms", "missing", "a:0") in {
        (drift.part, drift.kind, drift.chunk_id) for drift in store.audits.drift("c")
    }
    store.audits.mend("c")
    assert not audited(store)["a"].level
    derive_again(store, "a")
    store.audits.mend("c")
    check_healthy(store)


def test_wrong_counts(store: EmbeddedStore, folder: Path) -> None:
    execute(folder, "UPDATE state SET documents = 7", "UPDATE generations SET chunks = 9")
    details = {drift.detail for drift in store.audits.drift("c") if drift.part == "counts"}
    assert details == {
        "7 documents instead of 3",
        "9 chunks of generation 1 instead of 4",
    }
    store.audits.mend("c")
    check_healthy(store)


@pytest.mark.parametrize("change", ["lost", "surplus", "missing", "broken"])
def test_a_text_index_that_differs(store: EmbeddedStore, folder: Path, change: str) -> None:
    text = text_folder(folder)
    kept = shutil.copytree(text, folder / "kept")
    expected: set[tuple[str, str]] = set()
    match change:
        case "lost":
            put(store, write("d", "red lost"))
            expected = {("missing", "d:0")}
        case "surplus":
            store.delete("c", "a")
            expected = {("surplus", "a:0"), ("surplus", "a:1")}
        case "missing":
            expected = {("damaged", "")}
        case _:
            expected = {("damaged", "")}
    names = [found.document.id for found in store.documents("c")]
    store.close()
    shutil.rmtree(text)
    if change == "broken":
        text.mkdir()
        (text / "meta.json").write_text("{")
    elif change != "missing":
        shutil.copytree(kept, text)
    opened = EmbeddedStore(folder)
    found = {
        (drift.kind, drift.chunk_id)
        for drift in opened.audits.drift("c")
        if drift.part == "text index"
    }
    if change == "surplus":  # what was removed has no row that could tell its name
        assert [kind for kind, _ in found] == ["surplus"] * len(found)
    else:
        assert found == expected
    opened.audits.mend("c")
    check_healthy(opened, names)
    opened.close()


def test_much_drift_is_told_in_short(store: EmbeddedStore, folder: Path) -> None:
    put(store, *(write(f"d{i:04}", "red") for i in range(1_500)))
    text = text_folder(folder)
    sequence = query(folder, "SELECT text_sequence FROM generations")
    store.close()
    shutil.rmtree(text)
    empty = EmbeddedStore(folder)
    empty.create_collection("e", recipe=RECIPE)
    shutil.copytree(place(folder, "e") / "generations/000001/text-1", text)
    found = empty.audits.drift("c")
    assert len(found) == 1_001
    assert "504 more" in found[-1].detail
    assert query(folder, "SELECT text_sequence FROM generations") == sequence
    empty.audits.mend("c")
    check_sound(empty)
    assert bm25_ids(empty, "c", "absent") == []
    empty.close()
