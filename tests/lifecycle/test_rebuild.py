"""Rebuilds and roll backs on real stores: what is made, taken over, kept, refused and resumed."""

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Document
from server.errors import (
    CollectionNotFound,
    GenerationNotFound,
    InvalidInput,
    RebuildFailed,
    RebuildRunning,
    Stopped,
)
from server.ingest.chunker import Chunker
from server.ingest.indexer import Indexer
from server.lifecycle.lock import KEY, ChangeLock
from server.lifecycle.progress import Rebuilds
from server.lifecycle.rebuild import Rebuilder
from server.live import LiveCollections
from server.models.contract import Embedder
from server.retrieval.query import SearchQuery
from server.retrieval.searcher import Searcher
from server.stores.contract import Store
from tests.fakes import FakeEmbedder, count_tokens, live_collections
from tests.lifecycle.load import fill
from tests.lifecycle.test_under_load import C, assert_is_whole

ANALYZER = JiebaAnalyzer()
OLD, NEW = FakeEmbedder(), FakeEmbedder(version="2", dimensions=24)


def served(
    store: Store, embedder: Embedder | None, chunker: Chunker | None = None
) -> LiveCollections:
    return live_collections(store, ANALYZER, embedder, chunker, others=[OLD, NEW])


def rebuilder(store: Store, embedder: Embedder | None, *, keep: int = 1) -> Rebuilder:
    return Rebuilder(store, served(store, embedder), keep=keep)


@pytest.fixture
def documents(store: Store) -> dict[str, Document]:
    """150 documents by the old embedder."""
    made = fill(Indexer(store, served(store, OLD)), C, 150)
    store.refresh(C)
    return made


def test_another_embedder(store: Store, documents: dict[str, Document]) -> None:
    before = store.live(C, fresh=True)
    record = rebuilder(store, NEW).rebuild(C, by="anna").run()
    assert (record.state, record.kind, record.by) == ("promoted", "rebuild", "anna")
    assert (record.done, record.total, record.replaced) == (150, 150, before.id)
    assert record.embedded == store.collection(C).chunks
    assert record.reused == 0
    assert_is_whole(store, documents, NEW)
    states = {each.id: each.state for each in store.generations.all(C)}
    assert states == {before.id: "kept", record.generation: "live"}
    assert Rebuilds(store.notes, C).all() == [record]
    assert store.notes.get(C, KEY) is None


def test_a_change_of_the_mapping_alone_embeds_nothing(store: Store) -> None:
    embedder = FakeEmbedder(version="mapping")
    live = live_collections(store, ANALYZER, embedder)
    store.create_collection(C, recipe=replace(live.own, mapping=live.own.mapping - 1))
    documents = fill(Indexer(store, live), C, 60)
    store.refresh(C)
    embedder.calls.clear()
    record = Rebuilder(store, live).rebuild(C, by="test").run()
    assert embedder.calls == []
    assert (record.embedded, record.reused) == (0, store.collection(C).chunks)
    assert store.live(C, fresh=True).recipe == live.own
    assert_is_whole(store, documents, embedder)


def test_other_chunks_take_over_the_vectors_of_those_that_stay(store: Store) -> None:
    embedder = FakeEmbedder(version="chunks")
    narrow, wide = Chunker(count_tokens, 40), Chunker(count_tokens, 200)
    indexer = Indexer(store, live_collections(store, ANALYZER, embedder, wide))
    indexer.ensure_collection(C)
    long = "\n\n".join(
        f"第{n}条说明出差的人如何报销住宿与交通的费用并在何时提交。" for n in range(8)
    )
    short = "年休假五天。"
    given = {
        name: Document.create(id=name, text=text) for name, text in (("a", long), ("b", short))
    }
    indexer.put(C, list(given.values()))
    embedder.calls.clear()
    live = live_collections(store, ANALYZER, embedder, narrow)
    record = Rebuilder(store, live).rebuild(C, by="test").run()
    assert short not in embedder.texts
    assert record.reused == 1
    assert record.embedded == len(embedder.texts) > 3
    assert_is_whole(store, given, embedder)


