"""Preview: what another dictionary would change, in documents and in queries that were asked."""

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from server.analysis.contract import Analyzer, Token
from server.analysis.word_changes import WordChange
from server.documents import Document, heading_path
from server.errors import DocumentNotFound
from server.lifecycle.affected import Affected
from server.retrieval.query_log import LoggedQuery
from server.stores.contract import Store
from server.stores.generations import Generation, StoredChunk

SHOWN = 20  # documents, and queries, that are shown with their tokens
MAX_DOCUMENTS = 2_000  # that are looked at
MAX_QUERIES = 2_000  # the last that were asked
SECONDS = 10.0
_BATCH = 64
_MARGIN = 10  # characters shown on either side of a change
_MAX_WINDOW = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentChange:
    """The first change in a document: ``text`` around it, and the tokens of that, in order."""

    document_id: str
    chunk_id: str
    text: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryChange:
    """A query that was asked ``count`` times, and its tokens."""

    query: str
    count: int
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """``words`` that differ from the dictionary in force. ``documents`` counts those that change, of
    ``looked_at``, and ``examples`` shows the first.

    ``complete``: every candidate was looked at, within limits of time and number. ``everywhere``: so
    large frequencies change that documents without a changed word may change too.
    """

    words: tuple[WordChange, ...]
    documents: int
    looked_at: int
    complete: bool
    everywhere: bool
    examples: tuple[DocumentChange, ...]
    queries: int
    query_examples: tuple[QueryChange, ...]


def preview(
    store: Store,
    collection: str,
    generation: Generation,
    affected: Affected,
    queries: Sequence[LoggedQuery],
    *,
    seconds: float = SECONDS,
) -> Preview:
    """Look at the candidates for at most ``seconds``; nothing is written."""
    deadline = time.monotonic() + seconds
    before, after = affected.before[0], affected.after
    examples: list[DocumentChange] = []
    documents = looked_at = 0
    candidates = affected.candidates(thorough=False, until=deadline)
    while batch := list(itertools.islice(candidates, _BATCH)):
        if time.monotonic() > deadline or looked_at >= MAX_DOCUMENTS:
            break
        found = store.generations.chunks(collection, generation.id, batch)
        looked_at += len(batch)
        for document in _documents(store, collection, batch):
            change = _first_change(document, found.get(document.id, ()), affected)
            if change is not None:
                documents += 1
                examples.extend([change] if len(examples) < SHOWN else [])
    changed = [
        QueryChange(query=each.query, count=each.count, before=old, after=new)
        for each in queries
        if (old := _tokens(before, each.query)) != (new := _tokens(after, each.query))
    ]
    return Preview(
        words=affected.changes,
        documents=documents,
        looked_at=looked_at,
        complete=not batch and time.monotonic() <= deadline,
        everywhere=affected.everywhere,
        examples=tuple(examples),
        queries=len(changed),
        query_examples=tuple(changed[:SHOWN]),
    )


def _documents(store: Store, collection: str, document_ids: Sequence[str]) -> Iterator[Document]:
    for document_id in document_ids:
        with suppress(DocumentNotFound):  # deleted meanwhile
            yield store.document(collection, document_id).document


def _first_change(
    document: Document, chunks: Sequence[StoredChunk], affected: Affected
) -> DocumentChange | None:
    for stored in chunks:
        chunk = stored.chunk
        for text in (heading_path(document.title, chunk.headings), chunk.text):
            if affected.text_differs(text):
                shown, before, after = _window(text, affected.before[0], affected.after)
                return DocumentChange(
                    document_id=document.id,
                    chunk_id=chunk.id,
                    text=shown,
                    before=before,
                    after=after,
                )
    return None


def _window(
    text: str, before: Analyzer, after: Analyzer
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The text around the first difference, and its tokens by both."""
    old, new = _sorted(before, text), _sorted(after, text)
    different = sorted(set(old) ^ set(new), key=lambda token: (token.start, token.end))
    if not different:  # they differ in bigrams alone
        return text[:_MAX_WINDOW], (), ()
    start = different[0].start
    end = different[0].end
    for token in different:  # all that hang together
        if token.start < end:
            end = max(end, token.end)
    start, end = max(0, start - _MARGIN), min(end + _MARGIN, start + _MAX_WINDOW)
    return text[start:end], _within(old, start, end), _within(new, start, end)


def _sorted(analyzer: Analyzer, text: str) -> list[Token]:
    return sorted(analyzer.analyze(text).words, key=lambda token: (token.start, token.end))


def _within(tokens: Sequence[Token], start: int, end: int) -> tuple[str, ...]:
    return tuple(token.term for token in tokens if start <= token.start and token.end <= end)


def _tokens(analyzer: Analyzer, text: str) -> tuple[str, ...]:
    return tuple(token.term for token in _sorted(analyzer, text))
