"""Services: everything the web layer calls, put together by the composition root."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from server.answering.answerer import Answerer
from server.feedback import Feedback
from server.ingest.indexer import Indexer
from server.lifecycle.dictionary import DictionaryChanges
from server.lifecycle.rebuild import Rebuilder
from server.retrieval.profiles import Profiles
from server.retrieval.query_log import QueryLog
from server.retrieval.searcher import Searcher
from server.retrieval.suggest import Suggester
from server.settings import Settings
from server.stores.contract import Store
from server.vocabulary import Vocabulary
from server.web.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """Whether a part can serve now, what it is, and one line about it (or why it can't serve)."""

    ready: bool
    name: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """``choices``: (component, name, reason) of each adapter chosen at start.

    ``components`` gives the readiness by component ("store", "embedder", "reranker", "generator") and
    answers within about two seconds; only "store" decides whether the server is ready.
    """

    settings: Settings
    store: Store
    indexer: Indexer
    searcher: Searcher
    suggester: Suggester
    answerer: Answerer
    rebuilder: Rebuilder
    vocabulary: Vocabulary
    dictionaries: DictionaryChanges
    profiles: Profiles
    feedback: Feedback
    keys: Keys
    query_log: QueryLog | None
    choices: tuple[tuple[str, str, str], ...]
    components: Callable[[], Mapping[str, Component]]

    def close(self) -> None:
        """Write what waits, and release files and connections."""
        self.suggester.close()
        if self.query_log is not None:
            self.query_log.close()
        self.store.close()
