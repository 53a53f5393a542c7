"""The prompt and its budget: which passages enter is settled before anything is sent.

A generator cuts an over-long prompt silently, from its front, so the instructions would go first.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template
from typing import Literal

from server.analysis.sentences import split_sentences
from server.errors import InvalidInput
from server.hits import ContextReport, Hit
from server.models.contract import Message

Language = Literal["zh", "en"]

_HAN = re.compile(r"[㐀-鿿豈-﫿\U00020000-\U0003134f]")
_TAG = re.compile(r"<(/?)\s*source", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Prompt:
    messages: tuple[Message, ...]
    context: ContextReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """``tokens``: what the whole prompt may take. ``overhead``: tokens that a message costs on top."""

    tokens: int
    count: Callable[[str], int]
    overhead: int

    def cost(self, messages: Sequence[Message]) -> int:
        return sum(self.count(message.content) + self.overhead for message in messages)


def language_of(question: str) -> Language:
    """Chinese where the question has a Han character."""
    return "zh" if _HAN.search(question) else "en"


def build_prompt(
    question: str, sources: Sequence[Hit], history: Sequence[Message], budget: Budget
) -> Prompt:
    """Fill the prompt with whole passages by rank while they fit, then with history, newest first.

    A source keeps its number (its place in ``sources``, from 1) even where others are dropped. If
    not even the best passage fits, it is cut after a sentence. Raises InvalidInput when the question
    alone leaves no room for any passage.
    """
    language = language_of(question)
    system = Message("system", _template(f"system.{language}").template.strip())

    def user(blocks: Sequence[str]) -> Message:
        filled = _template(f"user.{language}").substitute(
            sources="\n\n".join(blocks), question=question.strip()
        )
        return Message("user", filled.strip())

    room = budget.tokens - budget.cost((system, user([])))
    blocks: list[str] = []
    used: list[str] = []
    dropped: list[str] = []
    truncated: list[str] = []
    for number, hit in enumerate(sources, 1):
        block = _block(number, hit, hit.text)
        cost = budget.count(block) + budget.count("\n\n")
        if cost > room and number == 1:
            block, cost = _cut_block(hit, room, budget.count)
            truncated = [hit.chunk_id] if block else []
        if not block or cost > room:
            dropped.append(hit.chunk_id)
            continue
        blocks.append(block)
        used.append(hit.chunk_id)
        room -= cost
    if sources and not used:
        raise InvalidInput(
            "The question is too long to leave room for a passage in the generator's context; "
            "shorten it or raise TANYUAN_GENERATOR_CONTEXT.",
            field="question",
        )
    past: list[Message] = []
    for message in reversed(history):
        cost = budget.cost((message,))
        if cost > room:
            break
        past.insert(0, message)
        room -= cost
    messages = (system, *past, user(blocks))
    return Prompt(
        messages,
        ContextReport(
            tokens=budget.cost(messages),
            limit=budget.tokens,
            used=tuple(used),
            dropped=tuple(dropped),
            truncated=tuple(truncated),
        ),
    )


def _block(number: int, hit: Hit, text: str) -> str:
    """A source as the model reads it. Tags inside the text are defused, so it can't end its block."""
    title = _defused(" > ".join(part for part in (hit.title, *hit.headings) if part))
    title = title.replace('"', "'").replace("\n", " ")
    return f'<source number="{number}" title="{title}">\n{_defused(text)}\n</source>'


def _defused(text: str) -> str:
    return _TAG.sub(r"‹\1source", text)


def _cut_block(hit: Hit, room: int, count: Callable[[str], int]) -> tuple[str, int]:
    """The longest beginning of the best passage, in whole sentences, that fits; else ("", 0)."""
    best = ("", 0)
    for _, end in split_sentences(hit.text):
        block = _block(1, hit, hit.text[:end])
        cost = count(block) + count("\n\n")
        if cost > room:
            break
        best = (block, cost)
    return best


@cache
def _template(name: str) -> Template:
    return Template((files("server.answering") / "prompts" / f"{name}.txt").read_text("utf-8"))
