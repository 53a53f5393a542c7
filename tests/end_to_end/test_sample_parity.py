"""The sample and its questions rank alike on the embedded store and on the others.

What may differ: Elasticsearch and ChromaDB find their nearest neighbours in a graph (Elasticsearch by
int8 vectors), and each adds float32 scores in an order of its own, so chunks with all but equal scores
may change places.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from numpy.typing import NDArray

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Vector
from server.ingest.windows import passages_of
from server.models.e5 import E5Embedder
from server.retrieval.profile import Profile
from server.retrieval.query import text_clauses
from server.stores.chroma.engine import ChromaEngine
from server.stores.contract import LegsRequest, Store
from server.stores.elasticsearch.store import ElasticsearchStore
from server.stores.embedded.store import EmbeddedStore
from server.stores.embedded.vectors import VectorEngine
from server.stores.milvus.engine import MilvusEngine
from tests.fakes import make_indexer
from tests.product import SAMPLE
from tests.services.elasticsearch import targets

COLLECTION = "default"
TOP = 10
LEAST_OVERLAP = 0.95


class Remembered:
    """e5 with the vectors of the sample's passages known, since making them takes half a minute."""

    def __init__(self, embedder: E5Embedder, vectors: Mapping[str, Vector]) -> None:
        self.name = embedder.name
        self.dimensions = embedder.dimensions
        self.max_tokens = embedder.max_tokens
        self.temperature = embedder.temperature
        self.fingerprint = embedder.fingerprint
        self.count_tokens = embedder.count_tokens
        self.embed_query = embedder.embed_query
        self.warm_up = embedder.warm_up
        self._vectors = vectors

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([self._vectors[text] for text in texts])


def passages_with_vectors(store: Store) -> dict[str, Vector]:
    """What a store holds: passages and windows, as an embedder reads them, with their vectors."""
    vectors: dict[str, Vector] = {}
    generation = store.live(COLLECTION).id
    for stored in store.documents(COLLECTION):
        document = stored.document
        for each in store.generations.chunks(COLLECTION, generation, [document.id])[document.id]:
            assert each.vector is not None
            windows = () if each.windows is None else each.windows
            texts = passages_of(document.title, each.chunk, windowed=True).values()
            vectors.update(zip(texts, [each.vector, *windows], strict=True))
    return vectors


# Other engines over the documents of the embedded store, always asked: kind → made for a folder.
ENGINES: Mapping[str, Callable[[Path], VectorEngine]] = {
    "chroma": lambda folder: ChromaEngine(folder / "chroma", exact=0, tail=0, patience=60),
    "milvus": MilvusEngine,
}


@pytest.fixture(params=["elasticsearch", *ENGINES])
def stores(
    request: pytest.FixtureRequest, copy_of_sample: Callable[[], Path]
) -> Iterator[tuple[Store, Store]]:
    """The sample in the embedded store and in another one."""
    folder = copy_of_sample() / "store"
    embedded = EmbeddedStore(folder)
    if request.param == "elasticsearch":
        elasticsearch = request.getfixturevalue("elasticsearch")
        with indexed_again(embedded, elasticsearch(targets()[0])) as remote:
            yield embedded, remote
    else:
        other = EmbeddedStore(folder, engine=ENGINES[request.param](folder))
        yield embedded, other
        other.close()
    embedded.close()


@contextmanager
def indexed_again(embedded: EmbeddedStore, url: str) -> Iterator[ElasticsearchStore]:
    """What scripts/index_documents put into one store, indexed again into the other."""
    remote = ElasticsearchStore(url, prefix=f"test-{uuid.uuid4().hex[:12]}")
    embedder = Remembered(E5Embedder(), passages_with_vectors(embedded))
    indexer = make_indexer(remote, JiebaAnalyzer(), embedder)
    assert indexer.recipe == embedded.live(COLLECTION).recipe
    indexer.ensure_collection(COLLECTION)
    documents = [stored.document for stored in embedded.documents(COLLECTION)]
    results = indexer.put(COLLECTION, documents, refresh=True)
    assert {getattr(result, "status", result) for result in results} == {"created"}
    yield remote
    remote.delete_collection(COLLECTION)
    remote.close()


def test_the_top_ten_of_each_leg_are_the_same(stores: tuple[Store, Store]) -> None:
    analyzer, embedder, profile = JiebaAnalyzer(), E5Embedder(), Profile()
    overlaps: dict[str, dict[str, float]] = {"bm25": {}, "vector": {}}
    for line in (SAMPLE / "queries.jsonl").read_text(encoding="utf-8").splitlines():
        question = json.loads(line)["text"]
        request = LegsRequest(
            text=text_clauses(analyzer.analyze(question), profile),
            vector=embedder.embed_query(question),
            k=TOP,
        )
        legs = [store.search(COLLECTION, request) for store in stores]
        for name, shares in overlaps.items():
            one, other = ({chunk_id for chunk_id, _ in getattr(leg, name).hits} for leg in legs)
            # Both may be empty: no document holds any of the words.
            shares[question] = len(one & other) / len(one | other) if one | other else 1.0
    assert len(overlaps["bm25"]) == 60
    for name, shares in overlaps.items():
        overlap = mean(shares.values())
        differing = {question: share for question, share in shares.items() if share < 1}
        print(f"{name}: mean overlap of the top {TOP} {overlap:.4f}; differing: {differing}")  # noqa: T201
        assert overlap >= LEAST_OVERLAP, differing
