"""A dictionary change that touches 40 documents, beside a rebuild of all of them.

TANYUAN_TEST_DOCUMENTS says how many there are (20,000 in the README's figures).
"""

import json
import os
import time
from functools import lru_cache

import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.analysis.dictionary import UserDictionary
from server.documents import Document
from server.ingest.indexer import Indexer, Put
from server.lifecycle.dictionary import DictionaryChanges
from server.lifecycle.rebuild import Rebuilder
from server.retrieval.query import SearchQuery
from server.retrieval.searcher import Searcher
from server.stores.contract import Store
from server.vocabulary import Vocabulary
from tests.fakes import FakeEmbedder, live_collections
from tests.lifecycle.test_dictionary import TOUCHED_IDS, C, add, document, touched, with_term

DOCUMENTS = int(os.environ.get("TANYUAN_TEST_DOCUMENTS", "500"))
TOUCHED = 40
WORDS = ("云梯平台", "灰度发布")  # both in the touched documents, and unknown to jieba


@pytest.mark.timeout(1800)
def test_what_it_does_and_how_long_it_takes(store: Store) -> None:
    embedder = FakeEmbedder(dimensions=64)
    make_analyzer = lru_cache(JiebaAnalyzer)
    live = live_collections(store, make_analyzer(UserDictionary()), embedder)
    indexer = Indexer(store, live)
    indexer.ensure_collection(C)
    made = [_touched(n) if n < TOUCHED else document(n) for n in range(DOCUMENTS)]
    for at in range(0, DOCUMENTS, 500):
        results = indexer.put(C, made[at : at + 500])
        assert all(isinstance(result, Put) for result in results), results
    store.refresh(C)
    embedder.calls.clear()

    began = time.perf_counter()
    Rebuilder(store, live).rebuild(C, by="test").run()
    rebuilt = time.perf_counter() - began

    searcher = Searcher(store=store, live=live, reranker=None)
    dictionaries = DictionaryChanges(
        store, live, Vocabulary(store.notes), make_analyzer, UserDictionary()
    )
    seconds = []
    for word in WORDS:
        assert with_term(store, word) == set()
        add(store, word)
        began = time.perf_counter()
        record = dictionaries.apply(C, by="test").run()
        seconds.append(time.perf_counter() - began)
        assert (record.state, record.done) == ("promoted", TOUCHED)
        assert with_term(store, word) == {f"d{n}" for n in range(TOUCHED)} >= TOUCHED_IDS
        query = SearchQuery(query=word, collection=C, mode="bm25", rerank=False, size=TOUCHED)
        hits = searcher.search(query, groups=None).hits
        assert {hit.document_id for hit in hits} == {f"d{n}" for n in range(TOUCHED)}
    assert embedder.calls == []
    print(  # noqa: T201
        json.dumps(
            {
                "store": store.kind,
                "documents": DOCUMENTS,
                "derived": TOUCHED,
                "rebuild_s": round(rebuilt, 2),
                "apply_s": [round(each, 2) for each in seconds],
                "share": [round(each / rebuilt, 4) for each in seconds],
            }
        )
    )


def _touched(number: int) -> Document:
    return document(number, touched(number).text + "灰度发布在部署之后。")
