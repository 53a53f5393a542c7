"""An embedder that remembers queries, with their sparse weights where it gives them."""

from collections.abc import Sequence
from functools import lru_cache

from server.documents import Vector
from server.models.contract import Embedder, SparseEmbedder, gives_sparse
from server.models.passage_vectors import PassageVectors
from server.models.remembering import Remembering
from server.sparse import Embedded

_QUERIES = 256  # kept, some 2 to 6 KB each


class RememberingSparse(Remembering):
    """A SparseEmbedder that is another one with what it made of its latest queries."""

    def __init__(self, embedder: SparseEmbedder, passages: PassageVectors | None = None) -> None:
        super().__init__(embedder, passages)
        self._sparse = embedder
        self._both = lru_cache(_QUERIES)(self._encode)
        self.sparse_share = embedder.sparse_share

    @property
    def sparse_fingerprint(self) -> str:
        return self._sparse.sparse_fingerprint

    def embed_query(self, text: str) -> Vector:
        return self._both(text).vector

    def encode_query(self, text: str) -> Embedded:
        """Read only, as of ``embed_query``."""
        return self._both(text)

    def encode_documents(self, texts: Sequence[str]) -> list[Embedded]:
        return self._sparse.encode_documents(texts)

    def _encode(self, text: str) -> Embedded:
        made = self._sparse.encode_query(text)
        made.vector.flags.writeable = False
        if made.sparse is not None:
            made.sparse.ids.flags.writeable = made.sparse.weights.flags.writeable = False
        return made


def remembering(embedder: Embedder, passages: PassageVectors | None = None) -> Remembering:
    if gives_sparse(embedder):
        return RememberingSparse(embedder, passages)
    return Remembering(embedder, passages)
