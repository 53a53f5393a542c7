"""Documents on their way into a collection, in batches, with the vectors that come along."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from server.documents import Document, StoredDocument
from server.ingest.derivation import KnownVectors
from server.lifecycle.archive import Archive
from server.lifecycle.vectors import KeyedVectors, stored_vectors
from server.recipes import Recipe
from server.sparse import Embedded
from server.stores.contract import Store

_BATCH = 200  # documents put together
_BATCH_CHARS = 4_000_000

Batch = tuple[Sequence[Document], KnownVectors | None]
Item = TypeVar("Item", Document, StoredDocument)


def imported(archive: Archive, recipe: Recipe) -> Iterator[Batch]:
    """An archive's documents, with its vectors where they are of the recipe's embedder."""
    made = archive.manifest.recipe
    for part in archive.parts():
        vectors = part.vectors() if recipe.embedder == made.embedder else {}
        if recipe.sparse != made.sparse:
            vectors = {key: Embedded(each.vector) for key, each in vectors.items()}
        for documents in _batched(part.documents(), lambda document: document):
            yield documents, _keyed(vectors)


def _keyed(vectors: Mapping[bytes, Embedded]) -> KnownVectors:
    return lambda _: KeyedVectors(vectors)


def copied(source: Store, collection: str, recipe: Recipe) -> Iterator[Batch]:
    """A collection's documents, with its vectors where they are of the recipe's embedder."""

    def known(documents: Sequence[Document]) -> Mapping[str, Embedded]:
        return stored_vectors(source, collection, recipe, documents) or {}

    for stored in _batched(source.documents(collection), lambda each: each.document):
        yield [each.document for each in stored], known


def _batched(
    items: Iterable[Item], document_of: Callable[[Item], Document]
) -> Iterator[list[Item]]:
    batch: list[Item] = []
    chars = 0
    for item in items:
        batch.append(item)
        chars += len(document_of(item).text)
        if len(batch) >= _BATCH or chars >= _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch
