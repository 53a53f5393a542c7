"""scripts/dictionary apply killed with -9: the collection serves on, and the next one mends what is left.

TANYUAN_TEST_KILLS says how often.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from random import Random

import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Document
from server.ingest.indexer import Indexer, Put
from server.lifecycle.progress import Rebuilds
from server.retrieval.query import SearchQuery
from server.retrieval.searcher import Searcher
from server.stores.contract import LegsRequest, Store, TextClause
from server.vocabulary import Vocabulary
from tests.lifecycle import test_killed_rebuild
from tests.lifecycle.load import document, fill
from tests.lifecycle.test_killed_rebuild import C, Place
from tests.product import ROOT, environment, script

KILLS = int(os.environ.get("TANYUAN_TEST_KILLS", "4"))
DOCUMENTS = 400
WORDS = ("差旅报销", "住宿标准", "采购审批")

place = test_killed_rebuild.place


def apply(place: Place) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, ROOT / "scripts" / "dictionary", "--collection", C, "apply"],
        env=environment(place.data, **place.settings, embedder="none"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def moment(store: Store, number: int, seconds: float) -> Callable[[], bool]:
    """When to kill: by what the change is at, or at a random time after its start."""
    before = store.live(C, fresh=True)
    rebuilds = Rebuilds(store.notes, C)
    known = {record.id for record in rebuilds.all()}
    at = time.monotonic() + Random(number).uniform(0.4, 1.0) * seconds

    def done() -> int:
        return next((each.done for each in rebuilds.all() if each.id not in known), 0)

    return {
        0: lambda: store.notes.get(C, f"applying:{before.id}") is not None,
        1: lambda: done() > 0,
        2: lambda: store.live(C, fresh=True).fence != "",
        3: lambda: store.live(C, fresh=True).edition != before.edition,
    }.get(number % 6, lambda: time.monotonic() > at)


def with_term(store: Store, term: str) -> set[str]:
    leg = store.search(
        C, LegsRequest(text=(TextClause(field="words", terms=(term,)),), k=10_000)
    ).bm25
    assert leg is not None
    return {chunk_id.rpartition(":")[0] for chunk_id, _ in leg.hits}


def assert_has_the_words_in_force(store: Store, documents: dict[str, Document]) -> None:
    store.refresh(C)
    version = store.live(C, fresh=True).recipe.dictionary
    analyzer = JiebaAnalyzer(Vocabulary(store.notes).dictionary(C, version))
    words = {
        name: {token.term for token in analyzer.analyze(each.text).words}
        for name, each in documents.items()
    }
    for word in (*WORDS, "报销", "标准", "审批"):
        assert with_term(store, word) == {name for name in documents if word in words[name]}


@pytest.mark.timeout(1500)
def test_killed_at_any_point(place: Place) -> None:
    store = place.store
    live = place.live
    indexer, searcher = Indexer(store, live), Searcher(store=store, live=live, reranker=None)
    documents = fill(indexer, C, DOCUMENTS)
    store.refresh(C)
    vocabulary = Vocabulary(store.notes)
    vocabulary.change(C, "dictionary", add=WORDS[:1], author="test")
    began = time.monotonic()
    assert apply(place).wait() == 0
    seconds = time.monotonic() - began
    assert_has_the_words_in_force(store, documents)
    killed_in: list[str] = []
    for number in range(KILLS):
        chosen = [word for at, word in enumerate(WORDS) if (number + 2) >> at & 1]
        vocabulary.replace(C, "dictionary", chosen, author="test")
        due = moment(store, number, seconds)
        process = apply(place)
        while not due() and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed_in.append(next(each.state for each in Rebuilds(store.notes, C).all()))

        written = document(f"d{number}", 1)
        results: list[object] = []
        # A fence that was left keeps it waiting until the next command lifts it.
        writing = threading.Thread(target=lambda: results.extend(indexer.put(C, [written])))  # noqa: B023
        writing.start()
        for word in WORDS:
            query = SearchQuery(query=word, collection=C, mode="bm25", rerank=False, size=100)
            found = searcher.search(query, groups=None)
            assert found.hits
            assert not found.degraded

        if number % 3 == 2:
            script(
                *("dictionary", "--collection", C, "abandon"),
                data=place.data,
                **place.settings,
                embedder="none",
            )
        else:
            if number % 3 == 1:
                vocabulary.replace(C, "dictionary", WORDS[1:], author="test")
            done = apply(place)
            assert done.wait() == 0
            assert store.live(C, fresh=True).recipe.dictionary == vocabulary.heads(C)["dictionary"]
        writing.join()
        assert [type(result) for result in results] == [Put], results
        documents[written.id] = written
        assert_has_the_words_in_force(store, documents)
        assert all(each.ended for each in Rebuilds(store.notes, C).all())
        assert store.notes.under(C, "applying:") == {}
        assert {each.document.id: each.document for each in store.documents(C)} == documents
    print(json.dumps({"store": store.kind, "killed in": killed_in}))  # noqa: T201
