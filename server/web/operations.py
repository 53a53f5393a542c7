"""Operation: a call of the API, described once by the types of its view.

The view's signature is the whole truth: its path parameters, and ``query`` and ``body`` where it has
them, are validated by these types here and documented from the same types by ``openapi.py``.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_type_hints

from flask import Request, Response
from pydantic import BaseModel, TypeAdapter
from werkzeug.exceptions import NotAcceptable

from server.errors import TanyuanError
from server.web import payloads
from server.web.access import Caller, Permission
from server.web.payloads import JSON, NDJSON_TYPES, BodyStream
from server.web.problems import MEDIA_TYPE as PROBLEM
from server.web.services import Services
from server.web.sse import MEDIA_TYPE as EVENT_STREAM

Method = Literal["GET", "PUT", "POST", "DELETE"]


@dataclass(frozen=True, slots=True)
class Context:
    """What every view is given: the services, who calls, and the request itself."""

    services: Services
    caller: Caller
    request: Request


@dataclass(frozen=True, slots=True)
class Reply:
    """A view's answer, serialised by the type that the operation declares for its status."""

    value: object
    status: int = 200


@dataclass(frozen=True, slots=True)
class Answers:
    """What a status carries. ``events``: the data's type by the name of each server-sent event, where
    they may be had instead."""

    type: Any
    description: str
    events: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """``permission`` None: no key is asked for. ``raises``: errors beside the common ones.

    ``path`` is in OpenAPI's form. ``body_type`` None: no body; Lines: NDJSON, which the view reads.
    """

    method: Method
    path: str
    view: Callable[..., Reply | Response]
    permission: Permission | None
    tag: str
    answers: Mapping[int, Answers]
    raises: tuple[type[TanyuanError], ...]
    path_types: Mapping[str, Any]
    query_type: type[BaseModel] | None
    body_type: Any
    line_type: Any

    @property
    def name(self) -> str:
        return self.view.__name__

    @property
    def media_types(self) -> tuple[str, ...]:
        streams = any(answer.events for answer in self.answers.values())
        return (JSON, EVENT_STREAM) if streams else (JSON,)

    def handler(self) -> Callable[[Context, dict[str, str]], Response]:
        """The view behind validation of its arguments and serialisation of its reply."""
        path_adapters = {name: TypeAdapter(kind) for name, kind in self.path_types.items()}
        query_adapter = TypeAdapter(self.query_type) if self.query_type else None
        body_adapter = TypeAdapter(self.body_type) if self.body_type else None
        reply_adapters = {
            status: TypeAdapter(answer.type) for status, answer in self.answers.items()
        }

        def handle(context: Context, path: dict[str, str]) -> Response:
            request = context.request
            if self.permission:
                context.caller.require(self.permission)
            self._negotiate(request)
            arguments: dict[str, Any] = {
                name: payloads.validate(adapter, path[name], where=name)
                for name, adapter in path_adapters.items()
            }
            if query_adapter and self.query_type:
                values = payloads.read_query(request, self.query_type)
                arguments["query"] = payloads.validate(query_adapter, values)
            else:
                payloads.refuse_query(request)
            if body_adapter:
                values = payloads.read_json(request, context.services.settings.max_body)
                arguments["body"] = payloads.validate(body_adapter, values, where="body")
            elif self.line_type:
                payloads.check_media_type(request, NDJSON_TYPES)
                arguments["lines"] = BodyStream(request, context.services.settings.max_body)
            reply = self.view(context, **arguments)
            if isinstance(reply, Response):
                return reply
            data = reply_adapters[reply.status].dump_json(reply.value, by_alias=True)
            return Response(data, status=reply.status, content_type=JSON)

        return handle

    def _negotiate(self, request: Request) -> None:
        accepted = request.accept_mimetypes
        if accepted and not accepted.best_match((*self.media_types, PROBLEM)):
            raise NotAcceptable(f"This call answers {' or '.join(self.media_types)}.")


def operation(
    method: Method,
    path: str,
    *,
    answers: Mapping[int, Answers],
    permission: Permission | None = "read",
    tag: str,
    raises: tuple[type[TanyuanError], ...] = (),
    lines: Any = None,
) -> Callable[[Callable[..., Reply | Response]], Operation]:
    """Make an Operation of a view; its docstring is the description, the first line the summary.

    ``lines``: the type of one line of an NDJSON body, which the view takes as ``lines``.
    """

    def make(view: Callable[..., Reply | Response]) -> Operation:
        hints = get_type_hints(view, include_extras=True)
        names = list(inspect.signature(view).parameters)[1:]
        return Operation(
            method=method,
            path=path,
            view=view,
            permission=permission,
            tag=tag,
            answers=answers,
            raises=raises,
            path_types={
                name: hints[name] for name in names if name not in {"query", "body", "lines"}
            },
            query_type=hints.get("query"),
            body_type=hints.get("body"),
            line_type=lines,
        )

    return make
