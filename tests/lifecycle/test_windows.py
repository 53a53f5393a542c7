"""Vectors of windows through every change of a collection: kept, carried along, never embedded twice."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.analysis.dictionary import UserDictionary
from server.documents import Document, Vectors, passage_text
from server.errors import RecipeMismatch
from server.ingest.chunker import Chunker
from server.ingest.indexer import Indexer
from server.ingest.windows import FINGERPRINT, windows
from server.lifecycle.dictionary import DictionaryChanges
from server.lifecycle.exporter import Exporter
from server.lifecycle.rebuild import Rebuilder
from server.live import LiveCollections
from server.stores.contract import Store
from server.stores.embedded.store import EmbeddedStore
from server.vocabulary import Vocabulary
from tests.fakes import FakeEmbedder, count_tokens, live_collections
from tests.lifecycle.moves import import_archive, put

ANALYZER = JiebaAnalyzer()
C = "handbook"
WORD = "云梯平台"  # jieba: 云梯, 平台


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Store]:
    """For what happens above the store."""
    opened = EmbeddedStore(tmp_path / "store")
    yield opened
    opened.close()


def documents(count: int = 6) -> list[Document]:
    """Each of one chunk of five windows, but for the last, which has none."""
    texts = [
        "".join(f"第{n}之{part}条说明{WORD}的流程与时限以及如何申请如何审批。" for part in range(5))
        for n in range(count)
    ]
    return [
        Document.create(id=f"d{n}", title=f"制度{n}", text=text)
        for n, text in enumerate([*texts, "一句话。"])
    ]


def served(store: Store, embedder: FakeEmbedder, *, windowed: bool = True) -> LiveCollections:
    return live_collections(store, ANALYZER, embedder, windowed=windowed)


def filled(store: Store, live: LiveCollections) -> Indexer:
    indexer = Indexer(store, live)
    indexer.ensure_collection(C)
    put(indexer, C, documents())
    store.refresh(C)
    return indexer


def rows_of(store: Store, collection: str = C) -> dict[str, Vectors | None]:
    ids = [f"{each.id}:0" for each in documents()]
    found = store.passages(collection, ids, windows=True)
    assert list(found) == ids
    return {chunk_id: passage.windows for chunk_id, passage in found.items()}


def assert_windowed(store: Store, embedder: FakeEmbedder, collection: str = C) -> None:
    """Every chunk has the vectors of its windows as the embedder reads them."""
    found = rows_of(store, collection)
    for document in documents():
        rows = found[f"{document.id}:0"]
        texts = [passage_text(document.title, (), each) for each in windows(document.text)]
        if not texts:
            assert rows is None
            continue
        assert rows is not None
        cosines = (rows * embedder.embed_documents(texts)).sum(axis=1)
        assert len(rows) == len(texts) == 5
        assert cosines == pytest.approx(1, abs=0.003)


def assert_same(one: dict[str, Vectors | None], other: dict[str, Vectors | None]) -> None:
    assert one.keys() == other.keys()
    for chunk_id, rows in one.items():
        theirs = other[chunk_id]
        assert (rows is None) == (theirs is None)
        if rows is not None and theirs is not None:
            assert np.array_equal(rows, theirs)


def test_they_are_embedded_with_their_chunks(store: Store) -> None:
    embedder = FakeEmbedder()
    filled(store, served(store, embedder))
    assert store.live(C).recipe.windows == FINGERPRINT
    assert len(embedder.calls) == 1
    assert len(embedder.texts) == 6 * (1 + 5) + 1
    assert_windowed(store, embedder)


def test_a_collection_without_them_goes_on_without_and_a_rebuild_gives_them(store: Store) -> None:
    embedder = FakeEmbedder()
    live = served(store, embedder)
    older = replace(live.own, windows="", mapping=1)
    store.create_collection(C, recipe=older)
    filled(store, live)
    assert len(embedder.texts) == 7
    assert set(rows_of(store).values()) == {None}
    embedder.calls.clear()
    record = Rebuilder(store, live).rebuild(C, by="test").run()
    assert len(embedder.texts) == 6 * 5  # the chunks' own vectors are taken over
    assert (record.embedded, record.reused) == (6, 1)
    assert store.live(C, fresh=True).recipe == live.own
    assert_windowed(store, embedder)
    Rebuilder(store, live).roll_back(C, by="test").run()
    assert store.live(C, fresh=True).recipe == older
    assert set(rows_of(store).values()) == {None}


def test_a_rebuild_embeds_no_window_again(embedded: Store) -> None:
    store = embedded
    embedder = FakeEmbedder()
    filled(store, served(store, embedder))
    before = rows_of(store)
    embedder.calls.clear()
    record = Rebuilder(store, served(store, embedder)).rebuild(C, by="test").run()
    assert embedder.texts == []
    assert (record.embedded, record.reused) == (0, 7)
    assert_same(rows_of(store), before)


def test_rounded_vectors_never_become_those_of_chunks(embedded: Store) -> None:
    """Cut finer, a window may be a chunk; it is embedded as one, exactly."""
    store, embedder = embedded, FakeEmbedder()
    filled(store, served(store, embedder))
    finer = live_collections(store, ANALYZER, embedder, Chunker(count_tokens, 45))
    Rebuilder(store, finer).rebuild(C, by="test").run()
    store.refresh(C)
    made = store.generations.chunks(C, store.live(C, fresh=True).id, ["d0"])["d0"]
    assert len(made) == 5
    for stored in made:
        [exact] = embedder.embed_documents([passage_text("制度0", (), stored.chunk.text)])
        assert stored.vector == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("wide", [False, True], ids=["in place", "anew"])
def test_a_dictionary_change_keeps_them(store: Store, wide: bool) -> None:
    embedder = FakeEmbedder()
    live = served(store, embedder)
    filled(store, live)
    before = rows_of(store)
    embedder.calls.clear()
    vocabulary = Vocabulary(store.notes)
    line = f"{WORD} 1000000" if wide else WORD
    assert vocabulary.change(C, "dictionary", add=(line,), author="lin") is not None
    generation = store.live(C, fresh=True).id
    changes = DictionaryChanges(store, live, vocabulary, JiebaAnalyzer, UserDictionary())
    changes.apply(C, by="test").run()
    now = store.live(C, fresh=True)
    assert (now.recipe.dictionary, now.id != generation) == (1, wide)
    assert embedder.texts == []
    assert_same(rows_of(store), before)


def test_an_archive_with_vectors_has_them(store: Store, tmp_path: Path) -> None:
    embedder = FakeEmbedder()
    indexer = filled(store, served(store, embedder))
    manifest = Exporter(store, C, vectors=True).run(tmp_path / "a")
    assert manifest.vectors == 6 * (1 + 5) + 1
    embedder.calls.clear()
    assert import_archive(store, indexer, tmp_path / "a", "again").whole
    assert embedder.texts == []
    assert_same(rows_of(store, "again"), rows_of(store))


def test_an_archive_with_them_fills_a_collection_without(embedded: Store, tmp_path: Path) -> None:
    store, embedder = embedded, FakeEmbedder()
    filled(store, served(store, embedder))
    Exporter(store, C, vectors=True).run(tmp_path / "a")
    embedder.calls.clear()
    plain = Indexer(store, served(store, embedder, windowed=False))
    assert import_archive(store, plain, tmp_path / "a", "plain").whole
    assert embedder.texts == []
    assert store.live("plain").recipe.windows == ""
    assert set(rows_of(store, "plain").values()) == {None}


def test_a_process_that_shall_make_none_refuses_to_write_where_there_are(embedded: Store) -> None:
    """As TANYUAN_WINDOWS=off says; searches go on, and a rebuild takes them away."""
    store, embedder = embedded, FakeEmbedder()
    filled(store, served(store, embedder))
    off = live_collections(store, ANALYZER, embedder, pinned=("windows",), windowed=False)
    assert off.open(C).vectors is None
    with pytest.raises(RecipeMismatch, match="windows"):
        Indexer(store, off).put(C, [Document.create(id="new", text="新")])
    embedder.calls.clear()
    Rebuilder(store, off).rebuild(C, by="test").run()
    assert embedder.texts == []
    assert set(rows_of(store).values()) == {None}
    Indexer(store, off).put(C, [Document.create(id="new", text="新")])
