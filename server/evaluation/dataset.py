"""A judged collection in BEIR form: corpus.jsonl, queries.jsonl, qrels.tsv (or qrels/test.tsv)."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from server.documents import MAX_TITLE_CHARS, Document
from server.errors import InvalidInput
from server.texts import clean_text

Qrels = dict[str, dict[str, int]]  # query id → document id → grade


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Queries with at least one judgement, and their judgements.

    ``folder`` None: there is no corpus, only judgements of what a collection holds. ``queries_file`` is
    set where it is not the folder's own.
    """

    folder: Path | None
    queries: dict[str, str]
    qrels: Qrels
    queries_file: Path | None = None

    @classmethod
    def load(
        cls, folder: Path | None = None, *, queries: Path | None = None, qrels: Path | None = None
    ) -> "Dataset":
        """Read the judged queries; files of queries or qrels may take the place of the folder's own, and
        both together that of a folder.

        Raises InvalidInput naming the file and line.
        """
        if folder is None and (queries is None or qrels is None):
            raise InvalidInput("Give a folder in BEIR form, or a file of queries and one of qrels.")
        judged = load_qrels(qrels or _in(folder, "qrels.tsv", "qrels/test.tsv"))
        asked = queries or _in(folder, "queries.jsonl")
        texts = {
            _id(record, place): clean_text(_text(record, "text", place))
            for record, place in _records(asked)
        }
        found = {query_id: texts[query_id] for query_id in judged if query_id in texts}
        if not found:
            raise InvalidInput(f"No query of {asked} has a judgement in its qrels.")
        return cls(
            folder=folder,
            queries=found,
            qrels={key: judged[key] for key in found},
            queries_file=queries,
        )

    @property
    def name(self) -> str:
        """The folder's, or else that of the file of queries."""
        named = self.folder or self.queries_file
        return named.resolve().name if named else ""

    def first(self, limit: int | None) -> "Dataset":
        """With the first ``limit`` queries only; None: all."""
        if limit is None:
            return self
        if limit < 1:
            raise InvalidInput("At least one query is needed.")
        kept = dict(islice(self.queries.items(), limit))
        return replace(self, queries=kept, qrels={key: self.qrels[key] for key in kept})

    def relevant(self, query_id: str) -> frozenset[str]:
        """The documents that are judged to answer a query, by a grade above 0."""
        return frozenset(key for key, grade in self.qrels[query_id].items() if grade > 0)

    def documents(self) -> Iterator[Document]:
        """The corpus. Raises InvalidInput naming the line, or that there is none."""
        if self.folder is None:
            raise InvalidInput("Queries and qrels alone hold no corpus that could be indexed.")
        for record, place in _records(self.folder / "corpus.jsonl"):
            yield Document.create(
                id=_id(record, place),
                title=clean_text(_text(record, "title", place, default=""))[:MAX_TITLE_CHARS],
                text=clean_text(_text(record, "text", place)),
            )


def load_qrels(path: Path) -> Qrels:
    """Judgements of a TSV with a header line (BEIR) or of TREC's four columns."""
    qrels: Qrels = {}
    with _open(path) as file:
        for number, row in enumerate(csv.reader(file, delimiter="\t"), 1):
            columns = row if len(row) > 1 else (row[0].split() if row else [])
            if not columns or (number == 1 and not columns[-1].lstrip("-").isdigit()):
                continue
            try:
                query_id, document_id, grade = columns[0], columns[-2], int(columns[-1])
            except (IndexError, ValueError):
                raise InvalidInput(
                    f"{path}, line {number}: expected query id, document id and a whole number."
                ) from None
            qrels.setdefault(query_id, {})[document_id] = grade
    if not qrels:
        raise InvalidInput(f"{path} holds no judgement.")
    return qrels


def _in(folder: Path | None, *names: str) -> Path:
    """The first of these files that a folder has."""
    for name in names:
        if folder and (folder / name).is_file():
            return folder / name
    raise InvalidInput(f"{folder} has no {' and no '.join(names)}.")


def _open(path: Path) -> TextIO:
    try:
        return path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise InvalidInput(f"{path} can't be read: {error.strerror}.") from error


def _records(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise InvalidInput(f"{place}: {error}.") from None
            if not isinstance(record, dict):
                raise InvalidInput(f"{place}: expected a JSON object.")
            yield record, place


def _id(record: dict[str, Any], place: str) -> str:
    return _text(record, "_id" if "_id" in record else "id", place)


def _text(record: dict[str, Any], key: str, place: str, *, default: str | None = None) -> str:
    value = record.get(key, default)
    if not isinstance(value, str):
        raise InvalidInput(f"{place}: {key!r} is missing or no string.")
    return value
