"""What every store refuses before it writes or searches, so that all refuse alike."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from server.documents import TEXT_FIELDS, IndexedChunk, Vector, Vectors
from server.errors import InvalidInput, PageTooDeep
from server.recipes import Recipe
from server.stores.contract import MAX_DEPTH, MAX_TERMS, LegsRequest, Write
from server.stores.filters import All, Any, Exists, Filter, Not, Range, Terms
from server.stores.windows import are_sound

_LENGTH_TOLERANCE = 1e-3  # of a float32 vector that was divided by its own length


def check_vector(vector: Vector, dimensions: int, *, field: str) -> None:
    """Raise InvalidInput unless ``vector`` is finite, of shape (dimensions,) and of length 1."""
    if vector.shape != (dimensions,):
        raise InvalidInput(
            f"{field} has the shape {vector.shape}; the collection's recipe has {dimensions} "
            "dimensions. Embed with the model of the recipe.",
            field=field,
        )
    length = float(np.linalg.norm(vector))
    if not math.isfinite(length) or abs(length - 1.0) > _LENGTH_TOLERANCE:
        raise InvalidInput(
            f"{field} has the length {length:g}; a vector must be finite and of length 1.",
            field=field,
        )


def _check_chunk(indexed: IndexedChunk, recipe: Recipe) -> None:
    dimensions = recipe.dimensions
    unknown = sorted(indexed.terms.keys() - set(TEXT_FIELDS))
    if unknown:
        raise InvalidInput(
            f"Chunk {indexed.chunk.id} has unknown text fields: {', '.join(unknown)}; known are "
            f"{', '.join(TEXT_FIELDS)}.",
            field="terms",
        )
    if dimensions and indexed.vector is None:
        raise InvalidInput(
            f"Chunk {indexed.chunk.id} has no vector, but the collection's recipe has "
            f"{dimensions} dimensions.",
            field="vector",
        )
    if not dimensions and indexed.vector is not None:
        raise InvalidInput(
            f"Chunk {indexed.chunk.id} has a vector, but the collection's recipe has none.",
            field="vector",
        )
    if indexed.vector is not None:
        check_vector(indexed.vector, dimensions, field="vector")
    if indexed.windows is not None:
        _check_windows(indexed.chunk.id, indexed.windows, recipe)
    _check_sparse(indexed, recipe)


def _check_sparse(indexed: IndexedChunk, recipe: Recipe) -> None:
    sparse = indexed.sparse
    if sparse is None and recipe.sparse:
        raise InvalidInput(
            f"Chunk {indexed.chunk.id} has no sparse weights, but the collection's recipe has some.",
            field="sparse",
        )
    if sparse is not None and not recipe.sparse:
        raise InvalidInput(
            f"Chunk {indexed.chunk.id} has sparse weights, but the collection's recipe has none.",
            field="sparse",
        )
    if sparse is not None and not sparse.sound:
        raise InvalidInput(
            f"Chunk {indexed.chunk.id} has sparse weights that are none: tokens are numbers that rise, "
            "weights finite and above 0.",
            field="sparse",
        )


def _check_windows(chunk_id: str, windows: Vectors, recipe: Recipe) -> None:
    if not recipe.windows:
        raise InvalidInput(
            f"Chunk {chunk_id} has vectors of windows, but the collection's recipe has none.",
            field="windows",
        )
    if windows.shape[1:] != (recipe.dimensions,) or not are_sound(windows):
        raise InvalidInput(
            f"Chunk {chunk_id} has vectors of windows of the shape {windows.shape}; they must be "
            f"two or more of {recipe.dimensions} dimensions, finite and of length 1.",
            field="windows",
        )


def check_writes(writes: Sequence[Write], recipe: Recipe) -> None:
    """Raise InvalidInput for chunks that a generation of ``recipe`` can't take."""
    for write in writes:
        for expected, indexed in enumerate(write.chunks):
            chunk = indexed.chunk
            if chunk.document_id != write.document.id or chunk.position != expected:
                raise InvalidInput(
                    f"Chunk {chunk.id} stands as number {expected} of document "
                    f"{write.document.id}: chunks belong to their document and come by position "
                    "from 0.",
                    field="chunks",
                )
            _check_chunk(indexed, recipe)


