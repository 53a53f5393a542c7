"""Reading a request strictly: UTF-8, JSON and types, each refused with a message that says why."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar, get_args
from urllib.parse import parse_qsl

from flask import Request
from gunicorn.http.errors import ParseException
from pydantic import BaseModel, TypeAdapter, ValidationError
from werkzeug.exceptions import UnsupportedMediaType

from server.errors import InvalidInput, PayloadTooLarge
from server.web.problems import FieldError, InvalidFields

T = TypeVar("T")

MAX_NESTING = 64
MAX_PARAMETERS = 50
MAX_REPORTED_ERRORS = 20
JSON = "application/json"
NDJSON = "application/x-ndjson"
NDJSON_TYPES = (NDJSON, "application/jsonl", "application/x-jsonlines")

# What the server raises while a body is read: the connection broke, or its chunks are malformed.
BROKEN_TRANSFER = (OSError, ParseException)

_PIECE = 64 * 1024
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class BodyStream:
    """A request's body, line by line or whole, up to a limit in bytes whether or not its length was
    told; a broken transfer is the client's error.

    Raises PayloadTooLarge and InvalidInput, also when constructed.
    """

    def __init__(self, request: Request, limit: int) -> None:
        self._limit = limit
        self._left = limit
        self._missing = request.content_length or 0
        if self._missing > limit:
            raise self._too_large()
        self._stream = request.stream

    def readline(self, size: int = -1, /) -> bytes:
        most = self._left + 1
        return self._count(self._stream.readline, min(size, most) if size >= 0 else most)

    def read(self) -> bytes:
        pieces = []
        while piece := self._count(self._stream.read, min(_PIECE, self._left + 1)):
            pieces.append(piece)
        return b"".join(pieces)

    def _count(self, read: Callable[[int], bytes], size: int) -> bytes:
        try:
            data = read(size)
        except BROKEN_TRANSFER as error:
            raise _cut_off() from error
        self._left -= len(data)
        self._missing -= len(data)
        if not data and self._missing > 0:
            raise _cut_off()
        if self._left < 0:
            raise self._too_large()
        return data

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"The body has more than {self._limit:,} bytes, the most that is accepted "
            "(TANYUAN_MAX_BODY); send less at a time."
        )


def check_media_type(request: Request, accepted: Sequence[str]) -> None:
    """Raises UnsupportedMediaType."""
    if request.mimetype not in accepted:
        raise UnsupportedMediaType(
            f"Send the body with Content-Type: {accepted[0]}; got {request.mimetype[:80]!r}."
        )
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if charset not in {"utf-8", "utf8", "us-ascii"}:
        raise UnsupportedMediaType(f"The body must be UTF-8; got charset {charset[:40]!r}.")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send the body without Content-Encoding.")


def read_json(request: Request, limit: int) -> Any:
    """The body as JSON values. Raises InvalidInput, UnsupportedMediaType and, where it has more than
    ``limit`` bytes, PayloadTooLarge."""
    check_media_type(request, (JSON,))
    raw = BodyStream(request, limit).read()
    if not raw.strip():
        raise InvalidInput("The request has no body; send a JSON object.", field="body")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"The body is not UTF-8: byte {error.start} can't be read.", field="body"
        ) from error
    try:
        values = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_float=_finite,
            parse_constant=_no_constant,
        )
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # broken JSON, or an integer of thousands of digits
        raise InvalidInput(f"The body is not JSON: {error}.", field="body") from error
    _check_nesting(values)
    return values


def read_query(request: Request, model: type[BaseModel]) -> dict[str, Any]:
    """The query string's parameters, numbers and booleans converted as the model wants them.

    Raises InvalidInput.
    """
    try:
        text = request.environ.get("QUERY_STRING", "").encode("latin-1").decode("utf-8")
        pairs = parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except UnicodeError as error:
        raise InvalidInput("The query string is not UTF-8.", field="query string") from error
    except ValueError as error:
        raise InvalidInput(
            f"The query string has more than {MAX_PARAMETERS} parameters.", field="query string"
        ) from error
    kinds = {item.alias or name: item.annotation for name, item in model.model_fields.items()}
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise InvalidInput(f"The parameter {name[:80]!r} stands twice.", field=name[:80])
        values[name] = _convert(value, kinds.get(name))
    return values


def refuse_query(request: Request) -> None:
    """For calls without parameters. Raises InvalidInput."""
    if request.environ.get("QUERY_STRING"):
        raise InvalidInput("This call takes no parameters.", field="query string")


def validate(adapter: TypeAdapter[T], values: Any, *, where: str = "") -> T:
    """``values`` as the adapter's type. Raises InvalidFields; ``where`` names the whole."""
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        raise InvalidFields(
            [
                FieldError(field=_place(item["loc"]) or where, message=_message(item))
                for item in error.errors(include_url=False, include_input=False)[
                    :MAX_REPORTED_ERRORS
                ]
            ]
        ) from None


def check_path(request: Request) -> None:
    """Werkzeug replaces what is not UTF-8 in a path, so that another document would be meant.

    Raises InvalidInput.
    """
    try:
        request.environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8")
    except UnicodeError as error:
        raise InvalidInput("The path is not UTF-8.", field="path") from error


def _message(item: Mapping[str, Any]) -> str:
    message = str(item["msg"]).removeprefix("Value error, ")
    return "Unknown; remove it." if item["type"] == "extra_forbidden" else message


def _place(location: tuple[int | str, ...]) -> str:
    """A pydantic location as a path: ``filters[0].term``. Names come from outside, so they are cut.

    Tags of our unions start with "=" and are no part of the path.
    """
    parts = (
        f"[{part}]" if isinstance(part, int) else f".{part[:80]}"
        for part in location
        if isinstance(part, int) or not part.startswith("=")
    )
    place = "".join(parts).removeprefix(".")
    return place.encode("utf-8", "backslashreplace").decode()


def _convert(value: str, kind: Any) -> str | int | bool:
    """A parameter's text as an integer or a boolean where that is wanted and it is one."""
    wanted = {kind, *get_args(kind)}
    if int in wanted and _INTEGER.fullmatch(value):
        return int(value)
    if bool in wanted:
        return _BOOLEANS.get(value, value)
    return value


def _cut_off() -> InvalidInput:
    return InvalidInput("The body was cut off or is badly framed; send it again.", field="body")


def _too_deep() -> InvalidInput:
    return InvalidInput(f"The body is nested more than {MAX_NESTING} deep.", field="body")


def _check_nesting(values: Any) -> None:
    level: list[Any] = [values]
    for _ in range(MAX_NESTING):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise _too_deep()


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise InvalidInput("A key stands twice in one object of the body.", field="body")
    return unique


def _finite(text: str) -> float:
    value = float(text)
    if value in {float("inf"), float("-inf")}:
        raise InvalidInput(f"The number {text[:40]} is too large.", field="body")
    return value


def _no_constant(name: str) -> NoReturn:
    raise InvalidInput(f"{name} is not a JSON number.", field="body")
