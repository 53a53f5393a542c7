"""The answer call: JSON, or server-sent events as they come."""

import logging
from collections.abc import Generator
from contextlib import closing

from flask import Response
from pydantic import BaseModel, TypeAdapter

from server.answering.answerer import Question
from server.answering.events import Citations, Done, Event, Failed, Sources, Token
from server.errors import CollectionNotFound, ModelUnavailable, RecipeMismatch
from server.hits import Answer
from server.models.contract import Message
from server.web import sse
from server.web.filters import to_store
from server.web.operations import Answers, Context, Operation, Reply, operation
from server.web.payloads import JSON
from server.web.problems import problem_of
from server.web.schemas import (
    EVENTS,
    CitationsEvent,
    ErrorEvent,
    QuestionInput,
    SourcesEvent,
    TokenEvent,
)

_log = logging.getLogger(__name__)
_ANSWER = TypeAdapter(Answer)


@operation(
    "POST",
    "/v1/answer",
    tag="answer",
    answers={200: Answers(Answer, "The answer with its sources.", events=EVENTS)},
    raises=(CollectionNotFound, RecipeMismatch, ModelUnavailable),
)
def answer(context: Context, body: QuestionInput) -> Reply | Response:
    """Answer a question from the documents, with citations.

    Without a generator the status is `extract`: the best sentences of the sources, marked as such.

    As server-sent events: `sources`, then `token` by `token`, `citations`, and at last `done` (the
    whole answer) or `error`. Each carries one JSON object. Comment lines are heartbeats.
    """
    question = Question(
        question=body.question,
        collection=body.collection,
        history=tuple(Message(turn.role, turn.content) for turn in body.history),
        filter=to_store(body.filters),
        mode=body.mode,
    )
    _log.debug("question %r", question.question)
    answerer, groups = context.services.answerer, context.caller.groups
    if not (body.stream or _prefers_events(context)):
        return Reply(answerer.answer(question, groups=groups))
    events = answerer.stream(question, groups=groups)
    # The search runs before the first event, so its errors still have a status of their own.
    first = next(events)
    return sse.respond(_frames(first, events))


OPERATIONS: tuple[Operation, ...] = (answer,)


def _prefers_events(context: Context) -> bool:
    accepted = context.request.accept_mimetypes
    return bool(accepted) and accepted.best_match((JSON, sse.MEDIA_TYPE)) == sse.MEDIA_TYPE


def _frames(first: Event, rest: Generator[Event, None, None]) -> Generator[bytes, None, None]:
    with closing(rest):
        try:
            yield _frame(first)
            for event in rest:
                yield _frame(event)
        except Exception as error:  # noqa: BLE001 - the status is sent, so an event must tell
            yield _error_frame(error, None)


def _frame(event: Event) -> bytes:
    match event:
        case Sources(sources, degraded):
            return _model_frame("sources", SourcesEvent(sources=sources, degraded=degraded))
        case Token(text):
            return _model_frame("token", TokenEvent(text=text))
        case Citations(citations):
            return _model_frame("citations", CitationsEvent(citations=citations))
        case Done(whole):
            return sse.frame("done", _ANSWER.dump_json(whole))
        case Failed(error, partial):
            return _error_frame(error, partial)


def _error_frame(error: Exception, partial: Answer | None) -> bytes:
    problem = problem_of(error)
    return _model_frame("error", ErrorEvent(**dict(problem), answer=partial))


def _model_frame(name: str, model: BaseModel) -> bytes:
    return sse.frame(name, model.model_dump_json().encode())
