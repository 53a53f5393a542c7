"""Verify on real stores: planted damage is found by its kind and mended, and a healthy store is silent."""

import threading
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Protocol

import elasticsearch
import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Document, passage_text
from server.errors import CollectionNotFound, TanyuanError
from server.ingest.chunker import Chunker
from server.ingest.indexer import Indexer
from server.lifecycle.findings import Kind
from server.lifecycle.mend import Mender
from server.lifecycle.suspects import Patience
from server.lifecycle.verify import Report, Seen, verify
from server.live import LiveCollections
from server.stores.contract import LegsRequest, Store, TextClause
from server.stores.elasticsearch.store import ElasticsearchStore
from server.stores.embedded.store import EmbeddedStore
from server.stores.filters import Terms
from tests.fakes import FakeEmbedder, FakeSparseEmbedder, count_tokens, live_collections
from tests.lifecycle.damage import VERSION, ElasticsearchDamage, EmbeddedDamage
from tests.services.elasticsearch import targets

ANALYZER = JiebaAnalyzer()
C, W = "handbook", "windows"
QUICK = Patience(looks=3, seconds=0.3, unfinished=0.9)
POSITION = 1  # of the chunk of document "a" that is damaged


class Damage(Protocol):
    def plant(self, kind: Kind, document_id: str, position: int) -> None: ...


@dataclass
class Place:
    """A collection on one kind of store. ``open``: another process's view of it."""

    open: Callable[[], Store]
    damage: Callable[..., Damage]
    embedder: FakeEmbedder
    documents: dict[str, Document]

    def live(self, store: Store, embedder: FakeEmbedder | None = None) -> LiveCollections:
        embedder = embedder or self.embedder
        return live_collections(store, ANALYZER, embedder, Chunker(count_tokens, 40))

    def indexer(self, store: Store) -> Indexer:
        return Indexer(store, self.live(store))

    def verify(self, *, repair: bool = False, patience: Patience = QUICK) -> Report:
        """As a script does it: in a process of its own."""
        store = self.open()
        live = self.live(store)
        mender = Mender(store, live, Indexer(store, live)) if repair else None
        return verify(store, live, C, mender=mender, patience=patience)


def document(name: str, sections: int) -> Document:
    text = "\n\n".join(
        f"## 第{n}节\n\n{name}的第{n}节说明出差的人如何报销住宿与交通的费用，编号{name}{n}x。"
        for n in range(sections)
    )
    return Document.create(
        id=name, title=f"手册{name}", text=text, acl=["hr"], metadata={"year": "2025"}
    )


def made(place: Place) -> Place:
    store = place.open()
    indexer = place.indexer(store)
    indexer.ensure_collection(C)
    results = indexer.put(C, list(place.documents.values()), refresh=True)
    assert not any(isinstance(result, TanyuanError) for result in results), results
    assert store.collection(C).chunks > 20
    return place


DOCUMENTS = {"a": 6, "b": 3, "c": 12}


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Place]:
    opened: list[Store] = []

    def another() -> Store:
        opened.append(EmbeddedStore(tmp_path / "store"))
        return opened[-1]

    documents = {name: document(name, sections) for name, sections in DOCUMENTS.items()}
    yield made(
        Place(another, partial(EmbeddedDamage, tmp_path / "store"), FakeEmbedder(), documents)
    )
    for store in opened:
        store.close()


@pytest.fixture
def elastic(elasticsearch: Callable[[str], str]) -> Iterator[Place]:
    url, prefix = elasticsearch(targets()[0]), f"test-{uuid.uuid4().hex[:12]}"
    opened: list[Store] = []

    def another() -> Store:
        opened.append(ElasticsearchStore(url, prefix=prefix))
        return opened[-1]

    documents = {name: document(name, sections) for name, sections in DOCUMENTS.items()}
    damage = partial(ElasticsearchDamage, url, prefix)
    yield made(Place(another, damage, FakeEmbedder(), documents))
    for collection in opened[0].collections():
        opened[0].delete_collection(collection.name)
    for store in opened:
        store.close()


