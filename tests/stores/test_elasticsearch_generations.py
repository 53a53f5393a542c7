"""Generations on Elasticsearch when something gets in between, and collections of older versions."""

import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from server.documents import Document
from server.errors import (
    Fenced,
    FenceLost,
    GenerationChanged,
    RecipeMismatch,
    StoreUnavailable,
)
from server.recipes import Recipe
from server.stores.contract import Deleted, Write, Written
from server.stores.elasticsearch.changes import Target, put_operations
from server.stores.elasticsearch.indices import chunks_mapping, mapping
from server.stores.elasticsearch.store import ElasticsearchStore
from server.stores.generations import Generation
from tests.services.elasticsearch import targets
from tests.stores.builders import NEXT_RECIPE, RECIPE, derivation, derived, write
from tests.stores.fault_proxy import Action, FaultProxy, Request, fault_proxy, passing
from tests.stores.generation_contract import GenerationSteps


@pytest.fixture(scope="module")
def prefix() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def url(elasticsearch: Callable[[str], str]) -> str:
    return elasticsearch(targets()[0])


@pytest.fixture(scope="module")
def store(url: str, prefix: str) -> Iterator[ElasticsearchStore]:
    opened = ElasticsearchStore(url, prefix=prefix)
    yield opened
    for collection in opened.collections():
        opened.delete_collection(collection.name)
    opened.close()


@pytest.fixture(scope="module")
def proxy(url: str) -> Iterator[FaultProxy]:
    with fault_proxy(url) as running:
        yield running


@pytest.fixture
def behind(proxy: FaultProxy, prefix: str) -> Iterator[ElasticsearchStore]:
    """The same store, its requests going through the proxy."""
    proxy.use(passing)
    opened = ElasticsearchStore(proxy.url, prefix=prefix, timeout=20)
    yield opened
    proxy.use(passing)
    opened.close()


def on(matches: Callable[[Request], bool], action: Action) -> Callable[[Request], Action]:
    """The action on the first request that matches."""
    left = [True]

    def rule(request: Request) -> Action:
        if left[0] and matches(request):
            left[0] = False
            return action
        return "pass"

    return rule


def to(index: str) -> Callable[[Request], bool]:
    return lambda request: request.writes == index


def completes(request: Request) -> bool:
    return request.writes == "documents" and '"complete":true' in request.body