def test_a_running_process_follows_a_promotion_and_a_roll_back(
    open_store: Callable[[], Store], store: Store, documents: dict[str, Document]
) -> None:
    """Though its setting names the old embedder: it served the collection when it was promoted."""
    other = open_store()
    live = served(other, OLD)
    indexer, searcher = Indexer(other, live), Searcher(store=other, live=live, reranker=None)
    query = SearchQuery(query="差旅报销", collection=C, mode="vector", rerank=False)
    assert searcher.search(query, groups=None).hits

    rebuilder(store, NEW).rebuild(C, by="test").run()
    assert searcher.search(query, groups=None).hits
    added = Document.create(id="added", text="促销之后写入的文件。")
    indexer.put(C, [added], refresh=True)
    assert live.open(C, fresh=True).embedder is NEW

    rebuilder(store, NEW).roll_back(C, by="test").run()
    assert searcher.search(query, groups=None).hits
    later = Document.create(id="later", text="回退之后写入的文件。")
    indexer.put(C, [later], refresh=True)
    assert live.open(C, fresh=True).embedder is OLD
    assert_is_whole(store, {**documents, "added": added, "later": later}, OLD)


def test_a_roll_back_loses_nothing_written_since(
    store: Store, documents: dict[str, Document]
) -> None:
    first = store.live(C, fresh=True).id
    rebuilder(store, NEW).rebuild(C, by="test").run()
    indexer = Indexer(store, served(store, NEW))
    changed = Document.create(id="d0", text="改过的文件。")
    indexer.put(C, [changed])
    indexer.delete(C, "d1")
    record = rebuilder(store, NEW).roll_back(C, by="test", to=first).run()
    assert (record.kind, record.generation, record.state) == ("rollback", first, "promoted")
    left = {name: each for name, each in documents.items() if name != "d1"}
    assert_is_whole(store, {**left, "d0": changed}, OLD)


def test_old_generations_are_kept_as_asked(store: Store, documents: dict[str, Document]) -> None:
    def kept() -> list[str]:
        return [each.id for each in store.generations.all(C) if each.state == "kept"]

    ids = [store.live(C, fresh=True).id]
    for keep, expected in ((2, 1), (2, 2), (2, 2), (1, 1), (0, 0)):
        ids.append(rebuilder(store, OLD, keep=keep).rebuild(C, by="test").run().generation)
        assert kept() == ids[:-1][len(ids) - 1 - expected :]
    with pytest.raises(GenerationNotFound, match="kept: none"):
        rebuilder(store, OLD).roll_back(C, by="test")
    assert sorted(ids) == ids
    assert len(set(ids)) == len(ids)


def test_the_generation_just_replaced_is_the_last_to_go(
    store: Store, documents: dict[str, Document]
) -> None:
    first = store.live(C, fresh=True).id
    made = rebuilder(store, OLD).rebuild(C, by="test").run().generation
    rebuilder(store, OLD).roll_back(C, by="test").run()
    rebuilder(store, OLD).rebuild(C, by="test").run()
    assert [each.id for each in store.generations.all(C) if each.state == "kept"] == [first]
    with pytest.raises(GenerationNotFound, match=f"{made}.*kept: {first}"):
        rebuilder(store, OLD).roll_back(C, by="test", to=made)


def test_one_at_a_time(store: Store, documents: dict[str, Document]) -> None:
    work = rebuilder(store, NEW).rebuild(C, by="test")
    with pytest.raises(RebuildRunning, match="is being changed already"):
        rebuilder(store, NEW).rebuild(C, by="other")
    with pytest.raises(RebuildRunning):
        rebuilder(store, NEW).roll_back(C, by="other")
    assert work.run().state == "promoted"


def test_a_missing_collection(store: Store) -> None:
    with pytest.raises(CollectionNotFound):
        rebuilder(store, NEW).rebuild("missing", by="test")


def test_what_was_cut_off_is_gone_on_with(store: Store, documents: dict[str, Document]) -> None:
    cut_off = rebuilder(store, NEW).rebuild(C, by="test")
    cut_off.close()
    again = rebuilder(store, NEW).rebuild(C, by="test")
    assert again.record.id == cut_off.record.id
    assert again.run().state == "promoted"
    assert_is_whole(store, documents, NEW)


def test_what_was_cut_off_with_other_settings_is_dropped_or_resumed_as_begun(
    store: Store, documents: dict[str, Document]
) -> None:
    rebuilder(store, NEW).rebuild(C, by="test").close()
    other = rebuilder(store, OLD).rebuild(C, by="test")
    assert [each.state for each in store.generations.all(C)] == ["live", "building"]
    states = {each.id: each.state for each in Rebuilds(store.notes, C).all()}
    assert sorted(states.values()) == ["abandoned", "filling"]
    other.close()
    resumed = rebuilder(store, NEW).rebuild(C, by="test", resume=True)
    assert resumed.record.id == other.record.id
    resumed.run()
    assert_is_whole(store, documents, OLD)
    with pytest.raises(InvalidInput, match="no rebuild that was cut off"):
        rebuilder(store, NEW).rebuild(C, by="test", resume=True)