@pytest.fixture(params=["embedded", "elastic"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


def assert_sound(place: Place, names: str = "abc") -> None:
    """Verify is silent, and search finds every chunk by words, by vector and by who may see it."""
    assert place.verify().found == {}
    store = place.open()
    chunker = Chunker(count_tokens, 40)
    for name in names:
        given = place.documents[name]
        assert store.document(C, name).document == given
        for chunk in chunker.chunk(given):
            vector = place.embedder.embed_query(
                passage_text(given.title, chunk.headings, chunk.text)
            )
            terms = tuple(token.term for token in ANALYZER.analyze(chunk.text).words)
            legs = store.search(
                C,
                LegsRequest(
                    text=(TextClause(field="words", terms=terms),),
                    vector=vector,
                    filter=Terms("acl", ("hr",)),
                    k=50,
                ),
            )
            assert legs.errors == {}
            for leg in (legs.bm25, legs.vector):
                assert leg is not None
                ids = [chunk_id for chunk_id, _ in leg.hits]
                assert ids[0] == chunk.id
                assert len(set(ids)) == len(ids)
    for other in ("others", "public"):
        request = LegsRequest(text=everything(), filter=Terms("acl", (other,)))
        leg = store.search(C, request).bm25
        assert leg is not None
        assert leg.hits == ()


def everything() -> tuple[TextClause, ...]:
    terms = tuple(token.term for token in ANALYZER.analyze("第节说明出差的人如何报销").words)
    return (TextClause(field="words", terms=terms),)


def check(place: Place, kind: Kind, *, gone: bool = False) -> None:
    """Planted damage is found by its kind and, asked for, mended; one pass changes nothing."""
    report = place.verify()
    assert kind in report.found, report.as_json()
    if not gone:  # other kinds at most tell the same in another way
        assert len(set(report.found) - {Kind.STORE_DRIFT}) <= 1, report.as_json()
    assert report.left == sum(report.found.values())
    assert {each.outcome for each in report.listed} == {"found"}
    assert set(place.verify().found) == set(report.found)
    place.embedder.calls.clear()
    repaired = place.verify(repair=True)
    assert kind in repaired.found
    assert repaired.left == 0, repaired.as_json()
    assert repaired.found == repaired.mended
    assert repaired.found[kind] == report.found[kind]
    damaged = len(Chunker(count_tokens, 40).chunk(place.documents["a"]))
    assert len(place.embedder.texts) <= damaged  # of other documents nothing is embedded
    assert_sound(place, "bc" if gone else "abc")


EMBEDDED_KINDS = [
    Kind.WRONG_ACL,
    Kind.CHUNK_WITHOUT_DOCUMENT,
    Kind.DOCUMENT_WITHOUT_CHUNKS,
    Kind.MISSING_CHUNK,
    Kind.SURPLUS_CHUNK,
    Kind.DUPLICATE_CHUNK,
    Kind.WRONG_TEXT,
    Kind.UNCOVERED_TEXT,
    Kind.MISSING_VECTOR,
    Kind.VECTOR_NOT_FINITE,
    Kind.WRONG_DIMENSIONS,
    Kind.WRONG_LENGTH,
    Kind.WRONG_COPY,
    Kind.NOT_LEVEL,
    Kind.STORE_DRIFT,
]
ELASTICSEARCH_KINDS = [
    Kind.WRONG_ACL,
    Kind.CHUNK_WITHOUT_DOCUMENT,
    Kind.DOCUMENT_WITHOUT_CHUNKS,
    Kind.INCOMPLETE_WRITE,
    Kind.STALE_CHUNK,
    Kind.MISSING_CHUNK,
    Kind.SURPLUS_CHUNK,
    Kind.DUPLICATE_CHUNK,
    Kind.WRONG_TEXT,
    Kind.UNCOVERED_TEXT,
    Kind.MISSING_VECTOR,
    Kind.WRONG_COPY,
    Kind.NOT_LEVEL,
]


@pytest.mark.parametrize("kind", EMBEDDED_KINDS)
def test_damage_of_the_embedded_store(embedded: Place, kind: Kind) -> None:
    embedded.damage().plant(kind, "a", POSITION)
    check(embedded, kind, gone=kind is Kind.CHUNK_WITHOUT_DOCUMENT)


@pytest.mark.parametrize("kind", ELASTICSEARCH_KINDS)
def test_damage_of_elasticsearch(elastic: Place, kind: Kind) -> None:
    elastic.damage().plant(kind, "a", POSITION)
    check(elastic, kind, gone=kind is Kind.CHUNK_WITHOUT_DOCUMENT)


def test_a_delete_that_was_cut_off(elastic: Place) -> None:
    damage = elastic.damage()
    assert isinstance(damage, ElasticsearchDamage)
    damage.cut_off_delete("a")
    check(elastic, Kind.INCOMPLETE_WRITE, gone=True)


@pytest.mark.parametrize(
    ("vector", "why"),
    [([float("nan")] * 16, "NaN"), ([0.0] * 16, "unit-length"), ([0.25] * 9, "dimension")],
)
def test_what_elasticsearch_refuses_to_hold(elastic: Place, vector: list[float], why: str) -> None:
    damage = elastic.damage()
    assert isinstance(damage, ElasticsearchDamage)
    with damage.client() as client, pytest.raises(elasticsearch.BadRequestError, match=why):
        damage.change(client, f"a:{POSITION}", lambda chunk: chunk.update(vector=vector))
    assert elastic.verify().found == {}


def test_a_vector_is_embedded_again_only_where_it_is_damaged(embedded: Place) -> None:
    embedded.damage().plant(Kind.MISSING_VECTOR, "a", POSITION)
    embedded.embedder.calls.clear()
    assert embedded.verify(repair=True).left == 0
    assert len(embedded.embedder.texts) == 1
    embedded.damage().plant(Kind.WRONG_ACL, "a", POSITION)
    embedded.embedder.calls.clear()
    assert embedded.verify(repair=True).left == 0
    assert embedded.embedder.texts == []


@pytest.mark.parametrize("kind", [Kind.MISSING_WINDOWS, Kind.WRONG_WINDOWS])
def test_damaged_windows_are_made_anew_and_nothing_else(place: Place, kind: Kind) -> None:
    store, embedder = place.open(), place.embedder
    live = live_collections(store, ANALYZER, embedder)
    indexer = Indexer(store, live)
    text = "。".join(f"第{n}条规定出差的人如何申请如何报销住宿与交通的各项费用" for n in range(6))
    indexer.ensure_collection(W)
    indexer.put(W, [Document.create(id="a", text=text)], refresh=True)
    place.damage(W).plant(kind, "a", 0)
    assert verify(store, live, W, patience=QUICK).found == {kind: 1}
    assert store.passages(W, ["a:0"], windows=True)["a:0"].windows is None
    embedder.calls.clear()
    mender = Mender(store, live, indexer)
    assert verify(store, live, W, mender=mender, patience=QUICK).left == 0
    assert len(embedder.texts) == 6
    rows = store.passages(W, ["a:0"], windows=True)["a:0"].windows
    assert rows is not None
    assert rows.shape == (6, embedder.dimensions)
    assert verify(store, live, W, patience=QUICK).found == {}


@pytest.mark.parametrize("kind", [Kind.MISSING_SPARSE, Kind.WRONG_SPARSE])
def test_damaged_sparse_weights_are_made_anew_and_nothing_else(place: Place, kind: Kind) -> None:
    store, embedder = place.open(), FakeSparseEmbedder()
    live = live_collections(store, ANALYZER, embedder)
    indexer = Indexer(store, live)
    text = "。".join(f"第{n}条规定出差的人如何申请如何报销住宿与交通的各项费用" for n in range(6))
    indexer.ensure_collection(W)
    indexer.put(W, [Document.create(id=each, text=text) for each in "ab"], refresh=True)
    query = LegsRequest(sparse=embedder.sparse("报销"))
    before = store.search(W, query).sparse
    assert before is not None
    assert len(before.hits) == 2
    place.damage(W).plant(kind, "a", 0)
    assert verify(store, live, W, patience=QUICK).found == {kind: 1}
    damaged = store.search(W, query)
    assert damaged.sparse is not None
    assert ("b:0", before.hits[1][1]) in damaged.sparse.hits
    embedder.calls.clear()
    mender = Mender(store, live, indexer)
    assert verify(store, live, W, mender=mender, patience=QUICK).left == 0
    assert len(embedder.texts) == 1  # the chunk's own passage; the vectors of its windows are sound
    mended = store.search(W, query).sparse
    assert mended is not None
    assert mended.hits == before.hits
    assert verify(store, live, W, patience=QUICK).found == {}


def test_much_damage_at_once(place: Place) -> None:
    planted = (
        ("a", 1, Kind.MISSING_VECTOR),
        ("b", 0, Kind.DOCUMENT_WITHOUT_CHUNKS),
        ("c", 1, Kind.WRONG_ACL),
        ("c", 2, Kind.MISSING_CHUNK),
    )
    for name, position, kind in planted:
        place.damage().plant(kind, name, position)
    report = place.verify(repair=True)
    assert report.left == 0
    assert {kind for _, _, kind in planted} <= set(report.found)
    assert report.listed[0].finding.kind is Kind.WRONG_ACL
    assert_sound(place)


def test_what_can_t_be_mended_is_left_and_said_why(place: Place) -> None:
    place.damage().plant(Kind.MISSING_VECTOR, "a", POSITION)
    place.embedder.down = True
    report = place.verify(repair=True)
    assert report.left == report.found[Kind.MISSING_VECTOR] == 1
    [listed] = [each for each in report.listed if each.outcome == "left"]
    assert listed.reason == "The fake embedder was told to fail."
    place.embedder.down = False
    assert place.verify(repair=True).left == 0
    assert_sound(place)


def test_a_process_with_another_embedder_finds_but_can_t_mend(place: Place) -> None:
    place.damage().plant(Kind.MISSING_VECTOR, "a", POSITION)
    store = place.open()
    live = place.live(store, FakeEmbedder(version="2"))
    mender = Mender(store, live, Indexer(store, live))
    report = verify(store, live, C, mender=mender, patience=QUICK)
    assert report.left == 1
    assert [error.code for error in report.unserved] == ["recipe_mismatch"]
    assert "fake:2" in report.listed[0].reason


def test_a_collection_that_is_not_there(place: Place) -> None:
    store = place.open()
    with pytest.raises(CollectionNotFound, match="nothing"):
        verify(store, place.live(store), "nothing")


def writing(place: Place, seed: int, ended: threading.Event, failures: list[object]) -> None:
    """Put, replace and delete, some documents of many chunks, until it ends."""
    random, there = Random(seed), set[str]()
    indexer = place.indexer(place.open())
    try:
        while not ended.is_set():
            name = f"w{seed}-{random.randrange(40)}"
            if name in there and random.random() < 0.25:
                indexer.delete(C, name)
                there.discard(name)
                continue
            sections = 80 if random.random() < 0.1 else random.randrange(5)
            given = document(name, sections)
            if random.random() < 0.5:
                given = Document.create(
                    id=name, text=given.text, title=given.title, acl=[random.choice("xyz")]
                )
            [result] = indexer.put(C, [given], refresh=random.random() < 0.1)
            if isinstance(result, TanyuanError):
                failures.append(result)
            there.add(name)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the test shows it
        failures.append(error)


def test_unusual_documents_are_sound(place: Place) -> None:
    metadata = {
        "部门": [1, True, "1", 1.5, "", "𠮷"],
        "a.b": -1e-300,
        "flag": False,
        "n": 2**53,
        "big": 1e300,
        "none": [],
        "whole": 2.0,
    }
    unusual = [
        Document.create(id="空", text="", metadata=metadata),
        Document.create(id="title/only", text=" \n\u3000", title="差旅 > 报销"),
        Document.create(id="c:1", text="\u200b x \r\n\r\n é", acl=[], source="s3://中文"),
        Document.create(id='"d"', text="# 标题\n", acl=["public", "hr", "财务"], metadata=metadata),
        Document.create(id="version 3", text="| a |\n|---|\n| b |\n" * 60, metadata=metadata),
        Document.create(id="中 文", text="没有句号的长文字" * 300, title="长" * 900),
    ]
    results = place.indexer(place.open()).put(C, unusual, refresh=True)
    assert not any(isinstance(result, TanyuanError) for result in results), results
    report = place.verify()
    assert (report.found, report.documents) == ({}, len(unusual) + len(DOCUMENTS))


@pytest.mark.timeout(600)
def test_a_healthy_collection_gives_no_finding_under_load(place: Place) -> None:
    ended, failures = threading.Event(), list[object]()
    threads = [
        threading.Thread(target=writing, args=(place, seed, ended, failures)) for seed in range(2)
    ]
    for thread in threads:
        thread.start()
    try:
        reports = [place.verify(patience=Patience()) for _ in range(20)]
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert [report.found for report in reports] == [{}] * 20
    assert max(report.documents for report in reports) > 30
    assert_sound(place)


def test_a_document_that_is_written_meanwhile_is_left_to_its_writer(place: Place) -> None:
    place.damage().plant(Kind.MISSING_CHUNK, "a", POSITION)
    store = place.open()
    indexer = place.indexer(store)
    newer = document("a", 2)

    def write_once(seen: Seen) -> None:
        if seen.waiting and store.document(C, "a").revision == 1:
            indexer.put(C, [newer])

    live = place.live(store)
    mender = Mender(store, live, indexer)
    report = verify(store, live, C, mender=mender, patience=Patience(), progress=write_once)
    assert Kind.MISSING_CHUNK not in report.found
    assert report.left == 0
    assert (store.document(C, "a").document, store.document(C, "a").revision) == (newer, 2)
    place.documents["a"] = newer
    store.refresh(C)
    assert_sound(place)


@pytest.mark.timeout(600)
def test_damage_is_mended_under_load_and_writers_have_the_last_word(place: Place) -> None:
    ended, failures = threading.Event(), list[object]()
    threads = [
        threading.Thread(target=writing, args=(place, seed, ended, failures)) for seed in range(2)
    ]
    for thread in threads:
        thread.start()
    try:
        for kind in (Kind.WRONG_ACL, Kind.MISSING_VECTOR, Kind.MISSING_CHUNK):
            place.damage().plant(kind, "a", POSITION)
            report = place.verify(repair=True, patience=Patience())
            assert kind in report.mended
            assert report.left == 0, report.as_json()
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert_sound(place)


def test_memory_does_not_grow_with_the_collection(place: Place) -> None:
    indexer = place.indexer(place.open())

    def peak() -> int:
        tracemalloc.start()
        assert place.verify().found == {}
        _, used = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return used

    def put(numbers: range) -> None:
        some = [Document.create(id=f"s{n}", text=f"短文{n}。") for n in numbers]
        indexer.put(C, some, refresh=True)

    put(range(1_000))
    peak()  # what is made once
    small = peak()
    put(range(1_000, 5_000))
    assert peak() < 1.5 * small + 1_000_000


def test_a_vector_where_the_recipe_has_none(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "store")
    live = live_collections(store, ANALYZER)
    indexer = Indexer(store, live)
    indexer.ensure_collection(C)
    indexer.put(C, [Document.create(id="a", text="员工请假。")], refresh=True)
    assert verify(store, live, C, patience=QUICK).found == {}
    EmbeddedDamage(tmp_path / "store").plant(Kind.UNEXPECTED_VECTOR, "a", 0)
    assert verify(store, live, C, patience=QUICK).found == {Kind.UNEXPECTED_VECTOR: 1}
    mender = Mender(store, live, indexer)
    assert verify(store, live, C, mender=mender, patience=QUICK).left == 0
    assert verify(store, live, C, patience=QUICK).found == {}
    store.close()


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM texts", "UPDATE texts SET text = 'else'", "UPDATE documents SET acl = '[]'"],
)
def test_a_document_that_is_damaged_itself_is_never_put_again_as_it_is(
    embedded: Place, tmp_path: Path, statement: str
) -> None:
    """It would be acknowledged as what was put, and its chunks, which may be sound, be lost."""
    damage = EmbeddedDamage(tmp_path / "store")
    damage.execute(f"{statement} WHERE version = {VERSION}", "a")
    for repair in (False, True):
        report = embedded.verify(repair=repair)
        assert report.found == {Kind.DAMAGED_DOCUMENT: 1}
        assert report.left == 1
        assert "Delete it and put it again" in report.listed[0].finding.detail
    store = embedded.open()
    assert store.collection(C).chunks == 42
    store.delete(C, "a")
    [result] = embedded.indexer(store).put(C, [embedded.documents["a"]], refresh=True)
    assert not isinstance(result, TanyuanError)
    assert_sound(embedded)
