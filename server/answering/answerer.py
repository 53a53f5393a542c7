"""Question → sources → prompt within its budget → generator → citations."""

import time
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace

from server.analysis.contract import Analyzer
from server.answering.citations import cite, sentences_of
from server.answering.events import Citations, Done, Event, Failed, Sources, Token
from server.answering.extract import extract
from server.answering.prompt import Budget, build_prompt
from server.errors import GeneratorUnavailable, InvalidInput, TanyuanError
from server.hits import Answer, Degraded, Mode, Stage, Status
from server.models import contract
from server.models.contract import Message
from server.retrieval.query import MAX_QUERY_CHARS, SearchQuery
from server.retrieval.searcher import Searcher
from server.stores.filters import Filter
from server.texts import check_text

MAX_HISTORY = 50
MAX_MESSAGE_CHARS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question as asked. ``history``: earlier turns, oldest first. Raises InvalidInput."""

    question: str
    collection: str = "default"
    history: tuple[Message, ...] = ()
    filter: Filter | None = None
    mode: Mode = "hybrid"

    def __post_init__(self) -> None:
        check_text(self.question, field="question", max_chars=MAX_QUERY_CHARS)
        if not self.question.strip():
            raise InvalidInput("The question is empty.", field="question")
        if len(self.history) > MAX_HISTORY:
            raise InvalidInput(f"history has more than {MAX_HISTORY} messages.", field="history")
        for message in self.history:
            check_text(message.content, field="history", max_chars=MAX_MESSAGE_CHARS)

    @property
    def standalone(self) -> str:
        """What is searched for: the question, after the one before it, which it may lean on."""
        earlier = [message.content for message in self.history if message.role == "user"]
        joined = f"{earlier[-1]}\n{self.question}" if earlier else self.question
        return joined if len(joined) <= MAX_QUERY_CHARS else self.question


class Answerer:
    """Answers questions from the documents; thread-safe.

    ``generator`` None: there is none, ``missing`` says why, and answers are extracts.
    """

    def __init__(
        self,
        *,
        searcher: Searcher,
        analyzer: Analyzer,
        generator: contract.Generator | None,
        missing: Mapping[str, str] | None = None,
        passages: int = 12,
        answer_tokens: int = 1024,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._searcher = searcher
        self._analyzer = analyzer
        self._generator = generator
        self._missing = missing or {}
        self._passages = passages
        self._answer_tokens = answer_tokens
        self._clock = clock

    def answer(self, question: Question, *, groups: frozenset[str] | None) -> Answer:
        """The whole answer. Raises what ``stream`` raises, and the error of a Failed event that
        came before any text; with text the answer is "partial" and says why."""
        for event in self.stream(question, groups=groups):
            if isinstance(event, Done):
                return event.answer
            if isinstance(event, Failed):
                if not event.answer.answer:
                    raise event.error
                return event.answer
        raise AssertionError("an answer ends with Done or Failed")

    def stream(
        self, question: Question, *, groups: frozenset[str] | None
    ) -> Generator[Event, None, None]:
        """Events as they come. Closing the iterator stops the generator.

        Raises, before the first event, what the search raises.
        """
        query = SearchQuery(
            query=question.standalone,
            collection=question.collection,
            mode=question.mode,
            size=self._passages,
            filter=question.filter,
        )
        found = self._searcher.search(query, groups=groups)
        base = Answer(
            id=uuid.uuid4().hex,
            status="refused",
            answer="",
            standalone_question=query.query if query.query != question.question else None,
            sources=found.hits,
            stages=found.stages,
            degraded=found.degraded,
        )
        yield Sources(found.hits, found.degraded)
        if not found.hits:
            yield Citations(())
            yield Done(replace(base, reason="Nothing was found in the documents."))
            return
        if self._generator is None:
            reason = self._missing.get("generator", "No generator is configured.")
            yield from self._extracted(question, base, reason)
            return
        yield from self._generated(question, base, self._generator)

    def _extracted(
        self, question: Question, base: Answer, reason: str
    ) -> Generator[Event, None, None]:
        text = extract(question.question, base.sources, self._analyzer)
        yield Token(text)
        answer = self._cited(
            replace(
                base,
                status="extract",
                reason=reason,
                degraded=(*base.degraded, Degraded("generator", reason)),
            ),
            text,
            tuple(hit.chunk_id for hit in base.sources),
        )
        yield Citations(answer.citations)
        yield Done(answer)

    def _generated(
        self, question: Question, base: Answer, generator: contract.Generator
    ) -> Generator[Event, None, None]:
        budget = Budget(
            tokens=generator.context_tokens - self._answer_tokens,
            count=generator.count_tokens,
            overhead=generator.message_overhead,
        )
        began = self._clock()
        pieces: list[str] = []
        cut_off: str | None = None
        failure: TanyuanError | None = None
        try:
            prompt = build_prompt(question.question, base.sources, question.history, budget)
            base = replace(base, context=prompt.context, model=generator.name)
            stream = generator.stream(prompt.messages, max_tokens=self._answer_tokens)
            with closing(stream):
                for piece in stream:
                    if isinstance(piece, str):
                        pieces.append(piece)
                        yield Token(piece)
                    elif piece.reason == "length":
                        cut_off = "The answer reached its greatest length and was cut off."
        except (GeneratorUnavailable, InvalidInput) as error:
            failure = error
        text = "".join(pieces)
        took = round((self._clock() - began) * 1000, 3)
        base = replace(base, stages=(*base.stages, Stage("generate", took)))
        used = base.context.used
        if failure is None:
            status: Status = "partial" if cut_off else "answered"
            answer = self._cited(replace(base, status=status, reason=cut_off), text, used)
            yield Citations(answer.citations)
            yield Done(answer)
        elif text or isinstance(failure, InvalidInput):
            partial = replace(base, status="partial", reason=failure.message)
            yield Failed(failure, self._cited(partial, text, used))
        else:
            yield from self._extracted(question, replace(base, model=None), failure.message)

    @staticmethod
    def _cited(base: Answer, text: str, used: tuple[str, ...]) -> Answer:
        citations = cite(text, base.sources, used)
        return replace(
            base, answer=text, citations=citations, sentences=sentences_of(text, citations)
        )
