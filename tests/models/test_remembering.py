"""An embedder that remembers queries is otherwise the one that it holds."""

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


def test_everything_else_is_the_embedders_own():
    inner = FakeEmbedder()
    embedder = Remembering(inner)

    assert (embedder.name, embedder.dimensions, embedder.max_tokens) == ("fake", 16, 512)
    assert embedder.fingerprint == inner.fingerprint
    assert embedder.count_tokens("年假 days") == 3
    embedder.embed_documents(["a"])
    assert inner.calls == [["a"]]
