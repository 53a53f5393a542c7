"""The contract of audits: what a store has of each document, for ``scripts/verify`` to judge."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from server.documents import Chunk, Document, Vectors
from server.sparse import SparseWeights

DriftKind = Literal["missing", "surplus", "damaged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedChunk:
    """A chunk as it lies in the generation, whatever is wrong with it.

    ``key``: what ``remove`` takes. ``revision``: of the document that it was made of. ``vector``: any
    shape, NaN too; None where there is none; ``windows`` and ``sparse`` likewise. ``title``, ``source``,
    ``metadata`` and ``labels`` (label terms, sorted) are the copies kept with the chunk, or None in a
    store that keeps none.
    """

    key: str
    chunk: Chunk
    revision: int
    vector: NDArray[np.float32] | None
    windows: Vectors | None = None
    sparse: SparseWeights | None = None
    title: str | None = None
    source: str | None = None
    metadata: Mapping[str, Any] | None = None
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """One id, with the document (None: there is none, or it was deleted) and every chunk in its name,
    by position. ``chunks_expected``: how many the document's record says. ``complete``: whether its
    last write was finished; ``level``: whether it is marked level in the live generation.
    ``content_hash``: of the document as it was put, or empty."""

    document_id: str
    document: Document | None
    revision: int
    chunks_expected: int
    complete: bool
    level: bool
    chunks: tuple[AuditedChunk, ...]
    content_hash: str = ""


@dataclass(frozen=True, slots=True)
class Drift:
    """A part of the store that does not say what the others say of a chunk (or, with an empty
    ``chunk_id``, as a whole)."""

    part: str  # "text index", "counts" …
    kind: DriftKind
    chunk_id: str
    detail: str


class Audits(Protocol):
    """Reads of the live generation. Any method may raise CollectionNotFound or StoreUnavailable."""

    def every(self, collection: str) -> Iterator[Audited]:
        """Every document and every chunk without one, by document id, with bounded memory.

        Sees every acknowledged write made before the call; while others write, what comes may be half
        of a change, so that a suspect is looked at again by ``one``.
        """

    def one(self, collection: str, document_id: str) -> Audited:
        """The same of one id, as it is now; without document and chunks where there is nothing."""

    def drift(self, collection: str) -> list[Drift]:
        """Where the store's parts differ, by itself free of false alarms while others write."""

    def remove(self, collection: str, keys: Sequence[str]) -> int:
        """Remove chunks that belong to no document, or stand twice; how many there were."""

    def mend(self, collection: str) -> None:
        """Make the parts that ``drift`` found wanting anew from the others."""
