"""What a sound store says of a document: made from the document by the parts that index it."""

from collections.abc import Sequence

import numpy as np

from server.documents import Chunk, Document
from server.ingest.chunker import Chunker
from server.lifecycle.findings import label_terms
from server.recipes import Recipe
from server.stores.audit import Audited, AuditedChunk
from tests.fakes import count_tokens

DIMENSIONS = 4
RECIPE = Recipe(embedder="fake:1", dimensions=DIMENSIONS, analyzer="a", chunker="chunker-1/32")
LEXICAL = Recipe(embedder="", dimensions=0, analyzer="a", chunker="chunker-1/32")


def audited_chunk(
    chunk: Chunk, document: Document, *, revision: int = 1, copies: bool = True, dimensions: int = 4
) -> AuditedChunk:
    """``copies``: whether the store keeps the document's labels and values with each chunk."""
    vector = np.full(dimensions, dimensions**-0.5, np.float32) if dimensions else None
    sound = AuditedChunk(key=chunk.id, chunk=chunk, revision=revision, vector=vector)
    if not copies:
        return sound
    return AuditedChunk(
        key=chunk.id,
        chunk=chunk,
        revision=revision,
        vector=vector,
        title=document.title,
        source=document.source,
        metadata=document.metadata,
        labels=tuple(sorted(label_terms(document))),
    )


def sound(
    document: Document, *, revision: int = 1, copies: bool = True, dimensions: int = 4
) -> Audited:
    """A document as it is after a write."""
    chunks: Sequence[Chunk] = Chunker(count_tokens, 32).chunk(document)
    return Audited(
        document_id=document.id,
        document=document,
        revision=revision,
        chunks_expected=len(chunks),
        complete=True,
        content_hash=document.content_hash,
        level=True,
        chunks=tuple(
            audited_chunk(chunk, document, revision=revision, copies=copies, dimensions=dimensions)
            for chunk in chunks
        ),
    )
