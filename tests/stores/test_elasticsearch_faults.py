"""The Elasticsearch store when the server, the network or another writer gets in between."""

import socket
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.errors import (
    CollectionExists,
    CollectionNotFound,
    DocumentNotFound,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
    TanyuanError,
)
from server.stores.contract import LegsRequest, TextClause, Written
from server.stores.elasticsearch.store import ElasticsearchStore
from tests.services.elasticsearch import Node, own_node, targets
from tests.stores.builders import RECIPE, bm25_ids, unit, vector_ids, words, write
from tests.stores.fault_proxy import Action, FaultProxy, Reply, Request, fault_proxy, passing


@pytest.fixture(scope="module")
def prefix() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def store(elasticsearch: Callable[[str], str], prefix: str) -> Iterator[ElasticsearchStore]:
    opened = ElasticsearchStore(elasticsearch(targets()[0]), prefix=prefix)
    yield opened
    for collection in opened.collections():
        opened.delete_collection(collection.name)
    opened.close()


@pytest.fixture(scope="module")
def proxy(elasticsearch: Callable[[str], str]) -> Iterator[FaultProxy]:
    with fault_proxy(elasticsearch(targets()[0])) as running:
        yield running


@pytest.fixture
def behind(proxy: FaultProxy, prefix: str) -> Iterator[ElasticsearchStore]:
    """The same store, its requests going through the proxy."""
    proxy.use(passing)
    opened = ElasticsearchStore(proxy.url, prefix=prefix, timeout=10)
    yield opened
    proxy.use(passing)
    opened.close()


@pytest.fixture
def collection(store: ElasticsearchStore) -> Iterator[str]:
    name = f"c{uuid.uuid4().hex[:12]}"
    store.create_collection(name, recipe=RECIPE)
    yield name
    if any(found.name == name for found in store.collections()):
        store.delete_collection(name)


def on(index: str, action: Action, *, times: int = 1_000) -> Callable[[Request], Action]:
    """The action on the first ``times`` bulk requests to "documents" or "chunks"."""
    left = [times]

    def rule(request: Request) -> Action:
        if request.writes == index and left[0]:
            left[0] -= 1
            return action
        return "pass"

    return rule


class TestCutOffWrites:
    """A write that ends between its steps, as when its process is killed."""

    @pytest.mark.parametrize("action", ["lose request", "lose answer"])
    def test_chunks_not_acknowledged_are_written_again(
        self,
        store: ElasticsearchStore,
        behind: ElasticsearchStore,
        proxy: FaultProxy,
        collection: str,
        action: Action,
    ) -> None:
        store.write(collection, [write("a", "old 0", "old 1", "old 2", "old 3")])
        proxy.use(on("chunks", action))
        [failed] = behind.write(collection, [write("a", "mid 0", "mid 1", "mid 2")])
        assert isinstance(failed, StoreUnavailable)
        state = store.states(collection, ["a"])["a"]
        assert (state.revision, state.complete) == (2, False)
        [written] = store.write(collection, [write("a", "new 0")], refresh=True)
        assert isinstance(written, Written)
        assert store.states(collection, ["a"])["a"].complete
        assert bm25_ids(store, collection, "old", "mid", "new") == ["a:0"]
        assert store.collection(collection).chunks == 1

    def test_a_claim_whose_answer_is_lost_is_not_complete(
        self,
        store: ElasticsearchStore,
        behind: ElasticsearchStore,
        proxy: FaultProxy,
        collection: str,
    ) -> None:
        proxy.use(on("documents", "lose answer"))
        results = behind.write(collection, [write("a", "red"), write("b", "red")])
        assert all(isinstance(result, StoreUnavailable) for result in results)
        assert not store.states(collection, ["a"])["a"].complete
        [again] = store.write(collection, [write("a", "red")], refresh=True)
        assert isinstance(again, Written)
        assert again.revision == 2
        assert bm25_ids(store, collection, "red") == ["a:0"]

    def test_a_delete_cut_off_is_finished_when_it_is_tried_again(
        self,
        store: ElasticsearchStore,
        behind: ElasticsearchStore,
        proxy: FaultProxy,
        collection: str,
    ) -> None:
        store.write(collection, [write("a", "red 0", "red 1")])
        proxy.use(on("chunks", "lose request"))
        with pytest.raises(StoreUnavailable):
            behind.delete(collection, "a")
        with pytest.raises(DocumentNotFound):
            store.delete(collection, "a")
        store.refresh(collection)
        assert bm25_ids(store, collection, "red") == []
        [written] = store.write(collection, [write("a", "red")])
        assert isinstance(written, Written)
        assert (written.revision, written.status) == (3, "created")

    def test_a_document_put_after_a_cut_off_delete_has_its_own_chunks_only(
        self,
        store: ElasticsearchStore,
        behind: ElasticsearchStore,
        proxy: FaultProxy,
        collection: str,
    ) -> None:
        store.write(collection, [write("a", "old 0", "old 1", "old 2")])
        proxy.use(on("chunks", "lose request"))
        with pytest.raises(StoreUnavailable):
            behind.delete(collection, "a")
        store.write(collection, [write("a", "new 0")], refresh=True)
        assert bm25_ids(store, collection, "old", "new") == ["a:0"]


