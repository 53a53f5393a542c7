"""An embedder that remembers queries: a second page, another mode, or the answer after the search asks for
the vector of the same query again, and a model on a CPU takes longer for it than the search does."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from server.documents import Vector
from server.models.contract import Embedder

_QUERIES = 256  # kept, some 2 KB each


class Remembering:
    """An Embedder that is another one with the vectors of its latest queries."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vector = lru_cache(_QUERIES)(self._embed)
        self.name = embedder.name
        self.dimensions = embedder.dimensions
        self.max_tokens = embedder.max_tokens
        self.temperature = embedder.temperature

    @property
    def fingerprint(self) -> str:
        return self._embedder.fingerprint

    def warm_up(self) -> None:
        self._embedder.warm_up()

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._embedder.embed_documents(texts)

    def embed_query(self, text: str) -> Vector:
        """Read only, since all who ask share it. An error is not remembered."""
        return self._vector(text)

    def count_tokens(self, text: str) -> int:
        return self._embedder.count_tokens(text)

    def _embed(self, text: str) -> Vector:
        vector = self._embedder.embed_query(text).view()
        vector.flags.writeable = False
        return vector
