"""Runs: what was ranked for each query, and TREC's format of it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from server.errors import InvalidInput

DEPTH = 100  # Recall@100

Run = dict[str, dict[str, float]]  # query id → document id → score, as trec_eval takes it


@dataclass(frozen=True, slots=True)
class Ranking:
    """Documents for one query, best first, each once.

    ``scores`` belong to the first of them, as many as the ranker scored: of two rankers, one may have
    ordered the head of the list and the other the rest.
    """

    documents: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()

    def rank(self, document_id: str) -> int | None:
        """From 1; None where the document is not in the list."""
        try:
            return self.documents.index(document_id) + 1
        except ValueError:
            return None


Rankings = Mapping[str, Ranking]  # by query id


def as_run(rankings: Rankings) -> Run:
    """Scores that fall with the rank, so that trec_eval keeps the order, ties and reranked heads too."""
    return {
        query_id: {document: 1 / rank for rank, document in enumerate(ranking.documents, 1)}
        for query_id, ranking in rankings.items()
    }


def write_trec(rankings: Rankings, path: Path, *, tag: str) -> None:
    """Write ``query Q0 document rank score tag`` lines; the score is 1 / rank.

    Raises InvalidInput for an id with white space, which the format can't hold, and for a file that
    can't be written.
    """
    lines: list[str] = []
    for query_id, ranking in rankings.items():
        for rank, document_id in enumerate(ranking.documents, 1):
            if len(document_id.split()) != 1 or len(query_id.split()) != 1:
                raise InvalidInput(
                    f"TREC's format can't hold {document_id!r} of query {query_id!r}: white space."
                )
            lines.append(f"{query_id} Q0 {document_id} {rank} {1 / rank:.9f} {tag}\n")
    write_text(path, "".join(lines))


def write_runs(stages: Mapping[str, Rankings], folder: Path) -> None:
    """Write a run a stage, as STAGE.trec. Raises as ``write_trec`` does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{folder} can't be made: {error.strerror}.") from error
    for name, rankings in stages.items():
        write_trec(rankings, folder / f"{name}.trec", tag=f"tanyuan-{name}")


def read_trec(path: Path) -> dict[str, Ranking]:
    """Read a run, in the order that trec_eval gives it: by falling score, ties by falling document id;
    the ranks written there don't count. Raises InvalidInput naming the line."""
    scored: Run = {}
    for number, line in enumerate(_lines(path), 1):
        columns = line.split()
        if not columns:
            continue
        place = f"{path}, line {number}"
        try:
            query_id, _, document_id, _, score, _ = columns
            value = float(score)
        except ValueError:
            raise InvalidInput(
                f"{place}: expected six columns: query, Q0, document, rank, score, tag."
            ) from None
        if not math.isfinite(value):
            raise InvalidInput(f"{place}: the score is no finite number.")
        of_query = scored.setdefault(query_id, {})
        if document_id in of_query:
            raise InvalidInput(f"{place}: document {document_id} stands twice for {query_id}.")
        of_query[document_id] = value
    if not scored:
        raise InvalidInput(f"{path} holds no ranked document.")
    return {query_id: _ranking(of_query) for query_id, of_query in scored.items()}


def write_text(path: Path, text: str) -> None:
    """Raises InvalidInput for a file that can't be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{path} can't be written: {error.strerror}.") from error


def _ranking(scored: Mapping[str, float]) -> Ranking:
    best: list[tuple[float, str]] = sorted(
        ((score, document_id) for document_id, score in scored.items()), reverse=True
    )
    return Ranking(tuple(key for _, key in best), tuple(score for score, _ in best))


def _lines(path: Path) -> Iterable[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InvalidInput(f"{path} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is no text in UTF-8.") from None