class TestLateWriters(GenerationSteps):
    """A writer that is held up while another generation becomes live."""

    def late(
        self,
        proxy: FaultProxy,
        matches: Callable[[Request], bool],
        call: Callable[[], object],
        meanwhile: Callable[[], object],
    ) -> object:
        release = threading.Event()
        proxy.use(on(matches, release))
        with ThreadPoolExecutor(1) as pool:
            late: Future[object] = pool.submit(call)
            assert proxy.held.wait(30)
            try:
                meanwhile()
            finally:
                release.set()
            return late.result(60)

    @pytest.mark.parametrize("text", ["blue\nblue", "blue", ""])
    def test_before_its_chunks(
        self,
        store: ElasticsearchStore,
        behind: ElasticsearchStore,
        proxy: FaultProxy,
        collection: str,
        text: str,
    ) -> None:
        """Claimed before the fence: the new generation has it, and the writer is told to try again."""
        self.documents(store, collection, ["a", "b"], "red\nred")
        key = behind.live(collection).key
        given = self.written("a", text, RECIPE)
        results = self.late(
            proxy,
            to("chunks"),
            lambda: behind.write(collection, [given], key=key),
            lambda: self.rebuilt(store, collection),
        )
        assert isinstance(results, list)
        [error] = results
        assert isinstance(error, GenerationChanged)
        assert (error.claimed, error.created) == (2, False)
        assert store.document(collection, "a").document.text == text
        self.check_live(store, collection)
        assert self.again(store, collection, given, error).revision == 3
        self.check_live(store, collection)

    def test_a_new_document_before_its_chunks(
        self,
        store: ElasticsearchStore,
        behind: ElasticsearchStore,
        proxy: FaultProxy,
        collection: str,
    ) -> None:
        key = behind.live(collection).key
        given = self.written("a", "blue", RECIPE)
        results = self.late(
            proxy,
            to("chunks"),
            lambda: behind.write(collection, [given, given], key=key),
            lambda: self.rebuilt(store, collection),
        )
        assert isinstance(results, list)
        first, second = results
        assert isinstance(first, GenerationChanged)
        assert isinstance(second, GenerationChanged)
        assert (first.claimed, first.created) == (1, True)
        assert second.claimed is None
        assert self.again(store, collection, given, first).status == "created"
        assert self.again(store, collection, given, second).revision == 3
        self.check_live(store, collection)

    def test_after_its_chunks(
        self,
        store: ElasticsearchStore,
        behind: ElasticsearchStore,
        proxy: FaultProxy,
        collection: str,
    ) -> None:
        """Its chunks were taken before the fence, so that the write succeeds and is in both."""
        self.documents(store, collection, ["a", "b"], "red\nred\nred")
        old = behind.live(collection)
        given = self.written("a", "blue", RECIPE)
        results = self.late(
            proxy,
            completes,
            lambda: behind.write(collection, [given], key=old.key),
            lambda: self.rebuilt(store, collection),
        )
        assert isinstance(results, list)
        assert isinstance(results[0], Written)
        self.check_live(store, collection)
        assert store.generations.pending_count(collection, old.id) == 0
        self.check_level(store, collection, old.id, RECIPE)

    @pytest.mark.parametrize("matches", [to("chunks"), completes])
    def test_a_delete(
        self,
        store: ElasticsearchStore,
        behind: ElasticsearchStore,
        proxy: FaultProxy,
        collection: str,
        matches: Callable[[Request], bool],
    ) -> None:
        self.documents(store, collection, ["a", "b"], "red\nred")
        result = self.late(
            proxy,
            matches,
            lambda: behind.delete(collection, "a"),
            lambda: self.rebuilt(store, collection),
        )
        assert isinstance(result, Deleted)
        assert result.chunks == 2
        self.check_live(store, collection)
        self.documents(store, collection, ["a"], "green")
        self.check_live(store, collection)

    def test_a_delete_that_begins_after_the_last_look(
        self,
        store: ElasticsearchStore,
        behind: ElasticsearchStore,
        proxy: FaultProxy,
        collection: str,
    ) -> None:
        """Its claim comes when nothing is pending any more: the delete goes after the promotion."""
        self.documents(store, collection, ["a", "b"], "red\nred")
        made = store.generations.create(collection, recipe=NEXT_RECIPE)
        self.level(store, collection, made.id, NEXT_RECIPE)
        store.generations.settle(collection, made.id)

        def promote() -> None:
            fence = store.generations.fence(collection)
            self.level(store, collection, made.id, NEXT_RECIPE)
            store.generations.promote(collection, made.id, fence=fence)

        result = self.late(proxy, to("documents"), lambda: behind.delete(collection, "a"), promote)
        assert isinstance(result, Deleted)
        self.check_live(store, collection)

    def test_an_empty_document_that_begins_after_the_last_look(
        self,
        store: ElasticsearchStore,
        behind: ElasticsearchStore,
        proxy: FaultProxy,
        collection: str,
    ) -> None:
        self.documents(store, collection, ["a", "b"], "red\nred")
        key = behind.live(collection).key
        given = self.written("a", "", RECIPE)
        results = self.late(
            proxy,
            to("documents"),
            lambda: behind.write(collection, [given], key=key),
            lambda: self.rebuilt(store, collection),
        )
        assert isinstance(results, list)
        [error] = results
        assert isinstance(error, GenerationChanged)
        self.again(store, collection, given, error)
        self.check_live(store, collection)

    def test_a_late_write_of_an_older_edition_loses(
        self,
        store: ElasticsearchStore,
        behind: ElasticsearchStore,
        proxy: FaultProxy,
        collection: str,
    ) -> None:
        """A dictionary change derives what a writer has claimed; then its chunks are refused, and
        what was derived stays."""
        recipe = replace(RECIPE, analyzer="test-2", dictionary=1)
        self.documents(store, collection, ["a"], "red")
        old = behind.live(collection)
        given = self.written("a", "blue", RECIPE)

        def restamp() -> None:
            generations = store.generations
            fence = generations.fence(collection)
            [pending] = generations.pending(collection, old.id)
            put = derivation(pending, recipe)
            assert generations.derive(collection, old.id, [put], edition=2) == [True]
            generations.restamp(collection, recipe, fence=fence, edition=2)

        results = self.late(
            proxy,
            to("chunks"),
            lambda: behind.write(collection, [given], key=old.key),
            restamp,
        )
        assert isinstance(results, list)
        assert isinstance(results[0], GenerationChanged)
        self.check_live(store, collection)

    def test_a_removed_generation_does_not_come_back(
        self,
        store: ElasticsearchStore,
        behind: ElasticsearchStore,
        proxy: FaultProxy,
        collection: str,
        prefix: str,
    ) -> None:
        """Elasticsearch makes an index for a late delete; it is no generation, and swept away."""
        self.documents(store, collection, ["a"], "red\nred")
        old = behind.live(collection)
        given = self.written("a", "blue", RECIPE)

        def replaced() -> None:
            self.rebuilt(store, collection)
            store.generations.drop(collection, old.id)

        def deletes(request: Request) -> bool:
            return request.writes == "chunks" and '"delete"' in request.body

        results = self.late(
            proxy, deletes, lambda: behind.write(collection, [given], key=old.key), replaced
        )
        assert isinstance(results, list)
        assert isinstance(results[0], Written)
        assert [found.id for found in store.generations.all(collection)] == ["000002"]
        self.check_live(store, collection)

        def indices() -> list[str]:
            return sorted(store._client.indices.get(index=f"{prefix}.{collection}.chunks*").body)

        live = f"{prefix}.{collection}.chunks.000002"
        assert indices() == [f"{prefix}.{collection}.chunks.000001", live]
        store.generations.drop(collection, old.id)
        assert indices() == [live]


