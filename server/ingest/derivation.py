"""Documents to indexed chunks: chunk, analyse, embed. The one place where a recipe is carried out."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.analysis.contract import Analyzer, Token
from server.documents import (
    Chunk,
    Document,
    IndexedChunk,
    heading_path,
)
from server.errors import EmbedderUnavailable, TanyuanError
from server.ingest.chunker import Chunker
from server.ingest.windows import FINGERPRINT as WINDOWS
from server.ingest.windows import passages_of
from server.models.contract import Embedder, SparseEmbedder, gives_sparse
from server.recipes import Recipe
from server.sparse import Embedded

BATCH = 256  # chunks (or documents without any) that are embedded and handed on together
MAX_FAILURES = 3  # documents in a row that fail to embed before the embedder counts as gone


# Key (see ``passages_of``) → what the same embedder made of these documents before; may know nothing.
KnownVectors = Callable[[Sequence[Document]], Mapping[str, Embedded]]


@dataclass(frozen=True, slots=True)
class Derived:
    """A document with its indexed chunks, or why they couldn't be made. ``embedded``: how many of the
    chunks have new vectors, not known before."""

    document: Document
    chunks: tuple[IndexedChunk, ...] | TanyuanError
    embedded: int = 0


_Chunked = tuple[Document, tuple[Chunk, ...] | TanyuanError]


def recipe_of(
    analyzer: Analyzer, embedder: Embedder | None, chunker: Chunker, *, windowed: bool = True
) -> Recipe:
    """What these parts make; ``windowed``: with windows, if there is an embedder.

    Raises EmbedderUnavailable.
    """
    return Recipe(
        embedder=embedder.fingerprint if embedder else "",
        dimensions=embedder.dimensions if embedder else 0,
        analyzer=analyzer.fingerprint,
        chunker=chunker.fingerprint,
        windows=WINDOWS if embedder and windowed else "",
        sparse=embedder.sparse_fingerprint if gives_sparse(embedder) else "",
        model=embedder.name if embedder else "",
    )


class Deriver:
    """Carries out one recipe. Holds no state, so it is as thread-safe as its parts.

    ``windowed``: whether the windows of chunks are embedded too. ``sparse``: whether chunks get sparse
    weights, which the embedder has to give.
    """

    def __init__(
        self,
        *,
        analyzer: Analyzer,
        embedder: Embedder | None,
        chunker: Chunker,
        windowed: bool = False,
        sparse: bool = False,
    ) -> None:
        self._analyzer = analyzer
        self._embedder = embedder
        self._chunker = chunker
        self._windowed = windowed and embedder is not None
        self._sparse = sparse and gives_sparse(embedder)

    def derive(
        self, documents: Iterable[Document], *, known: KnownVectors | None = None
    ) -> Iterator[list[Derived]]:
        """Every document once, in order, in batches of about BATCH chunks; memory is one batch.

        A passage whose vector is ``known``, and of a chunk the sparse weights, is not embedded again.
        A document that can't be embedded carries the error and the others go on, until MAX_FAILURES
        in a row failed: then the embedder counts as gone and the rest carry its last error.
        """
        embedding = _Embedding(self._embedder, sparse=self._sparse)
        batch: list[_Chunked] = []
        size = 0
        for document in documents:
            chunks = self._chunk(document)
            batch.append((document, chunks))
            size += 1 if isinstance(chunks, TanyuanError) else max(1, len(chunks))
            if size >= BATCH:
                yield self._derive_batch(batch, embedding, known)
                batch, size = [], 0
        if batch:
            yield self._derive_batch(batch, embedding, known)

    def _chunk(self, document: Document) -> tuple[Chunk, ...] | TanyuanError:
        try:
            return self._chunker.chunk(document)
        except TanyuanError as error:  # the embedder's tokenizer can't be had
            return error

    def _derive_batch(
        self, batch: Sequence[_Chunked], embedding: "_Embedding", known: KnownVectors | None
    ) -> list[Derived]:
        passages = [
            [passages_of(document.title, chunk, windowed=self._windowed) for chunk in chunks]
            for document, chunks in batch
            if not isinstance(chunks, TanyuanError)
        ]
        had: Mapping[str, Embedded] = {}
        if known is not None and self._embedder is not None:
            had = known([document for document, _ in batch])
        new = [
            {
                key: text
                for each in own
                for number, (key, text) in enumerate(each.items())
                if key not in had or (self._sparse and not number and had[key].sparse is None)
            }
            for own in passages
        ]
        made_of = embedding.embed([list(texts.values()) for texts in new])
        embedded = iter(zip(passages, new, made_of, strict=True))
        derived = []
        for document, chunks in batch:
            if isinstance(chunks, TanyuanError):
                derived.append(Derived(document, chunks))
                continue
            own, own_new, made = next(embedded)
            if isinstance(made, TanyuanError):
                derived.append(Derived(document, made))
                continue
            fresh = dict(zip(own_new, made, strict=True))
            made_of_each = [
                [fresh[key] if key in fresh else had[key] for key in each] for each in own
            ]
            indexed = self._index(document, chunks, made_of_each)
            count = sum(not fresh.keys().isdisjoint(each) for each in own)
            derived.append(Derived(document, indexed, count if self._embedder else 0))
        return derived

    def _index(
        self, document: Document, chunks: Sequence[Chunk], made: Sequence[list[Embedded | None]]
    ) -> tuple[IndexedChunk, ...]:
        """``made``: of each chunk its own, then those of its windows."""
        path_terms: dict[str, dict[str, tuple[str, ...]]] = {}  # most chunks share a few paths
        indexed = []
        for chunk, (own, *others) in zip(chunks, made, strict=True):
            path = heading_path(document.title, chunk.headings)
            if path not in path_terms:
                path_terms[path] = self._terms(path, "title_words", "title_bigrams")
            terms = self._terms(chunk.text, "words", "bigrams") | path_terms[path]
            rows = [each.vector for each in others if each is not None]
            indexed.append(
                IndexedChunk(
                    chunk=chunk,
                    terms=terms,
                    vector=own.vector if own else None,
                    windows=np.array(rows, np.float32) if rows else None,
                    sparse=own.sparse if own and self._sparse else None,
                )
            )
        return tuple(indexed)

    def _terms(self, text: str, words: str, bigrams: str) -> dict[str, tuple[str, ...]]:
        analysis = self._analyzer.analyze(text)
        return {words: _strings(analysis.words), bigrams: _strings(analysis.bigrams)}


def _strings(tokens: Iterable[Token]) -> tuple[str, ...]:
    return tuple(token.term for token in tokens)


class _Embedding:
    """Embeds batches and remembers, for one run, whether the embedder is gone."""

    def __init__(self, embedder: Embedder | None, *, sparse: bool) -> None:
        self._embedder = embedder
        self._sparse = sparse
        self._gone: EmbedderUnavailable | None = None

    def embed(
        self, texts: Sequence[Sequence[str]]
    ) -> Sequence[Sequence[Embedded | None] | EmbedderUnavailable]:
        """What is made of each document's texts, or why there is nothing."""
        if self._embedder is None:
            return [[None] * len(own) for own in texts]
        if self._gone:
            return [self._gone] * len(texts)
        try:
            made = iter(self._made(self._embedder, [text for own in texts for text in own]))
            return [[next(made) for _ in own] for own in texts]
        except EmbedderUnavailable as error:
            if len(texts) == 1:
                return [error]
        return self._embed_apart(self._embedder, texts)

    def _embed_apart(
        self, embedder: Embedder, texts: Sequence[Sequence[str]]
    ) -> list[Sequence[Embedded | None] | EmbedderUnavailable]:
        """After a failure: document by document, so that one bad text fails its document alone."""
        results: list[Sequence[Embedded | None] | EmbedderUnavailable] = []
        failures = 0
        for own in texts:
            if self._gone:
                results.append(self._gone)
                continue
            try:
                results.append(self._made(embedder, own))
                failures = 0
            except EmbedderUnavailable as error:
                results.append(error)
                failures += 1
                if failures == MAX_FAILURES:
                    self._gone = error
        return results

    def _made(self, embedder: Embedder, texts: Sequence[str]) -> list[Embedded]:
        """One a text. Raises EmbedderUnavailable, also for vectors that no store may hold."""
        made: list[Embedded] = []
        for start in range(0, len(texts), BATCH):
            some = texts[start : start + BATCH]
            if self._sparse and gives_sparse(embedder):
                made.extend(_encoded(embedder, some))
            else:
                made.extend(map(Embedded, _vectors(embedder, embedder.embed_documents(some), some)))
        return made


def _encoded(embedder: SparseEmbedder, texts: Sequence[str]) -> list[Embedded]:
    made = embedder.encode_documents(texts)
    if made:
        _vectors(embedder, np.stack([each.vector for each in made]), texts)
    if not all(each.sparse is not None and each.sparse.sound for each in made):
        raise EmbedderUnavailable(
            f"The embedder {embedder.name} gave sparse weights that are none; check the model."
        )
    return made


def _vectors(
    embedder: Embedder, matrix: NDArray[np.float32], texts: Sequence[str]
) -> NDArray[np.float32]:
    """The rows, if there is one a text. Raises EmbedderUnavailable."""
    if matrix.shape != (len(texts), embedder.dimensions) or not np.isfinite(matrix).all():
        raise EmbedderUnavailable(
            f"The embedder {embedder.name} gave vectors of shape {matrix.shape} that are not "
            f"{len(texts)} finite ones of {embedder.dimensions} dimensions; check the model."
        )
    return matrix
