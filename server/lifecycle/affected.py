"""Affected: which documents have other terms under another dictionary."""

import math
import time
from collections.abc import Iterator, Sequence

from server.analysis.normalize import Normalizer
from server.analysis.word_changes import (
    DictionaryAnalyzer,
    WordChange,
    shifts_all,
    terms_with,
    word_changes,
)
from server.documents import Document, heading_path
from server.stores.contract import Store
from server.stores.generations import StoredChunk

MOST_SEARCHES = 200  # that several passes make, the last of them while writes wait


class Affected:
    """``before``: the analyzers that may have made what is in the generation, the one in force first;
    ``after``: the one that shall have."""

    def __init__(
        self,
        store: Store,
        collection: str,
        before: Sequence[DictionaryAnalyzer],
        after: DictionaryAnalyzer,
    ) -> None:
        self.before = before
        self.after = after
        self.changes: tuple[WordChange, ...] = tuple(
            dict.fromkeys(change for each in before for change in word_changes(each, after))
        )
        self.everywhere = any(shifts_all(word_changes(each, after)) for each in before)
        self._store = store
        self._collection = collection
        self._words = tuple(dict.fromkeys(change.word for change in self.changes))
        self._normalizer = Normalizer()

    @property
    def is_wide(self) -> bool:
        """Whether so much may change that a new generation is the shorter way."""
        return self.everywhere or len(self._searched(thorough=False)) > MOST_SEARCHES

    def candidates(self, *, thorough: bool, until: float = math.inf) -> Iterator[str]:
        """Ids of documents with a changed word, each once; ``until``: the time to stop at.

        ``thorough``: all of them, also where only reading every document tells; else, of those, the
        ones that hold a changed word as it usually stands.
        """
        seen: set[str] = set()
        for document_id in self._found(thorough=thorough, until=until):
            if document_id not in seen:
                seen.add(document_id)
                yield document_id

    def _found(self, *, thorough: bool, until: float) -> Iterator[str]:
        read = [word for word in self._words if not terms_with(word)]
        if thorough and read:
            for stored in self._store.documents(self._collection):
                document = stored.document
                if self._holds(f"{document.title}\n{document.text}", read):
                    yield document.id
        for terms in self._searched(thorough=thorough):
            if time.monotonic() > until:
                return
            yield from self._store.generations.containing(self._collection, terms)

    def _searched(self, *, thorough: bool) -> list[tuple[str, ...]]:
        searched = {terms_with(word) or self._usual_terms(word) for word in self._words}
        if thorough:
            searched = {terms_with(word) for word in self._words}
        return sorted(searched - {()})

    def _usual_terms(self, word: str) -> tuple[str, ...]:
        """Those of a Latin word or code that stands apart."""
        return tuple(token.term for token in self.before[0].analyze(word).bigrams)

    def differs(self, document: Document, count: int, chunks: Sequence[StoredChunk]) -> bool:
        """Whether a document has to be derived again; also where its ``count`` chunks are not those
        of its text, so that nothing can be told."""
        own = [stored.chunk for stored in chunks]
        if len(own) != count or any(
            chunk.text != document.text[chunk.start : chunk.end] for chunk in own
        ):
            return True
        texts = {chunk.text for chunk in own}
        texts |= {heading_path(document.title, chunk.headings) for chunk in own}
        return any(self.text_differs(text) for text in texts)

    def text_differs(self, text: str) -> bool:
        if not self.everywhere and not self._holds(text, self._words):
            return False
        after = self.after.analyze(text)
        return any(each.analyze(text) != after for each in self.before)

    def _holds(self, text: str, words: Sequence[str]) -> bool:
        normalized = self._normalizer.normalize(text).text
        return any(word in normalized for word in words)
