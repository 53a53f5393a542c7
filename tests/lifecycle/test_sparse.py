"""Sparse weights through every change of a collection: kept, carried along, never made twice."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.analysis.dictionary import UserDictionary
from server.documents import Document, passage_text
from server.errors import InvalidInput, RecipeMismatch
from server.ingest.indexer import Indexer
from server.lifecycle.dictionary import DictionaryChanges
from server.lifecycle.exporter import Exporter
from server.lifecycle.rebuild import Rebuilder
from server.lifecycle.transfer import Transfer
from server.lifecycle.vectors import pack, unpack
from server.live import LiveCollections
from server.models.contract import Embedder
from server.sparse import EMPTY, Embedded, SparseWeights
from server.stores.contract import LegsRequest, Store
from server.stores.embedded.store import EmbeddedStore
from server.vocabulary import Vocabulary
from tests.fakes import FakeEmbedder, FakeSparseEmbedder, live_collections
from tests.lifecycle.moves import import_archive, put
from tests.stores.builders import unit

ANALYZER = JiebaAnalyzer()
C = "handbook"
WORD = "云梯平台"  # jieba: 云梯, 平台
COUNT = 6


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Store]:
    """For what happens above the store."""
    opened = EmbeddedStore(tmp_path / "store")
    yield opened
    opened.close()


def documents() -> list[Document]:
    """Each of one chunk of two windows."""
    return [
        Document.create(
            id=f"d{n}",
            title=f"制度{n}",
            text="".join(
                f"第{n}之{part}条说明{WORD}的流程与时限以及如何申请如何审批。" for part in range(2)
            ),
        )
        for n in range(COUNT)
    ]


def served(store: Store, embedder: Embedder) -> LiveCollections:
    return live_collections(store, ANALYZER, embedder)


def filled(store: Store, live: LiveCollections) -> Indexer:
    indexer = Indexer(store, live)
    indexer.ensure_collection(C)
    put(indexer, C, documents())
    store.refresh(C)
    return indexer


def kept(store: Store, collection: str = C) -> dict[str, dict[int, float] | None]:
    """Of each document's one chunk."""
    live = store.live(collection, fresh=True).id
    found = store.generations.chunks(collection, live, [each.id for each in documents()])
    assert len(found) == COUNT
    return {
        document_id: None if chunk.sparse is None else chunk.sparse.as_dict()
        for document_id, [chunk] in found.items()
    }


def assert_sparse(store: Store, embedder: FakeSparseEmbedder, collection: str = C) -> None:
    """Every chunk has the weights of the passage that models read."""
    assert kept(store, collection) == {
        each.id: embedder.sparse(passage_text(each.title, (), each.text)).rounded().as_dict()
        for each in documents()
    }
    legs = store.search(collection, LegsRequest(sparse=embedder.sparse("3")))
    assert legs.sparse is not None
    assert [chunk_id for chunk_id, _ in legs.sparse.hits] == ["d3:0"]


def assert_none(store: Store, collection: str = C) -> None:
    assert set(kept(store, collection).values()) == {None}
    legs = store.search(collection, LegsRequest(sparse=FakeSparseEmbedder().sparse("3")))
    assert isinstance(legs.errors["sparse"], InvalidInput)


def test_they_come_with_the_vectors_in_one_pass(store: Store) -> None:
    embedder = FakeSparseEmbedder()
    filled(store, served(store, embedder))
    assert store.live(C).recipe.sparse == embedder.sparse_fingerprint
    assert len(embedder.calls) == 1
    assert_sparse(store, embedder)


def test_a_collection_without_them_goes_on_without_and_a_rebuild_gives_them(store: Store) -> None:
    embedder = FakeSparseEmbedder()
    live = served(store, embedder)
    older = replace(live.own, sparse="", mapping=2)
    store.create_collection(C, recipe=older)
    filled(store, live)
    assert live.open(C).sparse_embedder is None
    assert (live.open(C).sparse, live.open(C).vectors) == (None, None)
    assert_none(store)
    embedder.calls.clear()
    record = Rebuilder(store, live).rebuild(C, by="test").run()
    assert len(embedder.texts) == COUNT  # the vectors of windows are taken over
    assert (record.embedded, record.reused) == (COUNT, 0)
    assert store.live(C, fresh=True).recipe == live.own
    assert_sparse(store, embedder)
    Rebuilder(store, live).roll_back(C, by="test").run()
    assert_none(store)