class TestFences(GenerationSteps):
    def test_of_many_fences_one_stands(self, store: ElasticsearchStore, collection: str) -> None:
        def fence(_: int) -> str:
            try:
                return store.generations.fence(collection)
            except Fenced:
                return ""

        with ThreadPoolExecutor(6) as pool:
            tokens = list(filter(None, pool.map(fence, range(6))))
        assert [store.live(collection, fresh=True).fence] == tokens
        assert store.generations.lift(collection, tokens[0])

    def test_of_a_promotion_and_a_lift_at_once_one_happens(
        self, store: ElasticsearchStore, collection: str
    ) -> None:
        for _ in range(5):
            live = store.live(collection, fresh=True)
            made = store.generations.create(collection, recipe=NEXT_RECIPE)
            store.generations.settle(collection, made.id)
            fence = store.generations.fence(collection)

            def promote(made: Generation = made, fence: str = fence) -> bool:
                try:
                    store.generations.promote(collection, made.id, fence=fence)
                except FenceLost:
                    return False
                return True

            with ThreadPoolExecutor(2) as pool:
                promoting = pool.submit(promote)
                lifting = pool.submit(store.generations.lift, collection, fence)
                promoted, lifted = promoting.result(30), lifting.result(30)
            assert promoted is not lifted
            now = store.live(collection, fresh=True)
            assert (now.id, now.fence) == (made.id if promoted else live.id, "")

    def test_a_fence_of_a_killed_process_is_lifted_by_who_waits(
        self, store: ElasticsearchStore, collection: str, url: str, prefix: str
    ) -> None:
        self.documents(store, collection, ["a"], "red")
        made = store.generations.create(collection, recipe=NEXT_RECIPE)
        program = (
            "import os, signal, sys\n"
            "from server.stores.elasticsearch.store import ElasticsearchStore\n"
            "store = ElasticsearchStore(sys.argv[1], prefix=sys.argv[2])\n"
            "print(store.generations.fence(sys.argv[3]), flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", program, url, prefix, collection],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        fence = ended.stdout.strip()
        assert store.live(collection, fresh=True).fence == fence
        assert store.delete(collection, "a").chunks == 1
        assert store.live(collection, fresh=True).fence == ""
        with pytest.raises(FenceLost):
            store.generations.promote(collection, made.id, fence=fence)
        self.check_live(store, collection)

    def test_a_fence_whose_answer_is_lost_does_not_stand(
        self,
        store: ElasticsearchStore,
        behind: ElasticsearchStore,
        proxy: FaultProxy,
        collection: str,
    ) -> None:
        behind.live(collection)
        proxy.use(on(lambda request: "/_aliases" in request.path, "lose answer"))
        with pytest.raises(StoreUnavailable):
            behind.generations.fence(collection)
        assert store.live(collection, fresh=True).fence == ""
        self.put(store, collection, write("a", "red"))

    @pytest.mark.parametrize("action", ["lose request", "lose answer"])
    def test_a_promotion_whose_answer_is_lost_is_whole(
        self,
        store: ElasticsearchStore,
        behind: ElasticsearchStore,
        proxy: FaultProxy,
        collection: str,
        action: Action,
    ) -> None:
        self.documents(store, collection, ["a"], "red")
        old = store.live(collection)
        made = store.generations.create(collection, recipe=NEXT_RECIPE)
        self.level(store, collection, made.id, NEXT_RECIPE)
        store.generations.settle(collection, made.id)
        fence = store.generations.fence(collection)
        proxy.use(on(lambda request: "/_aliases" in request.path, action))
        with pytest.raises(StoreUnavailable):
            behind.generations.promote(collection, made.id, fence=fence)
        promoted = action == "lose answer"
        live = store.live(collection, fresh=True)
        assert (live.id, live.fence) == ((made.id, "") if promoted else (old.id, fence))
        assert store.generations.lift(collection, fence) is not promoted
        self.documents(store, collection, ["b"], "blue")
        self.check_live(store, collection)


