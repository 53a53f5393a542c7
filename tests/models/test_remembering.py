"""An embedder that remembers queries is otherwise the one that it holds."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from server.errors import EmbedderUnavailable
from server.models.contract import Embedder
from server.models.remembering import Remembering
from tests.fakes import FakeEmbedder


class CountingEmbedder(FakeEmbedder):
    """Counts the queries that it was asked for."""

    def __init__(self):
        super().__init__()
        self.queries = []

    def embed_query(self, text):
        self.queries.append(text)
        return super().embed_query(text)


def test_a_query_is_embedded_once():
    inner = CountingEmbedder()
    embedder: Embedder = Remembering(inner)

    vectors = [embedder.embed_query(text) for text in ("年假", "报销", "年假")]

    assert inner.queries == ["年假", "报销"]
    assert np.array_equal(vectors[0], vectors[2])
    assert np.array_equal(vectors[0], FakeEmbedder().embed_query("年假"))
    with pytest.raises(ValueError, match="read-only"):
        vectors[0][0] = 1


def test_a_failure_is_not_remembered():
    inner = CountingEmbedder()
    embedder = Remembering(inner)
    inner.down = True
    with pytest.raises(EmbedderUnavailable):
        embedder.embed_query("年假")
    inner.down = False

    assert embedder.embed_query("年假").shape == (16,)


def test_those_who_ask_the_same_at_once_share_one_embedding():
    gate, open_gate = threading.Event(), threading.Event()

    class Slow(CountingEmbedder):
        def embed_query(self, text):
            gate.set()
            assert open_gate.wait(20)
            return super().embed_query(text)

    inner = Slow()
    embedder = Remembering(inner)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(embedder.embed_query, "年假") for _ in range(8)]
        assert gate.wait(20)
        open_gate.set()
        vectors = [each.result(20) for each in asked]

    assert inner.queries == ["年假"]
    assert all(vector is vectors[0] for vector in vectors)


def test_the_latest_queries_stay_within_the_bytes():
    inner = CountingEmbedder()
    embedder = Remembering(inner, query_bytes=10_000)  # some 20 short ones
    texts = [f"query {number}" for number in range(200)]
    for text in texts:
        embedder.embed_query(text)
        embedder.embed_query(texts[0])
    inner.queries.clear()

    for text in (texts[0], texts[-1], texts[-5]):
        embedder.embed_query(text)
    assert inner.queries == []
    embedder.embed_query(texts[1])
    embedder.embed_query("a long one" * 10_000)
    assert embedder.embed_query(texts[1]).shape == (16,)
    assert inner.queries == [texts[1], "a long one" * 10_000, texts[1]]


def test_another_version_of_the_model_is_asked_anew():
    inner = CountingEmbedder()
    embedder = Remembering(inner)
    before = embedder.embed_query("年假")
    inner.fingerprint = "fake:2"

    assert not np.array_equal(embedder.embed_query("年假"), before)
    assert inner.queries == ["年假", "年假"]


def test_everything_else_is_the_embedders_own():
    inner = FakeEmbedder()
    embedder = Remembering(inner)

    assert (embedder.name, embedder.dimensions, embedder.max_tokens) == ("fake", 16, 512)
    assert embedder.fingerprint == inner.fingerprint
    assert embedder.count_tokens("年假 days") == 3
    embedder.embed_documents(["a"])
    assert inner.calls == [["a"]]
