"""The calls on feedback: what people say of hits and answers."""

from typing import Annotated, Any

from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from server.documents import MAX_ID_BYTES, Document, document_id_of
from server.errors import CollectionNotFound, DocumentNotFound
from server.feedback import (
    HIGHEST_GRADE,
    LEAST_GRADE,
    MAX_ANSWER_ID_CHARS,
    MAX_COMMENT_CHARS,
    VERDICT_GRADES,
    AnswerJudgement,
    HitJudgement,
    Verdict,
)
from server.web.operations import Answers, Context, Operation, Reply, operation
from server.web.schemas import CollectionName, DocumentId, QueryText, Strict, Text

_ADMIN_PATH = "/v1/admin/collections/{collection}/feedback"
_Grade = Annotated[
    Verdict | Annotated[int, Field(ge=LEAST_GRADE, le=HIGHEST_GRADE)],
    Field(
        description="0 or less: it does not suit the query; 1 to 3: the better the higher; `good` is 1 "
        "and `bad` 0.",
        examples=["good"],
    ),
]


class HitFeedback(Strict):
    """How well a hit suits the query; a chunk stands for its document."""

    collection: CollectionName = "default"
    query: QueryText
    document_id: DocumentId | None = None
    chunk_id: Text | None = Field(
        default=None,
        max_length=MAX_ID_BYTES + 20,
        description="A hit's `chunk_id`, in the place of `document_id`.",
    )
    grade: _Grade

    @model_validator(mode="after")
    def _one_document(self) -> "HitFeedback":
        if (self.document_id is None) == (self.chunk_id is None):
            raise ValueError("Give either document_id or chunk_id.")
        if self.chunk_id is not None and not document_id_of(self.chunk_id):
            raise ValueError("chunk_id is a document's id, a colon and a number.")
        return self

    @property
    def document(self) -> str:
        return self.document_id or document_id_of(self.chunk_id or "")


class AnswerFeedback(Strict):
    """What becomes of an answer in its reader's eyes."""

    collection: CollectionName = "default"
    answer_id: Text = Field(
        min_length=1, max_length=MAX_ANSWER_ID_CHARS, description="The answer's `id`."
    )
    question: QueryText
    verdict: Verdict
    comment: Text = Field(default="", max_length=MAX_COMMENT_CHARS)


class FeedbackKept(BaseModel):
    kept: bool = Field(
        default=True, description="An older judgement of the same is replaced by it."
    )


class FeedbackParameters(Strict):
    size: int = Field(default=100, ge=1, le=1_000, description="How many of each are wanted.")
    offset: int = Field(
        default=0, alias="from", ge=0, le=1_000_000, description="How many to pass over."
    )


class FeedbackView(BaseModel):
    """Both lists by time, the latest first."""

    total_hits: int
    total_answers: int
    hits: list[HitJudgement]
    answers: list[AnswerJudgement]


class FeedbackForgotten(BaseModel):
    removed: int


def _kind(value: Any) -> str:
    return "=answer" if isinstance(value, dict) and "answer_id" in value else "=hit"


_Feedback = Annotated[
    Annotated[HitFeedback, Tag("=hit")] | Annotated[AnswerFeedback, Tag("=answer")],
    Discriminator(_kind),
]


@operation(
    "POST",
    "/v1/feedback",
    tag="search",
    answers={200: Answers(FeedbackKept, "It is kept.")},
    raises=(CollectionNotFound, DocumentNotFound),
)
def give_feedback(context: Context, body: _Feedback) -> Reply:
    """Judge a hit or an answer.
    Only a document that the caller may see can be judged. The judgement is kept with the collection,
    without the caller's name, and `scripts/tune --feedback` learns from those of hits."""
    feedback = context.services.feedback
    if isinstance(body, AnswerFeedback):
        feedback.judge_answer(
            body.collection,
            AnswerJudgement(
                answer_id=body.answer_id,
                question=body.question,
                verdict=body.verdict,
                comment=body.comment,
            ),
        )
        return Reply(FeedbackKept())
    _require_visible(context, body.collection, body.document)
    grade = body.grade if isinstance(body.grade, int) else VERDICT_GRADES[body.grade]
    judgement = HitJudgement(query=body.query, document_id=body.document, grade=grade)
    feedback.judge(body.collection, judgement)
    return Reply(FeedbackKept())


@operation(
    "GET",
    _ADMIN_PATH,
    tag="admin",
    permission="admin",
    answers={200: Answers(FeedbackView, "The judgements.")},
    raises=(CollectionNotFound,),
)
def get_feedback(context: Context, collection: CollectionName, query: FeedbackParameters) -> Reply:
    """List what people said of a collection's hits and answers."""
    hits = context.services.feedback.hits(collection)
    answers = context.services.feedback.answers(collection)
    page = slice(query.offset, query.offset + query.size)
    view = FeedbackView(
        total_hits=len(hits), total_answers=len(answers), hits=hits[page], answers=answers[page]
    )
    return Reply(view)


@operation(
    "DELETE",
    _ADMIN_PATH,
    tag="admin",
    permission="admin",
    answers={200: Answers(FeedbackForgotten, "It is forgotten.")},
    raises=(CollectionNotFound,),
)
def forget_feedback(context: Context, collection: CollectionName) -> Reply:
    """Forget all that people said of a collection's hits and answers."""
    return Reply(FeedbackForgotten(removed=context.services.feedback.forget(collection)))


OPERATIONS: tuple[Operation, ...] = (give_feedback, get_feedback, forget_feedback)


def _require_visible(context: Context, collection: str, document_id: str) -> None:
    """Raises DocumentNotFound, in the same words for what is not there and what may not be seen."""
    missing = DocumentNotFound(f"Collection {collection!r} has no document {document_id!r}.")
    try:
        document: Document = context.services.store.document(collection, document_id).document
    except DocumentNotFound:
        raise missing from None
    if not context.caller.may_see(document):
        raise missing