def test_abandon_leaves_nothing(store: Store, documents: dict[str, Document]) -> None:
    cut_off = rebuilder(store, NEW).rebuild(C, by="test")
    cut_off.close()
    [given_up] = rebuilder(store, NEW).abandon(C)
    assert (given_up.id, given_up.state) == (cut_off.record.id, "abandoned")
    assert [each.state for each in store.generations.all(C)] == ["live"]
    assert rebuilder(store, NEW).abandon(C) == []
    assert_is_whole(store, documents, OLD)


def test_a_rebuild_that_runs_stops_when_it_is_abandoned(
    open_store: Callable[[], Store], store: Store, documents: dict[str, Document]
) -> None:
    class Slow(FakeEmbedder):
        started = threading.Event()

        def embed_documents(self, texts):  # type: ignore[no-untyped-def]
            self.started.set()
            threading.Event().wait(0.6)  # longer than the record is kept back
            return super().embed_documents(texts)

    slow = Slow(version="slow")
    work = Rebuilder(store, live_collections(store, ANALYZER, slow)).rebuild(C, by="test")
    ended: list[BaseException] = []

    def run() -> None:
        try:
            work.run()
        except Stopped as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert slow.started.wait(30)
    [given_up] = rebuilder(open_store(), OLD).abandon(C)
    thread.join()
    assert given_up.id == work.record.id
    assert len(ended) == 1
    assert [each.state for each in store.generations.all(C)] == ["live"]
    assert_is_whole(store, documents, OLD)


def test_documents_that_cant_be_embedded_fail_it_by_name_and_it_can_go_on(
    store: Store, documents: dict[str, Document]
) -> None:
    bad = FakeEmbedder(version="bad")
    bad.poison = {"（d7）"}
    live = live_collections(store, ANALYZER, bad)
    with pytest.raises(RebuildFailed, match=r"1 documents can't be derived \('d7'"):
        Rebuilder(store, live).rebuild(C, by="test").run()
    [record] = Rebuilds(store.notes, C).all()
    assert record.state == "failed"
    assert "'d7'" in record.error
    assert_is_whole(store, documents, OLD)
    bad.poison = set()
    embedded = len(bad.texts)
    again = Rebuilder(store, live).rebuild(C, by="test", resume=True).run()
    assert again.id == record.id
    assert len(bad.texts) - embedded < 20
    assert_is_whole(store, documents, bad)


def test_without_an_embedder_and_back(store: Store, documents: dict[str, Document]) -> None:
    rebuilder(store, None).rebuild(C, by="test").run()
    assert store.live(C, fresh=True).recipe.dimensions == 0
    rebuilder(store, OLD).rebuild(C, by="test").run()
    assert_is_whole(store, documents, OLD)


def test_a_lock_is_taken_over_from_the_dead(store: Store, documents: dict[str, Document]) -> None:
    with ChangeLock(store.notes, C).held("rebuild"):
        note = store.notes.get(C, KEY)
    assert note is not None
    boot, _, _ = note.value["process"].split()
    # A process of this machine that is gone: at once.
    store.notes.put(C, KEY, {**note.value, "process": f"{boot} 99999999 1"})
    lock = ChangeLock(store.notes, C, stale_seconds=0.5)
    assert lock.holder() == ""
    with lock.held("rebuild"):
        assert lock.holder() == "rebuild"
    # One of another machine, whose beat stands still.
    store.notes.put(C, KEY, {**note.value, "process": "elsewhere 1 1"})
    with lock.held("rebuild") as lease:
        lease.check()


def test_who_lost_the_lock_notices(store: Store, documents: dict[str, Document]) -> None:
    lock = ChangeLock(store.notes, C, beat_seconds=0.05)
    with lock.held("rebuild") as lease:
        note = store.notes.get(C, KEY)
        assert note is not None
        store.notes.put(C, KEY, {**note.value, "token": "another"})
        deadline = threading.Event()
        for _ in range(100):
            if lease.lost:
                break
            deadline.wait(0.05)
        with pytest.raises(RebuildRunning, match="taken over"):
            lease.check()
    left = store.notes.get(C, KEY)
    assert left is not None
    assert left.value["token"] == "another"
