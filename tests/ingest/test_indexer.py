"""Documents into a real store: derived whole, skipped when unchanged, failing one by one."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Document, heading_path, passage_text
from server.errors import (
    CollectionNotFound,
    DocumentNotFound,
    EmbedderUnavailable,
    InvalidInput,
    RecipeMismatch,
    RevisionConflict,
    StoreUnavailable,
    TanyuanError,
)
from server.ingest.chunker import Chunker
from server.ingest.derivation import BATCH, MAX_FAILURES, Deriver
from server.ingest.indexer import Indexer, Put
from server.stores.contract import LegsRequest, Store, TextClause
from server.stores.embedded.store import EmbeddedStore
from tests.fakes import FakeEmbedder, count_tokens, make_indexer

ANALYZER = JiebaAnalyzer()
C = "handbook"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = EmbeddedStore(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
def embedder() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
def indexer(store: Store, embedder: FakeEmbedder) -> Indexer:
    indexer = make_indexer(store, ANALYZER, embedder, Chunker(embedder.count_tokens, 64))
    indexer.ensure_collection(C, "The handbook")
    return indexer


def document(id: str = "a", text: str = "员工请假须提前三天。", title: str = "请假") -> Document:  # noqa: A002
    return Document.create(id=id, text=text, title=title)


def statuses(results: list[Put | TanyuanError]) -> list[str]:
    return [r.code if isinstance(r, TanyuanError) else r.status for r in results]


def long_text(sections: int) -> str:
    return "\n\n".join(
        f"## 第{n}节\n\n" + f"第{n}节的内容在此说明清楚。" * 3 for n in range(sections)
    )


def found(store: Store, text: str) -> list[str]:
    words = tuple(token.term for token in ANALYZER.analyze(text).words)
    legs = store.search(C, LegsRequest(text=(TextClause(field="words", terms=words),)))
    assert legs.bm25 is not None
    return [chunk_id for chunk_id, _ in legs.bm25.hits]


def test_the_collection_is_stamped_with_the_recipe(store: Store, indexer: Indexer) -> None:
    assert store.live(C).recipe == indexer.recipe
    assert indexer.recipe.embedder == "fake:1"
    assert indexer.recipe.dimensions == 16
    assert indexer.recipe.analyzer == ANALYZER.fingerprint
    assert indexer.ensure_collection(C, "other").description == "The handbook"
    with pytest.raises(InvalidInput):
        indexer.ensure_collection("Bad Name")


def test_put_update_unchanged(store: Store, indexer: Indexer, embedder: FakeEmbedder) -> None:
    (created,) = indexer.put(C, [document()], refresh=True)
    assert created == Put(document_id="a", revision=1, chunks=1, status="created")
    calls = len(embedder.calls)
    (unchanged,) = indexer.put(C, [document()])
    assert unchanged == Put(document_id="a", revision=1, chunks=1, status="unchanged")
    assert len(embedder.calls) == calls
    (updated,) = indexer.put(C, [document(text=long_text(5))], refresh=True)
    assert isinstance(updated, Put)
    assert (updated.revision, updated.status) == (2, "updated")
    assert updated.chunks == 5
    assert found(store, "三天") == []
    assert "a:3" in found(store, "第3节")


def test_what_is_embedded_and_indexed(indexer: Indexer, embedder: FakeEmbedder) -> None:
    text = "# 总则\n\n" + long_text(4)
    deriver = Deriver(
        analyzer=ANALYZER, embedder=embedder, chunker=Chunker(embedder.count_tokens, 64)
    )
    ((derived,),) = deriver.derive([document(text=text, title="Leave policy")])
    assert not isinstance(derived.chunks, TanyuanError)
    for indexed, read in zip(derived.chunks, embedder.texts, strict=True):
        chunk = indexed.chunk
        assert read == passage_text("Leave policy", chunk.headings, chunk.text)
        assert read.startswith("Leave policy > 总则 > 第")
        assert indexed.vector is not None
        assert indexed.vector.shape == (16,)
        words, path = (
            ANALYZER.analyze(chunk.text),
            ANALYZER.analyze(heading_path("Leave policy", chunk.headings)),
        )
        assert indexed.terms == {
            "words": tuple(token.term for token in words.words),
            "bigrams": tuple(token.term for token in words.bigrams),
            "title_words": tuple(token.term for token in path.words),
            "title_bigrams": tuple(token.term for token in path.bigrams),
        }


def test_a_document_without_text_is_found_by_its_title(store: Store, indexer: Indexer) -> None:
    indexer.put(C, [document(text="", title="年假规定")], refresh=True)
    words = tuple(token.term for token in ANALYZER.analyze("年假").words)
    legs = store.search(C, LegsRequest(text=(TextClause(field="title_words", terms=words),)))
    assert legs.bm25 is not None
    assert [chunk_id for chunk_id, _ in legs.bm25.hits] == ["a:0"]


def test_without_an_embedder_there_are_no_vectors(store: Store) -> None:
    indexer = make_indexer(store, ANALYZER, None)
    indexer.ensure_collection(C)
    assert (indexer.recipe.embedder, indexer.recipe.dimensions) == ("", 0)
    assert statuses(indexer.put(C, [document()], refresh=True)) == ["created"]
    assert found(store, "请假") == ["a:0"]


def test_another_recipe_is_refused_before_anything_is_written(
    store: Store, indexer: Indexer
) -> None:
    indexer.put(C, [document()])
    other = make_indexer(store, ANALYZER, FakeEmbedder(version="2"), Chunker(count_tokens, 64))
    with pytest.raises(RecipeMismatch, match=r"'fake:1', here 'fake:2'.*scripts/rebuild"):
        other.put(C, [document("b")])
    with pytest.raises(DocumentNotFound):
        store.document(C, "b")


def test_a_collection_must_be_there(indexer: Indexer) -> None:
    with pytest.raises(CollectionNotFound):
        indexer.put("missing", [document()])


def test_texts_of_many_documents_are_embedded_together(
    indexer: Indexer, embedder: FakeEmbedder
) -> None:
    results = indexer.put(C, [document(str(n), f"第{n}条") for n in range(BATCH + 10)])
    assert [result.document_id for result in results if isinstance(result, Put)] == [
        str(n) for n in range(BATCH + 10)
    ]
    assert [len(call) for call in embedder.calls] == [BATCH, 10]


def test_a_huge_document_is_embedded_in_parts(indexer: Indexer, embedder: FakeEmbedder) -> None:
    (put,) = indexer.put(C, [document(text=long_text(BATCH + 5))])
    assert isinstance(put, Put)
    assert put.chunks == BATCH + 5
    *full, rest = [len(call) for call in embedder.calls]
    assert set(full) == {BATCH}
    assert sum(full) + rest == 3 * (BATCH + 5)  # each has two windows


def test_one_bad_document_stops_no_other(
    store: Store, indexer: Indexer, embedder: FakeEmbedder
) -> None:
    embedder.poison = {"毒"}
    documents = [document(str(n), "毒药" if n in {2, 5} else f"第{n}条") for n in range(8)]
    results = indexer.put(C, documents, refresh=True)
    assert [type(result) for result in results] == [
        EmbedderUnavailable if n in {2, 5} else Put for n in range(8)
    ]
    assert set(store.states(C, [str(n) for n in range(8)])) == set("013467")
    embedder.poison = set()
    assert statuses(indexer.put(C, documents)).count("created") == 2


def test_an_embedder_that_is_gone_is_not_asked_for_each_document(
    store: Store, indexer: Indexer, embedder: FakeEmbedder
) -> None:
    embedder.down = True
    documents = [document(str(n), f"第{n}条") for n in range(3 * BATCH)]
    results = indexer.put(C, documents)
    assert statuses(results) == ["embedder_unavailable"] * len(documents)
    assert len(embedder.calls) == 1 + MAX_FAILURES
    assert store.collection(C).documents == 0


@pytest.mark.parametrize("wrong", ["nan", "short", "few"])
def test_wrong_vectors_are_never_stored(store: Store, wrong: str) -> None:
    class Broken(FakeEmbedder):
        def embed_documents(self, texts):  # type: ignore[no-untyped-def]
            vectors = super().embed_documents(texts)
            if wrong == "nan":
                vectors[0, 0] = np.nan
            return (
                vectors if wrong == "nan" else vectors[:, 1:] if wrong == "short" else vectors[1:]
            )

    indexer = make_indexer(store, ANALYZER, Broken())
    indexer.ensure_collection(C)
    assert statuses(indexer.put(C, [document()])) == ["embedder_unavailable"]
    assert store.states(C, ["a"]) == {}


def test_a_tokenizer_that_is_gone_fails_the_document(store: Store) -> None:
    class Lost(FakeEmbedder):
        def count_tokens(self, text: str) -> int:
            if "毒" in text:
                raise EmbedderUnavailable("The tokenizer can't be had.")
            return super().count_tokens(text)

    indexer = make_indexer(store, ANALYZER, Lost())
    indexer.ensure_collection(C)
    results = indexer.put(C, [document("a", "毒"), document("b"), document("c", "毒")])
    assert statuses(results) == ["embedder_unavailable", "created", "embedder_unavailable"]


def test_of_an_id_given_twice_the_later_wins(store: Store, indexer: Indexer) -> None:
    indexer.put(C, [document("a", "旧")])
    results = indexer.put(C, [document("a", "新"), document("b"), document("a", "旧")])
    assert statuses(results) == ["unchanged", "created", "unchanged"]
    results = indexer.put(C, [document("a", "旧"), document("a", "新")])
    assert statuses(results) == ["updated", "updated"]
    assert store.document(C, "a").document.text == "新"


def test_revisions_are_held_to(store: Store, indexer: Indexer) -> None:
    assert statuses(indexer.put(C, [document()], if_revision=0)) == ["created"]
    for revision in (0, 7):
        (result,) = indexer.put(C, [document()], if_revision=revision)
        assert isinstance(result, RevisionConflict)
        (result,) = indexer.put(C, [document(text="x")], if_revision=revision)
        assert isinstance(result, RevisionConflict)
    assert statuses(indexer.put(C, [document()], if_revision=1)) == ["unchanged"]
    assert statuses(indexer.put(C, [document(text="x")], if_revision=1)) == ["updated"]


def test_delete(store: Store, indexer: Indexer) -> None:
    indexer.put(C, [document(text=long_text(3))], refresh=True)
    assert indexer.delete(C, "a", refresh=True).chunks == 3
    assert found(store, "内容") == []
    with pytest.raises(DocumentNotFound):
        indexer.delete(C, "a")
    assert statuses(indexer.put(C, [document(text=long_text(3))])) == ["created"]


def test_refresh_shows_what_was_unchanged_too(store: Store, indexer: Indexer) -> None:
    indexer.put(C, [document()])
    assert statuses(indexer.put(C, [document()], refresh=True)) == ["unchanged"]
    assert found(store, "请假") == ["a:0"]


def test_the_rest_of_a_call_ends_with_the_store(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "store")

    class Closing(FakeEmbedder):
        def embed_documents(self, texts):  # type: ignore[no-untyped-def]
            if len(self.calls) == 1:
                store.close()
            return super().embed_documents(texts)

    embedder = Closing()
    indexer = make_indexer(store, ANALYZER, embedder)
    indexer.ensure_collection(C)
    results = indexer.put(C, [document(str(n), f"第{n}条") for n in range(3 * BATCH)], refresh=True)
    assert statuses(results[:BATCH]) == ["created"] * BATCH
    assert all(isinstance(result, StoreUnavailable) for result in results[BATCH:])
    assert len(embedder.calls) == 2


def test_a_rebuild_in_mid_put_is_noticed(store: Store) -> None:
    class Rebuilding(FakeEmbedder):
        def embed_documents(self, texts):  # type: ignore[no-untyped-def]
            store.delete_collection(C)
            make_indexer(store, ANALYZER, FakeEmbedder(version="2")).ensure_collection(C)
            return super().embed_documents(texts)

    indexer = make_indexer(store, ANALYZER, Rebuilding())
    indexer.ensure_collection(C)
    assert statuses(indexer.put(C, [document()])) == ["recipe_mismatch"]
    assert store.collection(C).documents == 0


def test_nobody_waits_while_another_embeds(store: Store) -> None:
    inside, go_on = threading.Event(), threading.Event()

    class Slow(FakeEmbedder):
        def embed_documents(self, texts):  # type: ignore[no-untyped-def]
            if any("慢" in text for text in texts):
                inside.set()
                assert go_on.wait(30)
            return super().embed_documents(texts)

    indexer = make_indexer(store, ANALYZER, Slow())
    indexer.ensure_collection(C)
    slow: list[Put | TanyuanError] = []
    thread = threading.Thread(target=lambda: slow.extend(indexer.put(C, [document("slow", "慢")])))
    thread.start()
    try:
        assert inside.wait(30)
        assert statuses(indexer.put(C, [document("fast")], refresh=True)) == ["created"]
        assert found(store, "请假") == ["fast:0"]
    finally:
        go_on.set()
        thread.join()
    assert statuses(slow) == ["created"]


def test_two_threads_and_one_document(store: Store, indexer: Indexer) -> None:
    barrier = threading.Barrier(4)
    results: list[Put | TanyuanError] = []

    def put(number: int) -> None:
        barrier.wait()
        for turn in range(5):
            results.extend(indexer.put(C, [document("a", f"版本 {number} {turn}")]))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    revisions = [result.revision for result in results if isinstance(result, Put)]
    assert sorted(revisions) == sorted(set(revisions))
    assert store.document(C, "a").revision == max(revisions)
    store.refresh(C)
    assert len(found(store, "版本")) == 1
