"""Feedback: what people said of hits and answers, kept with the collection for tuning.

Judgements lie in notes of the collection, so that every store keeps them, all servers share them, a
rebuild leaves them and a delete of the collection takes them along. A note is a bucket that queries share
by their hash and that holds so many judgements at most, its oldest going first: so all of them together
are bounded without anybody counting them. No name of a user is kept.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal, TypeVar, get_args

from pydantic import TypeAdapter

from server.analysis.normalize import Normalizer
from server.documents import check_document_id
from server.errors import InvalidInput, NoteConflict, StoreUnavailable
from server.stores.notes import Note, Notes
from server.texts import check_text

Verdict = Literal["good", "bad"]

MAX_QUERY_CHARS = 2_000
MAX_COMMENT_CHARS = 1_000
MAX_ANSWER_ID_CHARS = 100
LEAST_GRADE, HIGHEST_GRADE = -1, 3
VERDICT_GRADES: Mapping[Verdict, int] = {"good": 1, "bad": 0}

T = TypeVar("T")

_PREFIX = "feedback:"
_HITS = f"{_PREFIX}hits:"
_ANSWERS = f"{_PREFIX}answers:"
_ATTEMPTS = 200  # of a change that others keep overtaking


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class HitJudgement:
    """How well a document suits a query: 0 or less not at all, 1 to 3 the better the higher.

    Raises InvalidInput.
    """

    query: str
    document_id: str
    grade: int
    at: str = field(default_factory=_now)  # ISO 8601, UTC

    def __post_init__(self) -> None:
        check_text(self.query, field="query", max_chars=MAX_QUERY_CHARS)
        check_document_id(self.document_id)
        if not self.query.strip():
            raise InvalidInput("The query is empty.", field="query")
        if not LEAST_GRADE <= self.grade <= HIGHEST_GRADE:
            raise InvalidInput(
                f"grade is from {LEAST_GRADE} to {HIGHEST_GRADE}, or good or bad.", field="grade"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerJudgement:
    """What somebody said of an answer. Raises InvalidInput."""

    answer_id: str
    question: str
    verdict: Verdict
    comment: str = ""
    at: str = field(default_factory=_now)  # ISO 8601, UTC

    def __post_init__(self) -> None:
        check_text(self.answer_id, field="answer_id", max_chars=MAX_ANSWER_ID_CHARS)
        check_text(self.question, field="question", max_chars=MAX_QUERY_CHARS)
        check_text(self.comment, field="comment", max_chars=MAX_COMMENT_CHARS)
        if not self.answer_id.strip():
            raise InvalidInput("answer_id is empty.", field="answer_id")
        if self.verdict not in get_args(Verdict):
            raise InvalidInput("verdict is good or bad.", field="verdict")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgements:
    """Query id → text, and query id → document id → grade (0: not relevant)."""

    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]


class Feedback:
    """Thread-safe, and safe with other processes. What a call returned from is durable.

    At most ``buckets`` times ``per_bucket`` judgements are kept, of hits and of answers each.
    Any method may raise CollectionNotFound and StoreUnavailable.
    """

    def __init__(self, notes: Notes, *, buckets: int = 1_024, per_bucket: int = 50) -> None:
        self._notes = notes
        self._buckets = buckets
        self._per_bucket = per_bucket
        self._normalizer = Normalizer()

    def judge(self, collection: str, judgement: HitJudgement) -> None:
        """Keep a judgement, in the place of an older one of the same query and document."""
        entry = asdict(judgement)
        query = self._query_id(judgement.query)
        self._keep(collection, _HITS, query, f"{query} {judgement.document_id}", entry)

    def judge_answer(self, collection: str, judgement: AnswerJudgement) -> None:
        """Keep a judgement, in the place of an older one of the same answer."""
        entry = asdict(judgement)
        self._keep(collection, _ANSWERS, _hash(judgement.answer_id), judgement.answer_id, entry)

    def hits(self, collection: str) -> list[HitJudgement]:
        """The judgements of hits, the latest first."""
        return self._all(collection, _HITS, _hits())

    def answers(self, collection: str) -> list[AnswerJudgement]:
        """The judgements of answers, the latest first."""
        return self._all(collection, _ANSWERS, _answers())

    def judgements(self, collection: str) -> Judgements:
        """All judgements of hits; queries that normalise to the same text are one query."""
        queries: dict[str, str] = {}
        qrels: dict[str, dict[str, int]] = {}
        for judgement in self.hits(collection):
            query_id = self._query_id(judgement.query)
            queries.setdefault(query_id, judgement.query)
            qrels.setdefault(query_id, {})[judgement.document_id] = max(0, judgement.grade)
        return Judgements(queries=queries, qrels=qrels)

    def forget(self, collection: str) -> int:
        """Remove all judgements; how many there were."""
        removed = 0
        for key, note in self._notes.under(collection, _PREFIX).items():
            self._notes.delete(collection, key)
            removed += len(_kept(note))
        return removed

    def _all(self, collection: str, prefix: str, adapter: TypeAdapter[T]) -> list[T]:
        entries: list[Mapping[str, Any]] = [
            entry
            for note in self._notes.under(collection, prefix).values()
            for entry in _kept(note).values()
        ]
        entries.sort(key=lambda entry: str(entry["at"]), reverse=True)
        return [adapter.validate_python(entry) for entry in entries]

    def _keep(
        self, collection: str, prefix: str, place: str, identity: str, entry: Mapping[str, Any]
    ) -> None:
        key = f"{prefix}{int(place, 16) % self._buckets:04}"
        for _ in range(_ATTEMPTS):
            note = self._notes.get(collection, key)
            kept = _kept(note)
            kept.pop(identity, None)
            kept[identity] = entry
            newest = [list(pair) for pair in kept.items()][-self._per_bucket :]
            value = {"judgements": newest}
            try:
                self._notes.put(collection, key, value, expected=note.version if note else 0)
            except NoteConflict:
                continue
            return
        raise StoreUnavailable("Judgements come in too fast; try again.")

    def _query_id(self, query: str) -> str:
        return _hash(" ".join(self._normalizer.normalize(query).text.split()))


def _kept(note: Note | None) -> dict[str, Mapping[str, Any]]:
    """Identity → judgement, the oldest first."""
    return {} if note is None else dict(note.value["judgements"])


@cache
def _hits() -> TypeAdapter[HitJudgement]:
    return TypeAdapter(HitJudgement)


@cache
def _answers() -> TypeAdapter[AnswerJudgement]:
    return TypeAdapter(AnswerJudgement)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
