"""What tests of the HTTP layer put in the place of a model, and how they make trouble."""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from server.analysis.analyzer import JiebaAnalyzer
from server.analysis.dictionary import UserDictionary
from server.answering.answerer import Answerer
from server.errors import GeneratorInterrupted, TanyuanError
from server.feedback import Feedback
from server.ingest.indexer import Indexer
from server.lifecycle.dictionary import DictionaryChanges
from server.lifecycle.rebuild import Rebuilder
from server.models.contract import Generated, Message
from server.retrieval.lexicons import Lexicons
from server.retrieval.profiles import Profiles
from server.retrieval.query_log import QueryLog
from server.retrieval.searcher import Searcher
from server.retrieval.suggest import Suggester
from server.settings import Settings
from server.stores.contract import Store
from server.stores.embedded.store import EmbeddedStore
from server.vocabulary import Vocabulary
from server.web.keys import Keys
from server.web.services import Component, Services
from tests.fakes import live_collections


class ObservedStore:
    """A real store in which trouble can be made.

    ``fault``: raised by every method while it is set; ``fail_on``: by one of this name. ``calls``: each
    method's name and arguments.
    """

    def __init__(self, store: Store) -> None:
        self.fault: Exception | None = None
        self.fail_on: dict[str, Exception] = {}
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self._store = store

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            if fault := self.fault or self.fail_on.get(name):
                raise fault
            self.calls.append((name, arguments))
            return found(*arguments, **options)

        return call

    def close(self) -> None:
        self._store.close()


class ScriptedGenerator:
    """Says its script's pieces; a float is a silence of so many seconds, an error is raised.

    When its stream ends or is closed, a line is added to ``record``.
    """

    name = "scripted"
    context_tokens = 8192
    message_overhead = 8

    def __init__(self, *script: str | float | TanyuanError, record: Path | None = None) -> None:
        self._script = script
        self._record = record

    def count_tokens(self, text: str) -> int:
        return len(text)

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str | Generated]:
        said = 0
        try:
            for step in self._script:
                if isinstance(step, TanyuanError):
                    raise step
                if isinstance(step, float):
                    time.sleep(step)
                else:
                    said += 1
                    yield step
            yield Generated(reason="stop")
        finally:
            if self._record:
                with self._record.open("a") as file:
                    file.write(f"closed after {said}\n")

    def check(self) -> str:
        return "scripted"


SCRIPTS: Mapping[str, tuple[str | float | TanyuanError, ...]] = {
    "answer": ("住宿标准", "是每晚\n", "500 元 [1]。"),
    "endless": tuple(step for number in range(2_000) for step in (f"字{number} ", 0.05)),
    "interrupted": ("住宿", GeneratorInterrupted("The generator stopped in the middle.")),
    "silent": (3.0, "终于 [1]。"),
}


@cache
def _analyzer() -> JiebaAnalyzer:
    return JiebaAnalyzer()  # thread-safe, and slow to make


def make_services(settings: Settings, *, generator: ScriptedGenerator | None = None) -> Services:
    """The real thing on an embedded store, but for models. Its store is to be closed."""
    store = ObservedStore(EmbeddedStore(settings.data / "store"))
    analyzer = _analyzer()
    live = live_collections(store, analyzer)
    indexer = Indexer(store, live)
    searcher = Searcher(store=store, live=live, reranker=None)
    query_log = QueryLog.in_folder(settings.data)
    suggester = Suggester(store=store, live=live, lexicons=Lexicons(store, live, query_log))
    answerer = Answerer(searcher=searcher, analyzer=analyzer, generator=generator)

    def components() -> Mapping[str, Component]:
        try:
            serving = Component(ready=True, name=store.kind, detail=store.check())
        except TanyuanError as error:
            serving = Component(ready=False, name=store.kind, detail=error.message)
        none = Component(ready=False, name="none", detail="not in this test")
        return {"store": serving, "embedder": none, "reranker": none, "generator": none}

    return Services(
        settings=settings,
        store=store,
        indexer=indexer,
        searcher=searcher,
        suggester=suggester,
        answerer=answerer,
        rebuilder=Rebuilder(store, live),
        vocabulary=Vocabulary(store.notes),
        dictionaries=DictionaryChanges(
            store, live, Vocabulary(store.notes), JiebaAnalyzer, UserDictionary()
        ),
        profiles=Profiles(store.notes),
        feedback=Feedback(store.notes),
        keys=Keys.in_folder(settings.data),
        query_log=query_log,
        choices=(),
        components=components,
    )
