"""What an indexer embeds of documents whose passages were read before."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Document
from server.ingest.chunker import Chunker
from server.ingest.indexer import Indexer
from server.models.passage_vectors import PassageVectors
from server.models.remembering import Remembering
from server.stores.contract import Store
from server.stores.embedded.store import EmbeddedStore
from tests.fakes import FakeEmbedder, make_indexer

C = "handbook"
PARAGRAPHS = [
    f"第{number}条 员工出差须在{number}天内提交报销单据，并附发票。" * 2 for number in range(12)
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = EmbeddedStore(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
def embedder() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
def indexer(store: Store, embedder: FakeEmbedder, tmp_path: Path) -> Indexer:
    kept = PassageVectors.in_folder(tmp_path, 1024 * 1024)
    remembering = Remembering(embedder, kept)
    indexer = make_indexer(store, JiebaAnalyzer(), remembering, Chunker(embedder.count_tokens, 64))
    indexer.ensure_collection(C)
    indexer.put(C, [document("a", PARAGRAPHS)])
    assert len(embedder.texts) >= len(PARAGRAPHS)
    embedder.calls.clear()
    return indexer


def document(name: str, paragraphs: list[str]) -> Document:
    return Document.create(id=name, title="差旅", text="\n\n".join(paragraphs))


def test_of_a_changed_document_only_what_changed_is_embedded(
    indexer: Indexer, embedder: FakeEmbedder
) -> None:
    changed = [*PARAGRAPHS[:5], "第五条 此条已废止，改按集团的规定执行。" * 2, *PARAGRAPHS[6:]]
    [put] = indexer.put(C, [document("a", changed)])
    assert put.status == "updated"  # type: ignore[union-attr]
    assert embedder.texts
    assert all("废止" in text for text in embedder.texts)


def test_under_another_id_or_in_another_collection_nothing_is(
    indexer: Indexer, embedder: FakeEmbedder, store: Store
) -> None:
    indexer.ensure_collection("other")
    indexer.delete(C, "a")
    indexer.put(C, [document("moved", PARAGRAPHS)])
    indexer.put("other", [document("a", PARAGRAPHS)])
    assert embedder.texts == []
    live = store.live("other")
    for stored in store.generations.chunks("other", live.id, ["a"])["a"]:
        assert stored.vector is not None
        [fresh] = FakeEmbedder().embed_documents([f"差旅\n{stored.chunk.text}"])
        assert stored.vector.tobytes() == fresh.tobytes()
