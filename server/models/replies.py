"""What servers that embed answer, and what each answer means: to be tried again, to be made shorter, or an
error."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from server.errors import EmbedderUnavailable

# A server that is busy is worth more patience than one that can't be reached.
ATTEMPTS, ATTEMPTS_TO_REACH = 8, 4
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
MAX_WORDS = 300  # characters of a server's own words that an error repeats
# As OpenAI, vLLM, Text Embeddings Inference, llama.cpp, Ollama and Baidu put it.
_ABOUT_LENGTH = re.compile(
    r"\b(?:tokens|characters)\b|(?:context|input|sequence) length|too (?:long|large)", re.I
)


class Transient(EmbedderUnavailable):
    """To be tried again, ``attempts`` times in all; ``pause``: after so many seconds, as the server
    says, or None."""

    def __init__(
        self, message: str, *, pause: float | None = None, attempts: int = ATTEMPTS
    ) -> None:
        super().__init__(message)
        self.pause = pause
        self.attempts = attempts


class TooLong(EmbedderUnavailable):
    """The server takes no text of this length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """``body``: the JSON, or None where it is none. ``words``: what the server says, to be repeated."""

    status: int
    headers: httpx.Headers
    body: Any
    words: str


def failure(
    reply: Reply, place: str, *, setting: str, key_setting: str = ""
) -> EmbedderUnavailable:
    """The error for an answer whose status is not 200."""
    says = f": {reply.words}" if reply.words else "."
    what = f"{place} refused (HTTP {reply.status})"
    if reply.status in {401, 403}:  # its words may show part of the key
        return EmbedderUnavailable(f"{what}; check {key_setting or setting}.")
    if 300 <= reply.status < 400:
        return EmbedderUnavailable(
            f"{place} sends its callers to another address (HTTP {reply.status}), which is not "
            f"followed; set {setting} to the right one."
        )
    if reply.status in {400, 413, 422, 500} and is_about_length(reply.words):
        return TooLong(f"{place} takes no text of this length (HTTP {reply.status}){says}")
    if reply.status in BUSY:
        pause = asked(reply)
        wait = f" It asks to wait {pause:.0f} s." if pause else ""
        return Transient(
            f"{place} is busy or failed (HTTP {reply.status}){says}{wait}", pause=pause
        )
    return EmbedderUnavailable(f"{what}{says}")


def in_order(body: Any, count: int, place: str) -> list[Any]:
    """What stands under ``embedding`` in the items of ``data``, by their ``index``.

    Raises EmbedderUnavailable unless there is one an input.
    """
    items = body.get("data") if isinstance(body, dict) else None
    if not isinstance(items, list) or len(items) != count:
        got = f"{len(items)} vectors" if isinstance(items, list) else "no list of vectors"
        raise EmbedderUnavailable(f"{place} gave {got} for {count} texts.")
    found: dict[int, Any] = {}
    for item in items:
        index = item.get("index") if isinstance(item, dict) else None
        if type(index) is not int or not 0 <= index < count or index in found:
            raise EmbedderUnavailable(
                f"{place} doesn't say rightly which vector is whose: an index is missing, there twice "
                "or too large."
            )
        found[index] = item.get("embedding")
    return [found[index] for index in range(count)]


def is_about_length(words: str) -> bool:
    return bool(_ABOUT_LENGTH.search(words))


def asked(reply: Reply) -> float | None:
    """Seconds that Retry-After asks to wait, as a number or as a date; None: it doesn't."""
    value = reply.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(?:\.\d{1,6})?", value):
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, math.ceil((until - datetime.now(UTC)).total_seconds()))


def words_of(body: Any) -> str:
    """What a server says is wrong, as OpenAI's, Ollama's and many others' answers put it."""
    said = body.get("error", body) if isinstance(body, dict) else None
    for name in ("message", "error_msg", "error_description", "detail"):
        if isinstance(said, dict) and isinstance(said.get(name), str):
            return str(said[name])
    return said if isinstance(said, str) else ""
