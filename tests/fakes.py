"""Fakes that keep state and record calls; for the parts whose real ones are slow or can't fail on demand."""

import re
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.analysis.analyzer import JiebaAnalyzer
from server.analysis.contract import Analyzer
from server.documents import Vector
from server.errors import ConfigurationError, EmbedderUnavailable
from server.ingest.chunker import Chunker, chunker_for
from server.ingest.derivation import recipe_of
from server.ingest.indexer import Indexer
from server.live import LiveCollections
from server.models.contract import Embedder
from server.models.embedders import Embedders
from server.sparse import Embedded, SparseWeights
from server.stores.contract import Store

_TOKEN = re.compile(r"[a-zA-Z]+|[^\sa-zA-Z]")


def count_tokens(text: str) -> int:
    """One a Latin word and one for any other character, as BERT's tokenizer for Chinese counts."""
    return len(_TOKEN.findall(text))


def live_collections(
    store: Store,
    analyzer: Analyzer,
    embedder: Embedder | None = None,
    chunker: Chunker | None = None,
    *,
    others: Sequence[Embedder] = (),
    pinned: Sequence[str] = ("embedder", "chunker"),
    windowed: bool = True,
) -> LiveCollections:
    """Collections served by a process with these parts. ``others``: embedders that it finds by name
    when a recipe asks for them."""

    def open_model(name: str) -> Embedder:
        for other in others:
            if other.name == name:
                return other
        raise ConfigurationError(f"There is no model {name!r} here.")

    return LiveCollections(
        store,
        own=recipe_of(analyzer, embedder, chunker or chunker_for(embedder), windowed=windowed),
        analyzer=analyzer,
        make_analyzer=JiebaAnalyzer,
        embedders=Embedders(embedder, open_model),
        pinned=pinned,
    )


def make_indexer(
    store: Store,
    analyzer: Analyzer,
    embedder: Embedder | None = None,
    chunker: Chunker | None = None,
) -> Indexer:
    """An indexer of a process with these parts."""
    return Indexer(store, live_collections(store, analyzer, embedder, chunker))


class FakeEmbedder:
    """An Embedder whose vectors depend on the text alone, and which can fail on demand.

    ``calls``: the texts of each call of ``embed_documents``, in order. ``poison``: a text that holds
    one of these fails its call. ``down``: every call fails.
    """

    max_tokens = 512
    temperature = 0.02

    def __init__(self, *, dimensions: int = 16, version: str = "1") -> None:
        self.dimensions = dimensions
        self.fingerprint = f"fake:{version}"
        self.name = "fake" if version == "1" else f"fake-{version}"
        self.calls: list[list[str]] = []
        self.poison: set[str] = set()
        self.down = False

    @property
    def texts(self) -> list[str]:
        """Every text that was embedded or asked for."""
        return [text for call in self.calls for text in call]

    def warm_up(self) -> None:
        pass

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls.append(list(texts))
        if self.down or any(word in text for word in self.poison for text in texts):
            raise EmbedderUnavailable("The fake embedder was told to fail.")
        vectors = [self._vector(text) for text in texts]
        return np.stack(vectors) if vectors else np.empty((0, self.dimensions), np.float32)

    def embed_query(self, text: str) -> Vector:
        if self.down:
            raise EmbedderUnavailable("The fake embedder was told to fail.")
        return self._vector(text)

    def count_tokens(self, text: str) -> int:
        return count_tokens(text)

    def _vector(self, text: str) -> Vector:
        seed = zlib.crc32(f"{self.fingerprint} {text}".encode())
        vector = np.random.default_rng(seed).standard_normal(self.dimensions).astype(np.float32)
        return vector / np.float32(np.linalg.norm(vector))


class FakeSparseEmbedder(FakeEmbedder):
    """A SparseEmbedder that gives each token of a text the same weight, the rarer in it the less.

    ``head``: which one it is, of those that make other weights of the same hidden states.
    """

    sparse_share = 0.3

    def __init__(self, *, dimensions: int = 16, version: str = "1", head: str = "1") -> None:
        super().__init__(dimensions=dimensions, version=version)
        self.sparse_fingerprint = f"fake-head:{head}"

    def encode_documents(self, texts: Sequence[str]) -> list[Embedded]:
        vectors = self.embed_documents(texts)
        return [
            Embedded(vector, self.sparse(text)) for vector, text in zip(vectors, texts, strict=True)
        ]

    def encode_query(self, text: str) -> Embedded:
        return Embedded(self.embed_query(text), self.sparse(text))

    def sparse(self, text: str) -> SparseWeights:
        counts = Counter(zlib.crc32(token.encode()) % 250_000 for token in _TOKEN.findall(text))
        scale = 0.25 if self.sparse_fingerprint.endswith("1") else 0.125
        return SparseWeights.of({token: scale * (1 - 0.5**n) for token, n in counts.items()})