class TestLateWriters:
    """A writer whose chunks arrive after a newer writer's."""

    def late(
        self,
        behind: ElasticsearchStore,
        proxy: FaultProxy,
        collection: str,
        meanwhile: Callable[[], object],
    ) -> object:
        """What a writer of three chunks gets when ``meanwhile`` runs before they arrive."""
        release = threading.Event()
        proxy.use(on("chunks", release, times=1))
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(behind.write, collection, [write("a", "late 0", "late 1", "late 2")])
            assert proxy.held.wait(30)
            meanwhile()
            release.set()
            [result] = late.result(30)
        return result

    def test_do_not_overwrite_a_newer_document(
        self,
        store: ElasticsearchStore,
        behind: ElasticsearchStore,
        proxy: FaultProxy,
        collection: str,
    ) -> None:
        result = self.late(
            behind, proxy, collection, lambda: store.write(collection, [write("a", "newer")])
        )
        assert isinstance(result, Written)  # it was written, and then replaced
        assert result.revision == 1
        store.refresh(collection)
        assert bm25_ids(store, collection, "late", "newer") == ["a:0"]
        assert store.document(collection, "a").document.text == "newer"
        state = store.states(collection, ["a"])["a"]
        assert (state.revision, state.complete) == (2, True)

    def test_do_not_bring_a_deleted_document_back(
        self,
        store: ElasticsearchStore,
        behind: ElasticsearchStore,
        proxy: FaultProxy,
        collection: str,
    ) -> None:
        self.late(behind, proxy, collection, lambda: store.delete(collection, "a"))
        store.refresh(collection)
        assert bm25_ids(store, collection, "late") == []
        assert store.states(collection, ["a"]) == {}

    def test_do_not_bring_a_deleted_collection_back(
        self,
        store: ElasticsearchStore,
        behind: ElasticsearchStore,
        proxy: FaultProxy,
        collection: str,
    ) -> None:
        with pytest.raises(CollectionNotFound, match=collection):
            self.late(behind, proxy, collection, lambda: store.delete_collection(collection))
        assert collection not in [found.name for found in store.collections()]
        store.create_collection(collection, recipe=RECIPE)
        assert store.collection(collection).chunks == 0


