"""The contract of a store. ``tests/stores/contract.py`` holds it as test classes.

A store keeps each collection's documents, whole, as the truth, and one live generation of chunks that
a recipe derived from them. An acknowledged write survives ``kill -9``.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from server.documents import Chunk, Document, IndexedChunk, Passage, StoredDocument, Vector
from server.errors import TanyuanError
from server.recipes import Recipe
from server.sparse import SparseWeights
from server.stores.audit import Audits
from server.stores.filters import Filter
from server.stores.generations import Generation, Generations
from server.stores.notes import Notes

MAX_DEPTH = 10_000  # the deepest hit that can be reached (Elasticsearch's index.max_result_window)
MAX_TERMS = 20_000  # whose frequencies are asked for at once; a query of 2,000 characters has fewer


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A collection as it stands. Counts are of what search sees."""

    name: str
    description: str
    recipe: Recipe
    generation: str
    documents: int
    chunks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentState:
    """What the store knows of a document that is there, without its text.

    ``complete`` is False when a write of it was cut off, so it must be written again even if the
    content is the same.
    """

    revision: int
    content_hash: str
    chunks: int
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One document with all that was derived from it.

    ``if_revision``: the revision that must be there now; 0: the document must not be there; None:
    no condition.
    """

    document: Document
    chunks: tuple[IndexedChunk, ...]
    if_revision: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    document_id: str
    revision: int
    chunks: int
    status: Literal["created", "updated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    document_id: str
    revision: int  # of the delete itself
    chunks: int  # how many were removed


@dataclass(frozen=True, slots=True, kw_only=True)
class TextClause:
    """Terms to look for in one text field; scores of terms and clauses are summed (BM25, k1 1.2, b .75).

    A term that stands twice counts twice.
    """

    field: str
    terms: tuple[str, ...]
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LegsRequest:
    """What the retrievers are asked, side by side, under one filter.

    ``text``: clauses of the BM25 retriever, None to leave it out; no clauses match nothing.
    ``holding``: terms that each chunk of the BM25 retriever must have, in its bigrams or its title's.
    ``vector``: float32 (dimensions,) of length 1 for the kNN retriever, None to leave it out.
    ``sparse``: weights for the sparse retriever, None to leave it out; none of them match nothing.
    ``k``: hits wanted from each. ``seconds``: how long the caller waits for a store that is remote
    (None: as long as the store's own time-out); past it search raises StoreTimeout.
    ``generation``: whose recipe made terms and vector, or None for whichever is live. Where another is
    live by now, search raises GenerationChanged instead of mixing two recipes.
    """

    text: tuple[TextClause, ...] | None = None
    holding: tuple[str, ...] = ()
    vector: Vector | None = None
    sparse: SparseWeights | None = None
    filter: Filter | None = None
    k: int = 100
    seconds: float | None = None
    generation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One retriever's list: (chunk id, score) by falling score, ties by chunk id.

    BM25 scores are Lucene's; kNN scores are cosines; sparse ones the sum, over the tokens that query and
    chunk share, of the products of their weights, the chunk's rounded (``server.sparse``). ``total``: how
    many chunks match in all (but for BM25: how many were returned). ``took_ms``: the retriever's own time.
    """

    hits: tuple[tuple[str, float], ...] = ()
    total: int = 0
    took_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Legs:
    """The lists asked for; ``errors`` holds, by "bm25", "vector" or "sparse", why one is missing.

    ``generation``: whose chunks were searched.
    """

    generation: str = ""
    bm25: Leg | None = None
    vector: Leg | None = None
    sparse: Leg | None = None
    errors: Mapping[str, TanyuanError] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedChunk:
    """A chunk as search sees it, with its document's title and the groups that may see it."""

    chunk: Chunk
    title: str
    acl: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frequencies:
    """In how many chunks terms stand. ``of``: text field → term → how many, 0 for none; ``chunks``: of
    how many.

    Like BM25's own statistics they may be a little behind the writes, and count chunks that were
    deleted and not yet merged away. Of an index in several shards they are those of one shard, always
    the same: it is their proportion that counts.
    """

    chunks: int
    of: Mapping[str, Mapping[str, int]]

    def idf(self, field: str, term: str) -> float:
        """What a term that was asked for tells, as Lucene's BM25 has it: ln(1 + (N - n + .5)/(n + .5))."""
        found = self.of[field][term]
        return math.log1p((self.chunks - found + 0.5) / (found + 0.5))


class Store(Protocol):
    """Thread-safe. Every method may raise StoreUnavailable or StoreTimeout.

    ``follow_seconds``: how long it may take until this process sees a promotion that another made.
    """

    kind: str
    follow_seconds: float
    generations: Generations
    notes: Notes
    audits: Audits

    def create_collection(
        self,
        name: str,
        *,
        recipe: Recipe,
        description: str = "",
        notes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Collection:
        """Create an empty collection whose generation is stamped with ``recipe``, with these notes.

        Raises CollectionExists.
        """

    def describe(self, name: str, description: str) -> Collection:
        """Change a collection's description. Raises CollectionNotFound."""

    def collections(self) -> list[Collection]:
        """All collections by name."""

    def collection(self, name: str) -> Collection:
        """Raises CollectionNotFound."""

    def live(self, name: str, *, fresh: bool = False) -> Generation:
        """The live generation; cheap enough to ask at every query, since it may be ``follow_seconds``
        old unless ``fresh``. Raises CollectionNotFound.
        """

    def delete_collection(self, name: str) -> int:
        """Remove a collection with all it holds; return how many documents. Raises CollectionNotFound."""

    def states(self, collection: str, document_ids: Sequence[str]) -> dict[str, DocumentState]:
        """State by id, of those that are there. Sees every acknowledged write at once."""

    def write(
        self,
        collection: str,
        writes: Sequence[Write],
        *,
        key: str | None = None,
        refresh: bool = False,
    ) -> list[Written | TanyuanError]:
        """Put documents, replacing older ones with all their chunks; one result a write, in order.

        A failure of one does not stop the others: it is returned (RevisionConflict, InvalidInput,
        StoreFull …), never swallowed. Returned successes are durable, and with ``refresh`` search
        sees them. The same id twice in one call: the later wins, each has its result.
        ``key``: that of the generation that the chunks were made for, or None for whichever is live.
        Where another is live by now, or a fence stands, the result is GenerationChanged: the document
        has to be derived again by the live recipe and written with what that error says.
        Raises CollectionNotFound; InvalidInput for vectors of a wrong shape or that are not finite, for
        windows where the recipe has none, for sparse weights where it has none and without them where it
        has some, or for unknown text fields.
        """

    def delete(
        self,
        collection: str,
        document_id: str,
        *,
        if_revision: int | None = None,
        refresh: bool = False,
    ) -> Deleted:
        """Remove a document and all its chunks, keeping a tombstone so that revisions go on rising.
        Waits while a fence stands.

        Raises DocumentNotFound, RevisionConflict, CollectionNotFound.
        """

    def document(self, collection: str, document_id: str) -> StoredDocument:
        """The whole document; sees every acknowledged write. Raises DocumentNotFound."""

    def documents(self, collection: str) -> Iterator[StoredDocument]:
        """Every document, in no stated order, with bounded memory."""

    def search(self, collection: str, request: LegsRequest) -> Legs:
        """The lists, in one round trip where the store is remote. Raises CollectionNotFound."""

    def passages(
        self,
        collection: str,
        chunk_ids: Sequence[str],
        *,
        generation: str | None = None,
        windows: bool = False,
    ) -> dict[str, Passage]:
        """Passages by chunk id, of those that are there; of ``generation``, as a search told it, or
        of the live one; with the vectors of their windows if ``windows``. Raises GenerationChanged
        when that generation is gone."""

    def owned_chunks(self, collection: str) -> Iterator[OwnedChunk]:
        """Every chunk of the live generation, a document's together, with bounded memory; sees every
        acknowledged write made before the call.

        Documents that others change meanwhile may come as they were or as they are.
        Raises CollectionNotFound.
        """

    def holding(
        self,
        collection: str,
        phrases: Sequence[Sequence[str]],
        *,
        filter: Filter | None = None,  # noqa: A002 - as LegsRequest has it
    ) -> list[int]:
        """For each phrase, how many chunks that the filter lets pass hold every one of its terms, each
        in their bigrams or their title_bigrams; 0 for a phrase without terms. Counts above 100 may be
        told as 100. In one round trip where the store is remote.

        Raises CollectionNotFound, InvalidInput.
        """

    def mark(self, collection: str) -> str:
        """A text that is another one after each acknowledged change of the live generation. Raises
        CollectionNotFound."""

    def frequencies(
        self, collection: str, terms: Mapping[str, Sequence[str]], *, generation: str | None = None
    ) -> Frequencies:
        """How frequent terms are (text field → terms), in ``generation`` or the live one; cheap enough
        to ask at every query.

        Raises InvalidInput for unknown fields and for more than MAX_TERMS; GenerationChanged when that
        generation is gone; CollectionNotFound.
        """

    def refresh(self, collection: str) -> None:
        """Make every acknowledged write visible to search."""

    def check(self) -> str:
        """One line about the store when it can serve (version, place); else raises StoreUnavailable."""

    def close(self) -> None:
        """Release files and connections; calling it again does nothing."""
