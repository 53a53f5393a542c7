"""A rebuild and a roll back while 8 threads search and 2 write: nothing fails and nothing is lost.

TANYUAN_TEST_DOCUMENTS says how many documents (20,000 in the README's figures).
"""

import json
import os
import time
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Document, passage_text
from server.ingest.indexer import Indexer
from server.lifecycle.progress import Rebuild
from server.lifecycle.rebuild import Rebuilder
from server.live import LiveCollections
from server.retrieval.searcher import Searcher
from server.stores.contract import Store
from tests.fakes import FakeEmbedder, live_collections
from tests.lifecycle.load import Load, fill, load

C = "handbook"
DOCUMENTS = int(os.environ.get("TANYUAN_TEST_DOCUMENTS", "1000"))
OLD, NEW = FakeEmbedder(), FakeEmbedder(version="2", dimensions=24)


def served(store: Store, embedder: FakeEmbedder) -> LiveCollections:
    """As a process with that embedder serves it, which finds the other when a recipe names it."""
    return live_collections(store, JiebaAnalyzer(), embedder, others=[OLD, NEW])


@pytest.mark.timeout(1800)
def test_nothing_fails_and_nothing_is_lost(open_store: Callable[[], Store]) -> None:
    serving, administering = open_store(), open_store()
    live = served(serving, OLD)
    indexer = Indexer(serving, live)
    searcher = Searcher(store=serving, live=live, reranker=None)
    documents: Mapping[str, Document] = fill(indexer, C, DOCUMENTS)
    serving.refresh(C)

    def rebuild() -> Rebuild:
        return Rebuilder(administering, served(administering, NEW)).rebuild(C, by="test").run()

    def roll_back() -> Rebuild:
        return Rebuilder(administering, served(administering, NEW)).roll_back(C, by="test").run()

    for change, embedder in ((rebuild, NEW), (roll_back, OLD)):
        began = time.perf_counter()
        with load(searcher, indexer, C, documents) as made:
            record = change()
            took = time.perf_counter() - began
            time.sleep(2)  # and on the new generation
        print(report(serving.kind, record, made, took))  # noqa: T201
        assert made.failures == []
        assert record.state == "promoted"
        documents = made.documents
        assert_is_whole(serving, documents, embedder)
        assert serving.live(C, fresh=True).id == record.generation


def report(kind: str, record: Rebuild, made: Load, took: float) -> str:
    return json.dumps(
        {
            "store": kind,
            "change": record.kind,
            "documents": DOCUMENTS,
            "seconds": round(took, 1),
            "searches": made.searches,
            "writes": made.writes,
            "failed": len(made.failures),
            "embedded": record.embedded,
        }
    )


def assert_is_whole(
    store: Store, documents: Mapping[str, Document], embedder: FakeEmbedder
) -> None:
    """Every document is as acknowledged, and the live generation has its chunks by ``embedder``."""
    store.refresh(C)
    found = {stored.document.id: stored.document for stored in store.documents(C)}
    assert found == documents
    live = store.live(C, fresh=True)
    assert live.recipe.embedder == embedder.fingerprint
    assert store.generations.pending_count(C, live.id) == 0
    names = list(documents)
    chunks = 0
    for at in range(0, len(names), 500):
        for name, stored in store.generations.chunks(C, live.id, names[at : at + 500]).items():
            document = documents[name]
            assert [each.chunk.position for each in stored] == list(range(len(stored)))
            for each in stored:
                chunk = each.chunk
                assert document.text[chunk.start : chunk.end] == chunk.text
                text = passage_text(document.title, chunk.headings, chunk.text)
                assert each.vector is not None
                assert np.allclose(each.vector, embedder.embed_query(text), atol=1e-4)
                chunks += 1
    collection = store.collection(C)
    assert (collection.documents, collection.chunks) == (len(documents), chunks)
