"""An embedder that remembers: the vectors of its latest queries in memory, those of passages in a file.

A second page, another mode, or the answer after the search asks for the vector of the same query again, and
a document of which one paragraph changed, or that got another id, has passages that were read before. A model
takes longer for them than all else does.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from server.documents import Vector
from server.models.contract import Embedder
from server.models.passage_vectors import PassageVectors

QUERY_BYTES = 8 * 1024 * 1024  # of an embedder's queries: some 4,000 of 384 numbers, 1,800 of 1,024
_ENTRY_BYTES = 400  # that a query takes besides its text and its vector
_CHARACTER_BYTES = 4

_Key = tuple[str, str]  # fingerprint and text


class Remembering:
    """An Embedder that is another one with a memory. Thread-safe.

    ``passages``: where vectors of passages are kept; None: nowhere.
    """

    def __init__(
        self,
        embedder: Embedder,
        passages: PassageVectors | None = None,
        *,
        query_bytes: int = QUERY_BYTES,
    ) -> None:
        self._embedder = embedder
        self._passages = passages
        self._queries = _Queries(embedder, query_bytes)
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
        """Only what is not known is embedded, and each text once."""
        if self._passages is None:
            return self._embedder.embed_documents(texts)
        fingerprint = self._embedder.fingerprint
        known = self._passages.get(fingerprint, self.dimensions, texts)
        new = list(dict.fromkeys(text for text in texts if text not in known))
        if new:
            made = self._embedder.embed_documents(new)
            self._passages.put(fingerprint, new, made)
            known.update(zip(new, made, strict=True))
        return np.array([known[text] for text in texts], np.float32).reshape(-1, self.dimensions)

    def embed_query(self, text: str) -> Vector:
        """Read only, since all who ask share it. An error is not remembered."""
        return self._queries.vector(text)

    def count_tokens(self, text: str) -> int:
        return self._embedder.count_tokens(text)


class _Queries:
    """The vectors of the latest queries, as many as take ``most`` bytes."""

    def __init__(self, embedder: Embedder, most: int) -> None:
        self._embedder = embedder
        self._most = most
        self._bytes = 0
        self._vectors: OrderedDict[_Key, Vector] = OrderedDict()  # the latest last
        self._asked: dict[_Key, Future[Vector]] = {}  # what is being embedded
        self._mutex = threading.Lock()  # never held while something is embedded

    def vector(self, text: str) -> Vector:
        key = (self._embedder.fingerprint, text)
        with self._mutex:
            found = self._vectors.get(key)
            if found is not None:
                self._vectors.move_to_end(key)
                return found
            asked = self._asked.get(key)
            if asked is None:
                mine = self._asked[key] = Future[Vector]()
        if asked is not None:  # somebody asks for the same at this moment
            return asked.result()
        try:
            vector = self._embedder.embed_query(text).view()
            vector.flags.writeable = False
        except BaseException as error:
            with self._mutex:
                del self._asked[key]
            mine.set_exception(error)
            raise
        with self._mutex:
            self._keep(key, vector)
            del self._asked[key]
        mine.set_result(vector)
        return vector

    def _keep(self, key: _Key, vector: Vector) -> None:
        self._vectors[key] = vector
        self._bytes += _size(key, vector)
        while self._bytes > self._most:
            self._bytes -= _size(*self._vectors.popitem(last=False))


def _size(key: _Key, vector: Vector) -> int:
    return _ENTRY_BYTES + _CHARACTER_BYTES * len(key[1]) + vector.nbytes
