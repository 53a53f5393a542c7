"""The contract of notes as a test class, which every backend inherits."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from server.errors import CollectionNotFound, InvalidInput, NoteConflict
from server.stores.contract import Store
from server.stores.notes import MAX_KEY_CHARS, MAX_NOTE_BYTES, Note
from tests.stores.builders import RECIPE
from tests.stores.contract import StoreContract, unique_name


class NoteContract(StoreContract):
    def test_a_note_comes_back_as_it_was_put(self, store: Store, collection: str) -> None:
        value = {"词": "差旅 🙂", "n": [1, 1.5, None, True, {"": "a.b"}], "a.b": {"c": {}}, "e": []}
        assert store.notes.get(collection, "dictionary:1") is None
        put = store.notes.put(collection, "dictionary:1", value)
        assert put == Note(value=value, version=1)
        assert store.notes.get(collection, "dictionary:1") == put

    def test_versions_rise_by_one(self, store: Store, collection: str) -> None:
        versions = [
            store.notes.put(collection, "progress", {"done": done}).version for done in range(4)
        ]
        assert versions == [1, 2, 3, 4]
        assert store.notes.get(collection, "progress") == Note(value={"done": 3}, version=4)

    def test_a_condition_on_the_version(self, store: Store, collection: str) -> None:
        notes = store.notes
        with pytest.raises(NoteConflict):
            notes.put(collection, "lock", {"by": "a"}, expected=1)  # not there yet
        assert notes.put(collection, "lock", {"by": "a"}, expected=0).version == 1
        with pytest.raises(NoteConflict):
            notes.put(collection, "lock", {"by": "b"}, expected=0)
        assert notes.put(collection, "lock", {"by": "c"}, expected=1).version == 2
        with pytest.raises(NoteConflict):
            notes.put(collection, "lock", {"by": "b"}, expected=1)
        with pytest.raises(NoteConflict):
            notes.delete(collection, "lock", expected=1)
        assert notes.get(collection, "lock") == Note(value={"by": "c"}, version=2)
        assert notes.delete(collection, "lock", expected=2)
        assert notes.get(collection, "lock") is None

    def test_a_delete_says_whether_there_was_one(self, store: Store, collection: str) -> None:
        store.notes.put(collection, "a", {})
        assert store.notes.delete(collection, "a")
        assert not store.notes.delete(collection, "a")
        assert store.notes.put(collection, "a", {"again": True}, expected=0).value == {
            "again": True
        }

    def test_notes_under_a_prefix_come_by_key(self, store: Store, collection: str) -> None:
        for key in ("log:2", "log:10", "log_1", "log", "log:1", "Log:1", "m"):
            store.notes.put(collection, key, {"key": key})
        found = store.notes.under(collection, "log:")
        assert list(found) == ["log:1", "log:10", "log:2"]
        assert found["log:2"] == Note(value={"key": "log:2"}, version=1)
        assert store.notes.under(collection, "log:9") == {}
        assert len(store.notes.under(collection, "")) == 7

    def test_many_notes_under_a_prefix(self, store: Store, collection: str) -> None:
        for number in range(120):
            store.notes.put(collection, f"n:{number:03}", {"n": number})
        found = store.notes.under(collection, "n:")
        assert [note.value["n"] for note in found.values()] == list(range(120))

    @pytest.mark.parametrize("key", ["", "a b", "a/b", "键", "a\n", "x" * (MAX_KEY_CHARS + 1)])
    def test_a_bad_key_is_refused(self, store: Store, collection: str, key: str) -> None:
        with pytest.raises(InvalidInput):
            store.notes.put(collection, key, {})

    def test_the_longest_key_is_taken(self, store: Store, collection: str) -> None:
        key = "x" * MAX_KEY_CHARS
        store.notes.put(collection, key, {"a": 1})
        assert store.notes.get(collection, key) == Note(value={"a": 1}, version=1)

    @pytest.mark.parametrize(
        "value",
        [{"a": float("nan")}, {"a": "\ud800"}, {"a": object()}],
        ids=["nan", "surrogate", "object"],
    )
    def test_what_is_no_json_is_refused(
        self, store: Store, collection: str, value: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidInput):
            store.notes.put(collection, "a", value)
        assert store.notes.get(collection, "a") is None

    def test_a_big_note_is_kept_and_one_too_big_refused(
        self, store: Store, collection: str
    ) -> None:
        big = {"words": ["差旅报销"] * 200_000}
        store.notes.put(collection, "big", big)
        found = store.notes.get(collection, "big")
        assert found is not None
        assert found.value == big
        with pytest.raises(InvalidInput):
            store.notes.put(collection, "big", {"a": "x" * MAX_NOTE_BYTES})
        assert store.notes.get(collection, "big") == found

    def test_of_many_writers_each_change_counts(self, store: Store, collection: str) -> None:
        """Compare-and-set from eight threads loses nothing."""

        def count(_: int) -> int:
            conflicts = 0
            for _ in range(5):
                while True:
                    note = store.notes.get(collection, "counter")
                    value, version = (note.value["n"], note.version) if note else (0, 0)
                    try:
                        store.notes.put(collection, "counter", {"n": value + 1}, expected=version)
                        break
                    except NoteConflict:
                        conflicts += 1
            return conflicts

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(count, range(8)))
        assert store.notes.get(collection, "counter") == Note(value={"n": 40}, version=40)

    def test_one_of_many_makes_a_note(self, store: Store, collection: str) -> None:
        def make(number: int) -> bool:
            try:
                store.notes.put(collection, "lock", {"by": number}, expected=0)
            except NoteConflict:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(make, range(8)))
        assert made.count(True) == 1
        note = store.notes.get(collection, "lock")
        assert note is not None
        assert note.value == {"by": made.index(True)}

    def test_a_collection_is_created_with_notes(self, store: Store) -> None:
        name = unique_name()
        given = {"dictionary:0": {"words": ["差旅"]}, "settings": {"a": 1}}
        store.create_collection(name, recipe=RECIPE, notes=given)
        assert store.notes.under(name, "") == {
            key: Note(value=value, version=1) for key, value in given.items()
        }
        store.notes.put(name, "settings", {"a": 2}, expected=1)
        store.delete_collection(name)

    def test_a_collection_with_a_bad_note_is_not_created(self, store: Store) -> None:
        name = unique_name()
        with pytest.raises(InvalidInput):
            store.create_collection(name, recipe=RECIPE, notes={"a b": {}})
        assert name not in [found.name for found in store.collections()]

    def test_a_deleted_collection_takes_its_notes_along(
        self, store: Store, collection: str
    ) -> None:
        store.notes.put(collection, "a", {"old": True})
        store.delete_collection(collection)
        for call in (
            lambda: store.notes.get(collection, "a"),
            lambda: store.notes.under(collection, ""),
            lambda: store.notes.put(collection, "a", {}),
            lambda: store.notes.delete(collection, "a"),
        ):
            with pytest.raises(CollectionNotFound):
                call()
        store.create_collection(collection, recipe=RECIPE)
        assert store.notes.under(collection, "") == {}

    def test_collections_keep_their_own(self, store: Store, collection: str) -> None:
        longer = collection + "-2"
        store.create_collection(longer, recipe=RECIPE)
        store.notes.put(collection, "a", {"of": "one"})
        store.notes.put(longer, "a", {"of": "other"})
        store.delete_collection(longer)
        assert store.notes.get(collection, "a") == Note(value={"of": "one"}, version=1)
