"""The calls on documents, one by one and in bulk."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, cast

from server.documents import Document
from server.errors import (
    CollectionNotFound,
    DocumentNotFound,
    PayloadTooLarge,
    RecipeMismatch,
    RevisionConflict,
    StoreUnavailable,
    TanyuanError,
)
from server.ingest.bulk import LineError, read_numbered
from server.ingest.indexer import Put
from server.web.operations import Answers, Context, Operation, Reply, operation
from server.web.payloads import BodyStream
from server.web.schemas import (
    BulkResult,
    CollectionName,
    DocumentDeleted,
    DocumentId,
    DocumentInput,
    DocumentLine,
    DocumentPut,
    DocumentView,
    FailedLine,
    LineFailure,
    RefreshOption,
    WriteOptions,
)
from server.web.services import Services

DEFAULT_COLLECTION = "default"
MAX_LINES = 20_000
BATCH_DOCUMENTS = 256
BATCH_CHARS = 2_000_000

_TAG = "documents"
_PATH = "/v1/collections/{collection}/documents/{document_id}"


@operation(
    "PUT",
    _PATH,
    tag=_TAG,
    permission="write",
    answers={
        200: Answers(DocumentPut, "It was there: updated, or unchanged."),
        201: Answers(DocumentPut, "It was created."),
    },
    raises=(CollectionNotFound, RevisionConflict, RecipeMismatch),
)
def put_document(
    context: Context,
    collection: CollectionName,
    document_id: DocumentId,
    query: WriteOptions,
    body: DocumentInput,
) -> Reply:
    """Put a document: create it, or replace it whole.

    When this answers, the document is durable. An unchanged document costs next to nothing. The
    collection must exist, but for `default`, which the first document creates.
    """
    document = Document.create(id=document_id, **dict(body))
    _ensure(context.services, collection)
    (result,) = context.services.indexer.put(
        collection, [document], if_revision=query.if_revision, refresh=query.refresh
    )
    if isinstance(result, TanyuanError):
        raise result
    answer = DocumentPut(
        id=result.document_id,
        revision=result.revision,
        chunks=result.chunks,
        status=result.status,
    )
    return Reply(answer, status=201 if result.status == "created" else 200)


@operation(
    "GET",
    _PATH,
    tag=_TAG,
    answers={200: Answers(DocumentView, "The document.")},
    raises=(CollectionNotFound, DocumentNotFound),
)
def get_document(context: Context, collection: CollectionName, document_id: DocumentId) -> Reply:
    """Get a whole document as it was submitted. One that the caller may not see is not found."""
    missing = DocumentNotFound(f"Collection {collection!r} has no document {document_id!r}.")
    try:
        stored = context.services.store.document(collection, document_id)
    except DocumentNotFound:
        raise missing from None
    if not context.caller.may_see(stored.document):
        raise missing  # the same words, so that nobody learns that it is there
    view = DocumentView(
        **stored.document.as_json(),
        revision=stored.revision,
        chunks=stored.chunks,
        updated_at=stored.updated_at,
    )
    return Reply(view)


@operation(
    "DELETE",
    _PATH,
    tag=_TAG,
    permission="write",
    answers={200: Answers(DocumentDeleted, "It is gone.")},
    raises=(CollectionNotFound, DocumentNotFound, RevisionConflict),
)
def delete_document(
    context: Context, collection: CollectionName, document_id: DocumentId, query: WriteOptions
) -> Reply:
    """Delete a document with all its chunks."""
    deleted = context.services.indexer.delete(
        collection, document_id, if_revision=query.if_revision, refresh=query.refresh
    )
    answer = DocumentDeleted(
        id=deleted.document_id, revision=deleted.revision, chunks=deleted.chunks
    )
    return Reply(answer)


@operation(
    "POST",
    "/v1/collections/{collection}/documents:bulk",
    tag=_TAG,
    permission="write",
    answers={200: Answers(BulkResult, "What was done, and each line that failed.")},
    raises=(CollectionNotFound, RecipeMismatch),
    lines=DocumentLine,
)
def bulk_documents(
    context: Context, collection: CollectionName, query: RefreshOption, lines: BodyStream
) -> Reply:
    """Put many documents, a JSON object with its `id` a line (NDJSON).

    One bad line doesn't stop the others; each is named in `failed`. Should the whole request fail
    (503, 413, a lost connection), send it again: what is there already is left alone.
    """
    services = context.services
    _ensure(services, collection)
    counts = {"created": 0, "updated": 0, "unchanged": 0}
    failed: list[FailedLine] = []
    stream = cast(IO[bytes], lines)  # of which only readline is used
    for batch in batches(read_numbered(stream, max_line_bytes=services.settings.max_body)):
        failed += [_failed(item.id, line, item.error) for line, item in batch.errors]
        documents = [document for _, document in batch.documents]
        results = services.indexer.put(collection, documents) if documents else []
        for (line, document), result in zip(batch.documents, results, strict=True):
            if isinstance(result, Put):
                counts[result.status] += 1
            elif isinstance(result, StoreUnavailable):
                raise result  # the lines to come would fare no better
            else:
                failed.append(_failed(document.id, line, result))
    if query.refresh:
        services.store.refresh(collection)
    answer = BulkResult(
        indexed=counts["created"] + counts["updated"],
        unchanged=counts["unchanged"],
        failed=sorted(failed, key=lambda one: one.line),
    )
    return Reply(answer)


OPERATIONS: tuple[Operation, ...] = (
    put_document,
    get_document,
    delete_document,
    bulk_documents,
)


@dataclass(slots=True)
class Batch:
    """Lines that are put together, so that memory stays bounded and models have enough to do."""

    documents: list[tuple[int, Document]] = field(default_factory=list)
    errors: list[tuple[int, LineError]] = field(default_factory=list)
    chars: int = 0

    def add(self, line: int, item: Document | LineError) -> None:
        if isinstance(item, Document):
            self.documents.append((line, item))
            self.chars += len(item.text)
        else:
            self.errors.append((line, item))

    @property
    def full(self) -> bool:
        return (
            len(self.documents) + len(self.errors) >= BATCH_DOCUMENTS or self.chars >= BATCH_CHARS
        )


def batches(
    numbered: Iterable[tuple[int, Document | LineError]], *, max_lines: int = MAX_LINES
) -> Iterator[Batch]:
    """The lines in batches. Raises PayloadTooLarge after the batch that holds the last one allowed."""
    batch = Batch()
    for count, (line, item) in enumerate(numbered, start=1):
        if count > max_lines:
            yield batch
            raise PayloadTooLarge(
                f"A bulk request has at most {max_lines:,} documents; those before line {line} are "
                "in. Send the others in further requests."
            )
        batch.add(line, item)
        if batch.full:
            yield batch
            batch = Batch()
    yield batch


def _ensure(services: Services, collection: str) -> None:
    """The collection must be there; the default one is made when it is first written to."""
    try:
        services.store.live(collection)
    except CollectionNotFound:
        if collection != DEFAULT_COLLECTION:
            raise CollectionNotFound(
                f"There is no collection {collection!r}; create it with "
                f"PUT /v1/collections/{collection}."
            ) from None
        services.indexer.ensure_collection(collection)


def _failed(document_id: str | None, line: int, error: TanyuanError) -> FailedLine:
    failure = LineFailure(code=error.code, message=error.message)
    return FailedLine(id=document_id, line=line, error=failure)