def test_a_rebuild_makes_none_again_but_of_another_head(embedded: Store) -> None:
    store, embedder = embedded, FakeSparseEmbedder()
    filled(store, served(store, embedder))
    embedder.calls.clear()
    Rebuilder(store, served(store, embedder)).rebuild(C, by="test").run()
    assert embedder.texts == []
    assert_sparse(store, embedder)
    other = FakeSparseEmbedder(head="2")
    Rebuilder(store, served(store, other)).rebuild(C, by="test").run()
    assert len(other.texts) == COUNT
    assert_sparse(store, other)


@pytest.mark.parametrize("wide", [False, True], ids=["in place", "anew"])
def test_a_dictionary_change_keeps_them(store: Store, wide: bool) -> None:
    embedder = FakeSparseEmbedder()
    live = served(store, embedder)
    filled(store, live)
    embedder.calls.clear()
    vocabulary = Vocabulary(store.notes)
    line = f"{WORD} 1000000" if wide else WORD
    assert vocabulary.change(C, "dictionary", add=(line,), author="lin") is not None
    generation = store.live(C, fresh=True).id
    DictionaryChanges(store, live, vocabulary, JiebaAnalyzer, UserDictionary()).apply(
        C, by="test"
    ).run()
    now = store.live(C, fresh=True)
    assert (now.recipe.dictionary, now.id != generation) == (1, wide)
    assert embedder.texts == []
    assert_sparse(store, embedder)


def test_an_archive_with_vectors_and_a_copy_have_them(store: Store, tmp_path: Path) -> None:
    embedder = FakeSparseEmbedder()
    indexer = filled(store, served(store, embedder))
    Exporter(store, C, vectors=True).run(tmp_path / "a")
    embedder.calls.clear()
    assert import_archive(store, indexer, tmp_path / "a", "again").whole
    assert Transfer(store, indexer, JiebaAnalyzer).copy(store, C, "copy").whole
    assert embedder.texts == []
    for collection in ("again", "copy"):
        store.refresh(collection)
        assert_sparse(store, embedder, collection)


def test_an_archive_of_another_head_gives_its_vectors_alone(
    embedded: Store, tmp_path: Path
) -> None:
    store = embedded
    filled(store, served(store, FakeSparseEmbedder()))
    Exporter(store, C, vectors=True).run(tmp_path / "a")
    plain = FakeEmbedder()
    assert import_archive(store, Indexer(store, served(store, plain)), tmp_path / "a", "b").whole
    assert plain.texts == []
    assert_none(store, "b")
    other = FakeSparseEmbedder(head="2")
    assert import_archive(store, Indexer(store, served(store, other)), tmp_path / "a", "c").whole
    assert len(other.texts) == COUNT
    assert_sparse(store, other, "c")


def test_without_their_head_a_collection_is_searched_and_not_written(embedded: Store) -> None:
    filled(embedded, served(embedded, FakeSparseEmbedder()))
    for other in (FakeEmbedder(), FakeSparseEmbedder(head="2")):
        live = served(embedded, other)
        opened = live.open(C)
        assert opened.vectors is None
        assert opened.sparse_embedder is None
        assert isinstance(opened.sparse, RecipeMismatch)
        with pytest.raises(RecipeMismatch, match="sparse 'fake-head:1'"):
            Indexer(embedded, live).put(C, [Document.create(id="new", text="新")])


def test_arrays_of_an_archive_hold_them_and_are_not_believed() -> None:
    weights = SparseWeights.of({3: 0.5, 250_001: 0.001})
    given = {
        bytes([number]) * 32: Embedded(unit(1, number), sparse)
        for number, sparse in enumerate((weights, EMPTY, None))
    }
    packed = pack(given, 8)
    found = unpack(packed, 8)
    assert list(found) == list(given)
    first, empty, none = (each.sparse for each in found.values())
    assert first is not None
    assert empty is not None
    assert (first.as_dict(), empty.as_dict(), none) == (weights.rounded().as_dict(), {}, None)
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        plain = dict(arrays)
    sizes, data = plain["sizes"], plain["sparse"]
    for forged in (
        {"sizes": sizes + 1},
        {"sizes": -sizes},
        {"sizes": sizes[:-1]},
        {"sizes": sizes.astype(np.int64)},
        {"sparse": data[:-1]},
        {"sparse": data ^ 1},
        {"sparse": data.astype(np.float32)},
    ):
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **(plain | forged))
        with pytest.raises(InvalidInput):
            unpack(file.getvalue(), 8)
