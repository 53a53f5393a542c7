"""The Elasticsearch store on three nodes, of which one is killed."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.errors import StoreUnavailable
from server.stores.contract import Written
from server.stores.elasticsearch.store import ElasticsearchStore
from tests.services.elasticsearch import VERSIONS, Node, own_cluster
from tests.stores.builders import NEXT_RECIPE, RECIPE, bm25_ids, derivation, write


@pytest.fixture(params=VERSIONS)
def cluster(request: pytest.FixtureRequest) -> Iterator[list[Node]]:
    with own_cluster(request.param) as running:
        yield running


def holder(store: ElasticsearchStore, cluster: list[Node], index: str) -> Node:
    """The node that has the primary shard of an index."""
    shards = store._client.cat.shards(index=index, format="json", h=["prirep", "node"]).body
    [name] = [shard["node"] for shard in shards if shard["prirep"] == "p"]  # type: ignore[index]
    return cluster[int(name.rpartition("-")[2])]


def written_while_killing(store: ElasticsearchStore, cluster: list[Node]) -> dict[str, int]:
    """Document id → revision of what four writers were told, before and after a node is killed."""
    acknowledged: dict[str, int] = {}
    stop = threading.Event()
    rounds: Counter[int] = Counter()

    def put(worker: int) -> None:
        number = 0
        while not stop.is_set():
            # Every third is written again with fewer chunks.
            name = f"w{worker}-{number - number % 3 // 2}"
            texts = [f"red {name} part{part}" for part in range(3 - number % 3)]
            number += 1
            try:
                [result] = store.write("c", [write(name, *texts)])
            except StoreUnavailable:
                continue
            if isinstance(result, Written):
                acknowledged[name] = result.revision
                rounds[worker] += 1

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(put, worker) for worker in range(4)]
        time.sleep(2)
        holder(store, cluster, "killed.c.chunks").kill()
        before = Counter(rounds)
        end = time.monotonic() + 90
        while any(rounds[worker] < before[worker] + 20 for worker in range(4)):
            assert time.monotonic() < end, (before, rounds)  # writes go on with two nodes
            time.sleep(0.1)
        stop.set()
        for worker in running:
            worker.result(60)
    assert len(acknowledged) > 40
    return acknowledged


def rebuild(store: ElasticsearchStore, collection: str) -> None:
    """Another recipe's generation, filled and made live."""
    generations = store.generations
    made = generations.create(collection, recipe=NEXT_RECIPE)
    batch = [derivation(each, NEXT_RECIPE) for each in generations.pending(collection, made.id)]
    assert all(result is True for result in generations.derive(collection, made.id, batch))
    generations.settle(collection, made.id)
    health = store._client.cluster.health(index=f"*.{collection}.chunks.{made.id}")
    assert (health["status"], health["active_shards"]) == ("green", 2)
    fence = generations.fence(collection)
    generations.promote(collection, made.id, fence=fence)


def test_every_acknowledged_write_survives_a_node_killed_in_the_middle(
    cluster: list[Node],
) -> None:
    urls = ",".join(node.url for node in cluster)
    store = ElasticsearchStore(urls, prefix="killed", replicas=1, timeout=20)
    store.create_collection("c", recipe=RECIPE)
    store._client.cluster.health(index="killed.c.*", wait_for_status="green", timeout="30s")
    acknowledged = written_while_killing(store, cluster)
    store.refresh("c")
    states = store.states("c", list(acknowledged))
    assert states.keys() == acknowledged.keys()
    everything = bm25_ids(store, "c", "red", k=10_000)
    assert max(Counter(everything).values()) == 1
    found = Counter(chunk.rpartition(":")[0] for chunk in everything)
    for name, revision in acknowledged.items():
        assert states[name].revision >= revision
        if states[name].revision == revision:
            assert states[name].complete
            assert found[name] == states[name].chunks, name
    # With two nodes left, a generation is made and becomes live, with a copy of every shard.
    rebuild(store, "c")
    names = {name.rpartition(":")[0] for name in bm25_ids(store, "c", "red", k=10_000)}
    assert names >= acknowledged.keys()
    store.close()
