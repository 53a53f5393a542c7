"""A node of a three-node cluster killed with -9 in the middle of a rebuild under write load.

TANYUAN_TEST_NODES says which nodes, one after the other (0,1,2 in the README's figures).
"""

import json
import os
import threading
import time
import uuid
from contextlib import suppress

import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.errors import DocumentNotFound
from server.ingest.indexer import Indexer
from server.lifecycle.rebuild import Rebuilder
from server.retrieval.searcher import Searcher
from server.stores.elasticsearch.store import ElasticsearchStore
from tests.fakes import FakeEmbedder, live_collections
from tests.lifecycle.load import fill, load
from tests.lifecycle.test_under_load import C, assert_is_whole
from tests.services.elasticsearch import own_cluster

OLD, NEW = FakeEmbedder(), FakeEmbedder(version="2", dimensions=24)
VICTIMS = [int(each) for each in os.environ.get("TANYUAN_TEST_NODES", "1").split(",")]
DOCUMENTS = 600


@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", VICTIMS)
def test_nothing_acknowledged_is_lost(victim: int) -> None:
    with own_cluster() as nodes:
        url = ",".join(node.url for node in nodes)
        prefix = f"test-{uuid.uuid4().hex[:12]}"
        serving, administering = (
            ElasticsearchStore(url, prefix=prefix, replicas=1, timeout=30.0) for _ in range(2)
        )
        live = live_collections(serving, JiebaAnalyzer(), OLD, others=[OLD, NEW])
        indexer = Indexer(serving, live)
        searcher = Searcher(store=serving, live=live, reranker=None)
        documents = fill(indexer, C, DOCUMENTS)
        work = Rebuilder(
            administering, live_collections(administering, JiebaAnalyzer(), NEW, others=[OLD, NEW])
        ).rebuild(C, by="test")
        ended = threading.Event()

        def kill() -> None:
            while not ended.wait(0.05):
                if work.record.done > DOCUMENTS // 3:
                    nodes[victim].kill()
                    return

        killing = threading.Thread(target=kill)
        killing.start()
        began = time.monotonic()
        with load(searcher, indexer, C, documents) as made:
            try:
                record = work.run()
            finally:
                ended.set()
                killing.join()
            took = time.monotonic() - began
            time.sleep(2)
        assert nodes[victim].process is None
        assert record.state == "promoted"
        assert made.writes > 0
        found = {stored.document.id: stored.document for stored in serving.documents(C)}
        for name, document in made.acknowledged.items():
            assert found.get(name) in [document, *made.attempted.get(name, [])], name
        cut_off = [
            each.document_id
            for each in serving.generations.pending(C, serving.live(C, fresh=True).id)
        ]
        assert set(cut_off) <= made.attempted.keys()
        # What failed on the way is made again by whoever asked for it, as clients do.
        for name in made.attempted:
            if name in found:
                indexer.put(C, [found[name]])
            else:
                with suppress(DocumentNotFound):
                    serving.delete(C, name)
        assert_is_whole(serving, found, NEW)
        print(  # noqa: T201
            json.dumps(
                {
                    "victim": victim,
                    "seconds": round(took, 1),
                    "writes": made.writes,
                    "searches": made.searches,
                    "failed while the node was lost": len(made.failures),
                    "generation": record.generation,  # 000003: the first one was lost with the node
                }
            )
        )
        serving.close()
        administering.close()
