"""What an answer emits, in this order: Sources, Tokens, Citations, then Done or Failed."""

from dataclasses import dataclass

from server.errors import TanyuanError
from server.hits import Answer, Citation, Degraded, Hit


@dataclass(frozen=True, slots=True)
class Sources:
    """The passages found, in the order whose numbers (from 1) the answer's markers use."""

    sources: tuple[Hit, ...]
    degraded: tuple[Degraded, ...]


@dataclass(frozen=True, slots=True)
class Token:
    """The next piece of the answer's text; it may hold line breaks."""

    text: str


@dataclass(frozen=True, slots=True)
class Citations:
    citations: tuple[Citation, ...]


@dataclass(frozen=True, slots=True)
class Done:
    answer: Answer


@dataclass(frozen=True, slots=True)
class Failed:
    """The generator failed after the answer began; ``answer`` holds what came until then."""

    error: TanyuanError
    answer: Answer


Event = Sources | Token | Citations | Done | Failed