class TestGenerationsAtOnce(GenerationSteps):
    def test_of_many_creators_each_has_an_id_of_its_own(
        self, store: ElasticsearchStore, collection: str
    ) -> None:
        def create(_: int) -> str:
            return store.generations.create(collection, recipe=NEXT_RECIPE).id

        with ThreadPoolExecutor(4) as pool:
            ids = list(pool.map(create, range(4)))
        assert len(set(ids)) == 4
        assert {found.id for found in store.generations.all(collection)} == {"000001", *ids}

    @pytest.mark.parametrize("action", ["lose request", "lose answer"])
    def test_a_cut_off_drop_is_finished(
        self,
        store: ElasticsearchStore,
        behind: ElasticsearchStore,
        proxy: FaultProxy,
        collection: str,
        prefix: str,
        action: Action,
    ) -> None:
        made = store.generations.create(collection, recipe=NEXT_RECIPE)
        proxy.use(on(lambda request: request.method == "DELETE", action))
        with pytest.raises(StoreUnavailable):
            behind.generations.drop(collection, made.id)
        assert [found.id for found in store.generations.all(collection)] == ["000001"]
        store.generations.drop(collection, made.id)
        indices = store._client.indices.get(index=f"{prefix}.{collection}.chunks*").body
        assert list(indices) == [f"{prefix}.{collection}.chunks.000001"]


class TestExtents(GenerationSteps):
    @pytest.mark.parametrize("seed", range(3))
    def test_no_chunk_is_left_however_many_each_generation_has(
        self, store: ElasticsearchStore, collection: str, seed: int
    ) -> None:
        """Random changes where each generation's chunker makes another number of chunks."""
        random = Random(seed)
        names = ["a", "b", "c"]
        there: set[str] = set()
        expected: dict[str, dict[str, int]] = {"000001": {}}  # by generation and document

        def document(name: str, chunks: int) -> Document:
            return Document.create(id=name, text="\n".join(["red"] * chunks))

        def derive(generation: str, recipe: Recipe) -> None:
            for pending in store.generations.pending(collection, generation):
                count = random.randrange(6) if pending.document else 0
                made = derived(document(pending.document_id, count), recipe)
                put = replace(derivation(pending, recipe), chunks=made)
                if pending.document is None:
                    put = replace(put, chunks=())
                assert self.derive(store, collection, generation, [put]) == [True]
                expected[generation][pending.document_id] = count

        for _ in range(60):
            live = store.live(collection)
            others = [each for each in store.generations.all(collection) if each.id != live.id]
            match random.randrange(7):
                case 0 | 1 | 2:
                    name, count = random.choice(names), random.randrange(6)
                    made = document(name, count)
                    given = Write(document=made, chunks=derived(made, live.recipe))
                    self.put(store, collection, given)
                    there.add(name)
                    expected[live.id][name] = count
                case 3 if there:
                    name = random.choice(sorted(there))
                    store.delete(collection, name)
                    there.remove(name)
                    expected[live.id][name] = 0
                case 4 if others:
                    derive(others[0].id, others[0].recipe)
                case 5 if others:
                    derive(others[0].id, others[0].recipe)
                    fence = store.generations.fence(collection)
                    store.generations.promote(collection, others[0].id, fence=fence)
                case 6 if len(others) > 1 or (random.randrange(2) and others):
                    store.generations.drop(collection, others[-1].id)
                    del expected[others[-1].id]
                case _:
                    recipe = random.choice([RECIPE, NEXT_RECIPE])
                    made_id = store.generations.create(collection, recipe=recipe).id
                    expected[made_id] = {}
            for generation, counts in expected.items():
                found = store.generations.chunks(collection, generation, names)
                assert {name: len(chunks) for name, chunks in found.items()} == {
                    name: count for name, count in counts.items() if count
                }
            live = store.live(collection)
            states = store.states(collection, names)
            assert states.keys() == there
            for name, state in states.items():
                assert state.complete
                assert state.chunks == expected[live.id][name]


