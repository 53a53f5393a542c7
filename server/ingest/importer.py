"""Importer: files into a collection, batch after batch, with a report of what became of each."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.documents import PUBLIC, Document
from server.errors import InvalidInput, ModelUnavailable, StoreUnavailable, TanyuanError
from server.ingest.bulk import LineError
from server.ingest.indexer import Indexer
from server.ingest.loaders.files import Found, load_documents
from server.ingest.loaders.table import Columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What was not indexed: ``source`` is the file, ``line`` 0 where it is not about one line."""

    source: str
    error: TanyuanError
    id: str | None = None
    line: int = 0


@dataclass(slots=True, kw_only=True)
class Report:
    """Counts of documents so far. ``skipped``: files by ending, of kinds that no loader reads.
    ``stopped``: why the import ended early, empty where it didn't."""

    indexed: int = 0
    unchanged: int = 0
    chunks: int = 0
    failures: list[Failure] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    stopped: str = ""

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        seconds = max(self.seconds, 1e-6)
        return {
            "indexed": self.indexed,
            "unchanged": self.unchanged,
            "chunks": self.chunks,
            "failed": [
                {
                    "id": failure.id,
                    "source": failure.source,
                    "line": failure.line or None,
                    "error": {"code": failure.error.code, "message": failure.error.message},
                }
                for failure in self.failures
            ],
            "skipped": dict(sorted(self.skipped.items())),
            "seconds": round(self.seconds, 2),
            "documents_per_second": round((self.indexed + self.unchanged) / seconds, 1),
            "chunks_per_second": round(self.chunks / seconds, 1),
            "stopped": self.stopped or None,
        }


Read = tuple[str, Document | LineError]  # the file's name, and what came of it or one of its lines


def import_files(
    indexer: Indexer,
    collection: str,
    files: Iterable[Found],
    *,
    batch: int = 64,
    limit: int | None = None,
    refresh: bool = False,
    acl: Sequence[str] = (PUBLIC,),
    columns: Columns | None = None,
    stop: Callable[[], str] = lambda: "",
    progress: Callable[[Report], None] | None = None,
) -> Report:
    """Put the documents of files into a collection that is there.

    Unchanged documents are left alone, so an import that was cut off goes on when it is run again.
    An id that comes twice in one import is a failure: one file would silently replace the other.
    ``stop`` is asked between batches and gives the reason to stop, or ""; ``progress`` is called after
    each. A batch that fails as a whole since the store or a model can't be reached ends the import.

    Raises RecipeMismatch, CollectionNotFound.
    """
    report = Report()
    began = time.monotonic()
    pending: list[tuple[str, Document]] = []
    seen: set[str] = set()

    def put_pending() -> None:
        _put(indexer, collection, pending, report, refresh=refresh)
        pending.clear()
        report.seconds = time.monotonic() - began
        report.stopped = report.stopped or stop()
        if progress:
            progress(report)

    for number, (source, item) in enumerate(_read(files, acl, columns, report)):
        if report.stopped or (limit is not None and number >= limit):
            break
        if isinstance(item, LineError):
            failure = Failure(source=source, error=item.error, id=item.id, line=item.line)
            report.failures.append(failure)
        elif item.id in seen:
            twice = InvalidInput(f"The id {item.id!r} came before in this import.", field="id")
            report.failures.append(Failure(source=source, error=twice, id=item.id))
        else:
            seen.add(item.id)
            pending.append((source, item))
            if len(pending) == batch:
                put_pending()
    if not report.stopped:
        put_pending()
    return report


def _read(
    files: Iterable[Found], acl: Sequence[str], columns: Columns | None, report: Report
) -> Iterator[Read]:
    for file in files:
        if file.kind is None:
            report.skipped[file.path.suffix.lower() or file.path.name] += 1
            continue
        try:
            with file.path.open("rb") as stream:
                for item in load_documents(stream, name=file.name, acl=acl, columns=columns):
                    yield file.name, item
        except TanyuanError as error:
            yield file.name, LineError(line=0, id=None, error=error)
        except OSError as error:
            unreadable = InvalidInput(f"The file can't be read: {error.strerror}.")
            yield file.name, LineError(line=0, id=None, error=unreadable)


def _put(
    indexer: Indexer,
    collection: str,
    pending: Sequence[tuple[str, Document]],
    report: Report,
    *,
    refresh: bool,
) -> None:
    if not pending:
        return
    try:
        results = indexer.put(collection, [document for _, document in pending], refresh=refresh)
    except StoreUnavailable as error:
        results = [error] * len(pending)
    for (source, document), result in zip(pending, results, strict=True):
        if isinstance(result, TanyuanError):
            report.failures.append(Failure(source=source, error=result, id=document.id))
        elif result.status == "unchanged":
            report.unchanged += 1
        else:
            report.indexed += 1
            report.chunks += result.chunks
    last = results[-1]
    if isinstance(last, StoreUnavailable | ModelUnavailable):
        report.stopped = last.message