def check_request(request: LegsRequest, dimensions: int) -> None:
    """Raise InvalidInput for a search that can't be run, PageTooDeep for one past MAX_DEPTH.

    A vector for a collection without vectors is no fault of the request's other half: the store
    answers it in ``Legs.errors``.
    """
    if request.k < 1:
        raise InvalidInput("k must be at least 1.", field="k")
    if request.k > MAX_DEPTH:
        raise PageTooDeep(
            f"Hits past the first {MAX_DEPTH:,} can't be reached; narrow the search by a filter.",
            field="k",
        )
    for clause in request.text or ():
        _check_text_field(clause.field)
        if not (math.isfinite(clause.weight) and clause.weight >= 0):
            raise InvalidInput("A clause's weight must be a number from 0.", field="weight")
        for term in clause.terms:
            _check_unicode(term, field="query")
    for term in request.holding:
        _check_unicode(term, field="query")
    if request.filter is not None:
        for text in _strings(request.filter):
            _check_unicode(text, field="filters")
    if request.vector is not None and dimensions:
        check_vector(request.vector, dimensions, field="vector")
    if request.sparse is not None and not request.sparse.sound:
        raise InvalidInput(
            "The query's sparse weights are none: tokens are numbers that rise, weights finite and "
            "above 0.",
            field="sparse",
        )


def check_holding(phrases: Sequence[Sequence[str]], condition: Filter | None) -> None:
    """Raise InvalidInput for phrases or a filter that can't be looked up."""
    for term in (term for phrase in phrases for term in phrase):
        _check_unicode(term, field="query")
    for text in () if condition is None else _strings(condition):
        _check_unicode(text, field="filters")


def check_terms(terms: Mapping[str, Sequence[str]]) -> None:
    """Raise InvalidInput for terms whose frequencies can't be asked for."""
    for field, found in terms.items():
        _check_text_field(field)
        for term in found:
            _check_unicode(term, field="terms")
    if sum(map(len, terms.values())) > MAX_TERMS:
        raise InvalidInput(
            f"The frequencies of more than {MAX_TERMS:,} terms can't be asked for at once; ask for "
            "fewer.",
            field="terms",
        )


def _check_text_field(name: str) -> None:
    if name not in TEXT_FIELDS:
        raise InvalidInput(
            f"Unknown text field {name!r}; known are {', '.join(TEXT_FIELDS)}.", field="field"
        )


def _check_unicode(text: str, *, field: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{field} holds a lone surrogate; remove it and send the request again.", field=field
        ) from error


def _strings(condition: Filter) -> Iterator[str]:
    """The keys and the strings that a filter names."""
    match condition:
        case Not(inner):
            yield from _strings(inner)
        case All(parts) | Any(parts):
            for part in parts:
                yield from _strings(part)
        case Exists(key):
            yield key
        case Terms(key, values):
            yield key
            yield from (value for value in values if isinstance(value, str))
        case Range(key=key, gte=gte, gt=gt, lte=lte, lt=lt):
            yield key
            yield from (bound for bound in (gte, gt, lte, lt) if isinstance(bound, str))


def no_vectors(collection: str) -> InvalidInput:
    """The error of the vector leg where the recipe has no embedder."""
    return InvalidInput(
        f"Collection {collection} has no vectors: it was indexed without an embedder. Rebuild it "
        "with one to search by meaning.",
        field="vector",
    )


def no_sparse(collection: str) -> InvalidInput:
    """The error of the sparse leg where the recipe has no sparse weights."""
    return InvalidInput(
        f"Collection {collection} has no sparse weights: its embedder gives none. Rebuild it with one "
        "that does (BGE-M3) to search by them.",
        field="sparse",
    )
