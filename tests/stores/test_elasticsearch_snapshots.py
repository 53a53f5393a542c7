"""Backups by Elasticsearch's snapshots, on a node of our own with a folder for them."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.errors import CollectionExists, CollectionNotFound, InvalidInput, StoreUnavailable
from server.stores.contract import Written
from server.stores.elasticsearch.store import ElasticsearchStore
from tests.services.elasticsearch import VERSIONS, Node, own_node
from tests.stores.builders import RECIPE
from tests.stores.fault_proxy import Request, fault_proxy
from tests.stores.generation_contract import GenerationSteps


@pytest.fixture(scope="module", params=VERSIONS)
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    with own_node(request.param) as running:
        yield running


@pytest.fixture
def store(node: Node) -> Iterator[ElasticsearchStore]:
    opened = ElasticsearchStore(node.url, prefix="snapshots")
    opened.register_repository("backups", str(node.folder / "snapshots"))
    yield opened
    opened.close()


class TestSnapshots(GenerationSteps):
    def test_a_collection_comes_back_as_it_was(
        self, store: ElasticsearchStore, collection: str
    ) -> None:
        self.documents(store, collection, ["a", "b", "c"], "red one\nred two")
        store.describe(collection, "员工手册")
        self.rebuilt(store, collection)
        self.documents(store, collection, ["a"], "blue")
        store.delete(collection, "c", refresh=True)
        store.notes.put(collection, "dictionary:1", {"words": ["差旅"]})
        before, live = store.collection(collection), store.live(collection, fresh=True)
        store.backup(collection, "backups", f"{collection}-1")
        with pytest.raises(CollectionExists):
            store.restore(collection, "backups", f"{collection}-1")
        store.delete_collection(collection)
        with pytest.raises(CollectionNotFound):
            store.live(collection)
        assert store.restore(collection, "backups", f"{collection}-1") == 0
        assert store.collection(collection) == before
        restored = store.live(collection)
        assert (restored.key, restored.recipe, restored.fence) == (live.key, live.recipe, "")
        assert [found.id for found in store.generations.all(collection)] == [live.id]
        note = store.notes.get(collection, "dictionary:1")
        assert note is not None
        assert note.value == {"words": ["差旅"]}
        self.check_live(store, collection)
        # It goes on as before: writes, revisions and numbers of generations.
        self.documents(store, collection, ["c", "d"], "green")
        assert store.document(collection, "c").revision == 3
        self.check_live(store, collection)
        assert store.generations.create(collection, recipe=RECIPE).id > live.id

    def test_a_backup_of_what_is_being_written(
        self, store: ElasticsearchStore, collection: str
    ) -> None:
        names = [f"d{number:03}" for number in range(200)]
        self.documents(store, collection, names, "red\nred")
        acknowledged: dict[str, int] = {}
        started, stop = threading.Event(), threading.Event()

        def writing() -> None:
            number = 0
            while not stop.is_set():
                name = names[number * 7 % len(names)]
                text = "\n".join([f"blue {number}"] * (number % 4))
                [result] = store.write(collection, [self.written(name, text, RECIPE)])
                assert isinstance(result, Written)
                if not started.is_set():
                    acknowledged[name] = result.revision
                number += 1

        with ThreadPoolExecutor(1) as pool:
            writer = pool.submit(writing)
            while len(acknowledged) < 50:
                assert not writer.done()
            started.set()
            store.backup(collection, "backups", f"{collection}-1")
            stop.set()
            writer.result(30)
        store.delete_collection(collection)
        torn = store.restore(collection, "backups", f"{collection}-1")
        assert {found.document.id for found in store.documents(collection)} == set(names)
        states = store.states(collection, names)
        assert all(states[name].revision >= revision for name, revision in acknowledged.items())
        live = store.live(collection)
        pending = store.generations.pending_count(collection, live.id)
        assert pending >= torn
        assert pending == sum(not state.complete for state in states.values())
        self.level(store, collection, live.id, RECIPE)
        self.check_live(store, collection)

    def test_snapshots_are_listed(self, store: ElasticsearchStore, collection: str) -> None:
        self.documents(store, collection, ["a"], "red")
        for number in range(2):
            store.backup(collection, "backups", f"{collection}-{number}")
        found = {each.name: each for each in store.snapshots("backups")}
        assert found.keys() >= {f"{collection}-0", f"{collection}-1"}
        listed = found[f"{collection}-1"]
        assert (listed.state, len(listed.indices)) == ("SUCCESS", 3)
        assert listed.taken_at.startswith("20")

    def test_what_can_t_be_used_is_named(
        self, store: ElasticsearchStore, collection: str, node: Node
    ) -> None:
        store.backup(collection, "backups", f"{collection}-1")
        for call in (
            lambda: store.register_repository("odd", "/somewhere/else"),
            lambda: store.snapshots("missing"),
            lambda: store.backup(collection, "missing", "a"),
            lambda: store.backup(collection, "backups", "Not Allowed"),
            lambda: store.backup(collection, "backups", f"{collection}-1"),
            lambda: store.restore("other", "backups", "missing"),
            lambda: store.restore("other", "backups", f"{collection}-1"),
            lambda: store.restore("Not Allowed", "backups", f"{collection}-1"),
        ):
            with pytest.raises(InvalidInput):
                call()
        with pytest.raises(CollectionNotFound):
            store.backup("missing", "backups", "a")

    def test_a_promotion_meanwhile_makes_it_void(
        self, store: ElasticsearchStore, collection: str, node: Node
    ) -> None:
        self.documents(store, collection, ["a"], "red")
        release = threading.Event()

        def rule(request: Request) -> threading.Event | str:
            return release if "/_snapshot/" in request.path and request.method == "GET" else "pass"

        with fault_proxy(node.url) as proxy, ThreadPoolExecutor(1) as pool:
            behind = ElasticsearchStore(proxy.url, prefix="snapshots")
            proxy.use(rule)  # type: ignore[arg-type]
            taking = pool.submit(behind.backup, collection, "backups", f"{collection}-1")
            assert proxy.held.wait(30)
            self.rebuilt(store, collection)
            release.set()
            with pytest.raises(StoreUnavailable, match="again"):
                taking.result(30)
            behind.close()
        taken = {each.name for each in store.snapshots("backups")}
        assert f"{collection}-1" not in taken
        self.check_live(store, collection)