class TestFilling(GenerationSteps):
    def test_settings_are_those_of_filling_until_it_settles(
        self, store: ElasticsearchStore, collection: str, prefix: str
    ) -> None:
        made = store.generations.create(collection, recipe=NEXT_RECIPE)
        index = f"{prefix}.{collection}.chunks.{made.id}"

        def settings() -> dict[str, str]:
            return dict(store._client.indices.get_settings(index=index)[index]["settings"]["index"])

        assert settings()["refresh_interval"] == "-1"
        store.generations.settle(collection, made.id)
        assert "refresh_interval" not in settings()
        store.generations.settle(collection, made.id)

    def test_copies_that_no_node_can_take_are_not_waited_for(self, url: str, prefix: str) -> None:
        store = ElasticsearchStore(url, prefix=prefix, replicas=1)
        name = f"c{uuid.uuid4().hex[:12]}"
        store.create_collection(name, recipe=RECIPE)
        made = store.generations.create(name, recipe=NEXT_RECIPE)
        started = time.monotonic()
        store.generations.settle(name, made.id)
        assert time.monotonic() - started < 20
        store.delete_collection(name)
        store.close()


class TestOlderVersions(GenerationSteps):
    """A collection as the first released version made it, before there were generations to build."""

    @pytest.fixture(params=targets())
    def store(
        self, request: pytest.FixtureRequest, elasticsearch: Callable[[str], str]
    ) -> Iterator[ElasticsearchStore]:
        opened = ElasticsearchStore(
            elasticsearch(request.param), prefix=f"test-{uuid.uuid4().hex[:12]}"
        )
        yield opened
        for collection in opened.collections():
            opened.delete_collection(collection.name)
        opened.close()

    @pytest.fixture
    def collection(self, store: ElasticsearchStore) -> str:
        """Documents a and b, b deleted; c, whose write was cut off after its claim; d, empty."""
        base = f"{store._prefix}.older"
        documents = mapping("documents")
        for later in ("levels", "counts"):
            del documents["properties"][later]
        chunks = chunks_mapping(RECIPE) | {"_meta": {"recipe": released(RECIPE)}}
        for name, made in (
            ("documents", documents | {"_meta": {"description": "旧"}}),
            ("chunks", chunks),
        ):
            alias = f"{base}.{name}"
            aliases: dict[str, dict[str, Any]] = {alias: {"is_write_index": True}}
            store._client.indices.create(index=f"{alias}.000001", aliases=aliases, mappings=made)
        for name, text, deleted, complete in (
            ("a", "red\nred", False, True),
            ("b", "", True, True),
            ("c", "red", False, False),
            ("d", "", False, True),
        ):
            self.record(store, base, name, text, deleted=deleted, complete=complete)
        store._client.indices.refresh(index=f"{base}.*")
        return "older"

    def record(
        self,
        store: ElasticsearchStore,
        base: str,
        name: str,
        text: str,
        *,
        deleted: bool,
        complete: bool,
    ) -> None:
        document = Document.create(id=name, text=text, title="title")
        made = () if deleted else derived(document, RECIPE)
        record: dict[str, Any] = {
            "id": name,
            "revision": 3,
            "content_hash": "" if deleted else document.content_hash,
            "chunks": len(made),
            "extent": len(made),
            "complete": complete,
            "deleted": deleted,
            "updated_at": "2026-01-01T00:00:00+00:00",
            "bytes": 100,
        }
        if not deleted:
            record["document"] = document.as_json()
        store._client.index(index=f"{base}.documents", id=name, document=record)
        target = Target(generation="000001", edition=0, index="", alias="")
        for operation in put_operations(document, made if complete else (), 3, target):
            store._client.index(
                index=f"{base}.chunks",
                id=operation.meta["_id"],
                version=3,
                version_type="external_gte",
                document=operation.body,
            )

    def test_is_upgraded_at_its_first_use(self, store: ElasticsearchStore, collection: str) -> None:
        [listed] = store.collections()
        assert (listed.description, listed.recipe, listed.documents) == ("旧", RECIPE, 3)
        live = store.live(collection)
        assert (live.id, live.edition, live.recipe, live.state) == ("000001", 1, RECIPE, "live")
        assert store.collection(collection) == listed
        assert [found.id for found in store.generations.all(collection)] == [live.id]
        states = store.states(collection, ["a", "b", "c", "d"])
        assert {name: state.complete for name, state in states.items()} == {
            "a": True,
            "c": False,
            "d": True,
        }
        assert states["a"].chunks == 2
        assert store.notes.get(collection, "lock") is None
        assert store.notes.put(collection, "lock", {"by": "me"}, expected=0).version == 1
        pending = store.generations.pending(collection, live.id)
        assert [each.document_id for each in pending] == ["c"]

    def test_is_written_to(self, store: ElasticsearchStore, collection: str) -> None:
        live = store.live(collection)
        results = store.write(
            collection,
            [self.written("a", "blue", RECIPE), self.written("c", "green", RECIPE)],
            key=live.key,
        )
        assert all(isinstance(result, Written) and result.revision == 4 for result in results)
        store.delete(collection, "d")
        self.check_live(store, collection)

    def test_is_rebuilt_and_rolled_back(self, store: ElasticsearchStore, collection: str) -> None:
        old = store.live(collection)
        made = store.generations.create(collection, recipe=NEXT_RECIPE)
        found = list(store.generations.pending(collection, made.id))
        assert [each.document_id for each in found] == ["a", "b", "c", "d"]
        assert [each.document is None for each in found] == [False, True, False, False]
        self.promote(store, collection, made.id, NEXT_RECIPE)
        self.check_live(store, collection)
        assert [each.document_id for each in store.generations.pending(collection, old.id)] == ["c"]
        self.documents(store, collection, ["b"], "green")
        self.promote(store, collection, old.id, RECIPE)
        self.check_live(store, collection)

    def test_is_upgraded_by_many_at_once(self, store: ElasticsearchStore, collection: str) -> None:
        opened = [
            ElasticsearchStore(store._client.addresses, prefix=store._prefix) for _ in range(4)
        ]

        key = f"000001.1.{RECIPE.hash}"

        def put(number: int) -> object:
            [result] = opened[number].write(
                collection, [self.written(f"n{number}", "red", RECIPE)], key=key
            )
            return result

        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(put, range(4)))
        assert all(isinstance(result, Written) for result in results), results
        for each in opened:
            each.close()

    def test_a_recipe_that_can_t_be_read_is_named(self, store: ElasticsearchStore) -> None:
        store.create_collection("odd", recipe=RECIPE)
        index = f"{store._prefix}.odd.chunks"
        store._client.indices.put_mapping(index=index, meta={"recipes": {"1": {"odd": 1}}})
        with pytest.raises(RecipeMismatch, match="odd"):
            store.live("odd", fresh=True)
        recipes = {"recipes": {"1": RECIPE.as_json()}}
        store._client.indices.put_mapping(index=index, meta=recipes)


def released(recipe: Recipe) -> dict[str, Any]:
    """A recipe as the first version stamped it."""
    later = ("model", "dictionary")
    return {name: value for name, value in recipe.as_json().items() if name not in later}
