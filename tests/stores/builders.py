"""Small documents, chunks, terms and vectors, made by rules that a reader can follow by eye."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from server.documents import Chunk, Document, IndexedChunk, Vector, Vectors
from server.recipes import Recipe
from server.sparse import SparseWeights
from server.stores.contract import LegsRequest, Store, TextClause, Write
from server.stores.generations import Derivation, Pending

DIMENSIONS = 8
RECIPE = Recipe(embedder="test", dimensions=DIMENSIONS, analyzer="test-1", chunker="test-1")
LEXICAL_RECIPE = Recipe(embedder="", dimensions=0, analyzer="test-1", chunker="test-1")
NEXT_RECIPE = Recipe(
    embedder="next",
    dimensions=4,
    analyzer="next-1",
    chunker="test-1",
    windows="next-1/1",
    sparse="next-1",
    model="next:small",
)


def unit(*components: float) -> Vector:
    """A vector of length 1 in the direction of ``components``, the missing ones zero."""
    vector = np.zeros(DIMENSIONS, dtype=np.float32)
    vector[: len(components)] = components
    return vector / np.linalg.norm(vector)


def vector_of(text: str, dimensions: int = DIMENSIONS) -> Vector:
    """A direction that depends on the text alone."""
    generator = np.random.default_rng(zlib.crc32(text.encode()))
    vector = generator.standard_normal(dimensions).astype(np.float32)
    return vector / np.linalg.norm(vector)


def windows_of(text: str, dimensions: int = DIMENSIONS) -> Vectors | None:
    """A row a word, where there are two or more."""
    rows = [vector_of(word, dimensions) for word in text.split()]
    return np.array(rows) if len(rows) > 1 else None


def sparse_of(text: str) -> SparseWeights:
    """A token a word, and weights that depend on the word alone, from .05 to 1.05."""
    numbers = {zlib.crc32(word.encode()) % 250_000 for word in text.split()}
    return SparseWeights.of({number: 0.05 + number % 997 / 997 for number in numbers})


def bigrams_of(word: str) -> list[str]:
    return [word[i : i + 2] for i in range(len(word) - 1)] or [word]


def terms_of(text: str, title: str) -> dict[str, tuple[str, ...]]:
    """Words are what blanks separate; bigrams are those of each word."""
    words, title_words = text.split(" "), title.split(" ")
    terms = {
        "words": words,
        "bigrams": [pair for word in words for pair in bigrams_of(word)],
        "title_words": title_words,
        "title_bigrams": [pair for word in title_words for pair in bigrams_of(word)],
    }
    return {field: tuple(term for term in found if term) for field, found in terms.items()}


def write(
    document_id: str,
    *texts: str,
    title: str = "",
    source: str = "",
    acl: Sequence[str] = ("public",),
    metadata: Mapping[str, Any] | None = None,
    vectors: Sequence[Vector | None] | None = None,
    if_revision: int | None = None,
) -> Write:
    """A write of a document with one chunk for each of ``texts``, a line of the document each."""
    chunks, start = [], 0
    for position, text in enumerate(texts):
        chunks.append(
            IndexedChunk(
                chunk=Chunk(
                    document_id=document_id,
                    position=position,
                    text=text,
                    start=start,
                    end=start + len(text),
                    headings=("Handbook", title) if title else (),
                ),
                terms=terms_of(text, title),
                vector=vector_of(text) if vectors is None else vectors[position],
            )
        )
        start += len(text) + 1
    document = Document.create(
        id=document_id,
        text="\n".join(texts),
        title=title,
        source=source,
        acl=acl,
        metadata=metadata,
    )
    return Write(document=document, chunks=tuple(chunks), if_revision=if_revision)


def derived(document: Document, recipe: Recipe) -> tuple[IndexedChunk, ...]:
    """What a recipe makes of a document: a chunk a line, each with the analyzer's name as one word
    more, so that a search for that word finds all that the recipe made."""
    chunks, start = [], 0
    for position, text in enumerate(document.text.split("\n") if document.text else ()):
        terms = terms_of(text, document.title)
        chunks.append(
            IndexedChunk(
                chunk=Chunk(
                    document_id=document.id,
                    position=position,
                    text=text,
                    start=start,
                    end=start + len(text),
                ),
                terms={**terms, "words": (*terms["words"], recipe.analyzer)},
                vector=vector_of(text, recipe.dimensions) if recipe.dimensions else None,
                windows=windows_of(text, recipe.dimensions) if recipe.windows else None,
                sparse=sparse_of(text) if recipe.sparse else None,
            )
        )
        start += len(text) + 1
    return tuple(chunks)


def derivation(pending: Pending, recipe: Recipe) -> Derivation:
    """What a recipe makes of a document that is pending."""
    document = pending.document
    return Derivation(
        document_id=pending.document_id,
        revision=pending.revision,
        document=document,
        chunks=() if document is None else derived(document, recipe),
    )


def words(*terms: str, weight: float = 1.0, field: str = "words") -> tuple[TextClause, ...]:
    """A text request of one clause."""
    return (TextClause(field=field, terms=terms, weight=weight),)


def bm25_ids(store: Store, collection: str, *terms: str, **request: Any) -> list[str]:
    """Chunk ids that have one of the words, best first."""
    legs = store.search(collection, LegsRequest(text=words(*terms), **request))
    assert legs.bm25 is not None, legs.errors
    return [chunk_id for chunk_id, _ in legs.bm25.hits]


def vector_ids(store: Store, collection: str, vector: Vector, **request: Any) -> list[str]:
    """Chunk ids nearest to ``vector``, best first."""
    legs = store.search(collection, LegsRequest(vector=vector, **request))
    assert legs.vector is not None, legs.errors
    return [chunk_id for chunk_id, _ in legs.vector.hits]