class TestRefusals:
    """Answers that this server can't be brought to give are given by the proxy in its words."""

    def test_a_full_queue_is_waited_for(
        self, behind: ElasticsearchStore, proxy: FaultProxy, collection: str
    ) -> None:
        proxy.use(on("chunks", Reply(429, {"type": "es_rejected_execution_exception"}), times=2))
        [result] = behind.write(collection, [write("a", "red")], refresh=True)
        assert isinstance(result, Written)
        assert bm25_ids(behind, collection, "red") == ["a:0"]

    def test_a_queue_that_stays_full_is_an_error_in_bounded_time(
        self, behind: ElasticsearchStore, proxy: FaultProxy, collection: str
    ) -> None:
        proxy.use(on("documents", Reply(429, {"type": "es_rejected_execution_exception"})))
        started = time.monotonic()
        [result] = behind.write(collection, [write("a", "red")])
        assert isinstance(result, StoreUnavailable)
        assert time.monotonic() - started < 10

    def test_a_real_disk_block_is_named_and_lifted(
        self, store: ElasticsearchStore, collection: str, prefix: str
    ) -> None:
        store.write(collection, [write("a", "red")], refresh=True)

        def block(on: bool | None) -> None:
            store._client.indices.put_settings(
                index=f"{prefix}.{collection}.*",
                settings={"index.blocks.read_only_allow_delete": on},
            )

        block(True)
        [refused] = store.write(collection, [write("a", "blue")])
        assert isinstance(refused, StoreFull)
        assert "disk" in refused.message
        assert bm25_ids(store, collection, "red") == ["a:0"]
        block(None)
        [written] = store.write(collection, [write("a", "blue")], refresh=True)
        assert isinstance(written, Written)
        assert bm25_ids(store, collection, "blue") == ["a:0"]

    @pytest.mark.parametrize(
        "reply",
        [
            Reply(401, {"type": "security_exception", "reason": "unable to authenticate"}),
            Reply(403, {"type": "security_exception", "reason": "action is unauthorized"}),
        ],
    )
    def test_wrong_credentials_are_named_and_never_shown(
        self, proxy: FaultProxy, reply: Reply, caplog: pytest.LogCaptureFixture
    ) -> None:
        host = proxy.url.removeprefix("http://")
        caplog.set_level("DEBUG")
        for refused in (
            ElasticsearchStore(f"http://elastic:geheim@{host}"),
            ElasticsearchStore(proxy.url, user="elastic", password="geheim"),
            ElasticsearchStore(proxy.url, api_key="geheim"),
        ):
            proxy.use(lambda _: reply)
            with pytest.raises(StoreUnavailable, match="credentials") as caught:
                refused.check()
            shown = "".join(traceback.format_exception(caught.value)) + repr(refused) + caplog.text
            assert "geheim" not in shown
            assert "Z2VoZWlt" not in shown  # in base 64
            refused.close()
        proxy.use(passing)

    def test_a_server_of_another_kind_is_named(self, proxy: FaultProxy) -> None:
        proxy.use(lambda _: Reply(404, "no such page"))
        other = ElasticsearchStore(proxy.url)
        with pytest.raises(TanyuanError) as caught:
            other.check()
        assert isinstance(caught.value, StoreUnavailable)
        other.close()
        proxy.use(passing)


def test_an_address_that_nobody_answers_at_is_passed_over(
    elasticsearch: Callable[[str], str], prefix: str, collection: str
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and not listening
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}"
        store = ElasticsearchStore(f"{dead},{elasticsearch(targets()[0])}", prefix=prefix)
        for number in range(20):
            [result] = store.write(collection, [write("a", f"red w{number}")], refresh=True)
            assert isinstance(result, Written)
            assert bm25_ids(store, collection, f"w{number}") == ["a:0"]
        store.close()


class TestCollectionsAtOnce:
    def test_one_of_many_creators_wins(self, store: ElasticsearchStore) -> None:
        name = f"c{uuid.uuid4().hex[:12]}"

        def create(_: int) -> str:
            try:
                store.create_collection(name, recipe=RECIPE)
            except CollectionExists:
                return "exists"
            return "created"

        with ThreadPoolExecutor(6) as pool:
            assert Counter(pool.map(create, range(6))) == {"created": 1, "exists": 5}
        store.delete_collection(name)

    def test_a_cut_off_create_is_taken_over(
        self, store: ElasticsearchStore, collection: str, prefix: str
    ) -> None:
        store._client.indices.delete(index=f"{prefix}.{collection}.chunks.000001")
        assert collection not in [found.name for found in store.collections()]
        made = store.create_collection(collection, recipe=RECIPE, description="again")
        assert made.description == "again"
        store.write(collection, [write("a", "red")], refresh=True)
        assert bm25_ids(store, collection, "red") == ["a:0"]


class TestQueries:
    def test_more_terms_than_the_node_takes(
        self, store: ElasticsearchStore, collection: str
    ) -> None:
        store.write(collection, [write("a", "red"), write("b", "blue blue")], refresh=True)
        many = tuple(f"w{number}" for number in range(20_000))
        clauses = (
            TextClause(field="words", terms=(*many, "red"), weight=0.5),
            TextClause(field="words", terms=("red", "blue"), weight=3.0),
        )
        legs = store.search(collection, LegsRequest(text=clauses, vector=unit(1)))
        assert legs.errors == {}
        assert legs.bm25 is not None
        assert {chunk for chunk, _ in legs.bm25.hits} == {"a:0", "b:0"}
        assert legs.vector is not None

    def test_the_deepest_page(self, store: ElasticsearchStore, collection: str) -> None:
        store.write(collection, [write(f"d{n}", "red") for n in range(30)], refresh=True)
        request = LegsRequest(text=words("red"), vector=unit(1), k=10_000)
        legs = store.search(collection, request)
        assert legs.errors == {}
        assert legs.bm25 is not None
        assert legs.vector is not None
        assert (len(legs.bm25.hits), len(legs.vector.hits)) == (30, 30)

    def test_one_leg_fails_alone(
        self, behind: ElasticsearchStore, store: ElasticsearchStore, collection: str, prefix: str
    ) -> None:
        """Past the server's limit of hits, text fails while kNN has a limit of its own."""
        store.write(collection, [write("a", "red")], refresh=True)
        store._client.indices.put_settings(
            index=f"{prefix}.{collection}.chunks", settings={"index.max_terms_count": 1}
        )
        store._client.indices.put_settings(
            index=f"{prefix}.{collection}.chunks", settings={"index.max_result_window": 10}
        )
        legs = store.search(collection, LegsRequest(text=words("red"), vector=unit(1), k=11))
        assert set(legs.errors) >= {"bm25"}
        legs = store.search(collection, LegsRequest(text=words("red"), vector=unit(1), k=10))
        assert legs.errors == {}


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with own_node() as running:
        yield running


