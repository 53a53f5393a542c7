"""Affected: which documents have other terms under another dictionary."""

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

    def candidates(self, *, thorough: bool) -> Iterator[str]:
        """Ids of documents that may be affected, each once.

        ``thorough``: all of them, also where only reading every document tells; else, of those, the
        ones that hold a changed word as it usually stands.
        """
        seen: set[str] = set()
        for document_id in self._found(thorough=thorough):
            if document_id not in seen:
                seen.add(document_id)
                yield document_id

    def _found(self, *, thorough: bool) -> Iterator[str]:
        read = [word for word in self._words if not terms_with(word)]
        if thorough and (read or self.everywhere):
            for stored in self._store.documents(self._collection):
                document = stored.document
                if self.everywhere or self._holds(f"{document.title}\n{document.text}", read):
                    yield document.id
        if thorough and self.everywhere:
            return
        searched = {terms_with(word) for word in self._words} - {()}
        if not thorough:
            searched |= {self._usual_terms(word) for word in read}
        for terms in sorted(searched):
            yield from self._store.generations.containing(self._collection, terms)

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