class TestNode:
    """A node of our own, killed and stopped for real."""

    def test_every_acknowledged_document_survives_kill_9(self, node: Node) -> None:
        store = ElasticsearchStore(node.url, timeout=10)
        store.create_collection("killed", recipe=RECIPE)
        acknowledged: dict[str, int] = {}
        stop = threading.Event()

        def put(worker: int) -> None:
            number = 0
            while not stop.is_set():
                # Every third is written again with fewer chunks.
                name = f"w{worker}-{number - number % 3 // 2}"
                texts = [f"red {name} part{i}" for i in range(3 - number % 3)]
                batch = [write(name, *texts), write(f"{name}-b", f"red {name}-b part0")]
                number += 1
                try:
                    results = store.write("killed", batch)
                except StoreUnavailable:
                    continue
                for result in results:
                    if isinstance(result, Written):
                        acknowledged[result.document_id] = result.revision

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(put, worker) for worker in range(4)]
            time.sleep(2)
            node.kill()
            time.sleep(0.2)
            stop.set()
            for worker in running:
                worker.result(60)
        assert len(acknowledged) > 20
        node.start()
        states = store.states("killed", list(acknowledged))
        assert states.keys() == acknowledged.keys()
        store.refresh("killed")
        everything = bm25_ids(store, "killed", "red", k=10_000)
        assert max(Counter(everything).values()) == 1
        found = Counter(chunk.rpartition(":")[0] for chunk in everything)
        for name, revision in acknowledged.items():
            assert states[name].revision >= revision
            if states[name].revision == revision:
                assert states[name].complete
                assert found[name] == states[name].chunks, name
        # What was cut off is known as such, and mends by writing it again.
        names = [stored.document.id for stored in store.documents("killed")]
        broken = [n for n, state in store.states("killed", names).items() if not state.complete]
        results = store.write("killed", [write(name, "red") for name in broken], refresh=True)
        assert all(isinstance(result, Written) for result in results)
        assert all(state.complete for state in store.states("killed", names).values())
        assert store.collection("killed").documents == len(names)
        store.close()

    def test_a_node_that_hangs_is_a_timeout_in_bounded_time(self, node: Node) -> None:
        ElasticsearchStore(node.url).create_collection("hung", recipe=RECIPE)
        store = ElasticsearchStore(node.url, timeout=1)
        node.pause()
        try:
            for call in (
                lambda: store.search("hung", LegsRequest(text=words("red"))),
                lambda: store.document("hung", "a"),
                lambda: store.write("hung", [write("a", "red")]),
                store.check,
            ):
                started = time.monotonic()
                with pytest.raises(StoreTimeout):
                    call()
                assert time.monotonic() - started < 5
        finally:
            node.resume()
        store.close()

    def test_a_search_s_own_deadline_is_kept(self, node: Node) -> None:
        store = ElasticsearchStore(node.url)
        store.create_collection("late", recipe=RECIPE)
        store.live("late")
        node.pause()
        try:
            started = time.monotonic()
            with pytest.raises(StoreTimeout):
                store.search("late", LegsRequest(text=words("red"), seconds=0.5))
            assert time.monotonic() - started < 4
        finally:
            node.resume()
        store.close()

    def test_a_node_that_is_down_is_named_and_comes_back(self, node: Node) -> None:
        store = ElasticsearchStore(node.url, timeout=10)
        store.create_collection("down", recipe=RECIPE)
        store.write("down", [write("a", "red")])
        node.stop()
        for call in (
            store.check,
            store.collections,
            lambda: store.search("down", LegsRequest(text=words("red"))),
        ):
            with pytest.raises(StoreUnavailable, match="can't be reached"):
                call()
        node.start()
        assert node.version in store.check()
        assert vector_ids(store, "down", unit(1)) == ["a:0"]
        store.close()
