"""QueryWords: the synonyms and stop words that act on a collection's queries now."""

import math
import time
from dataclasses import dataclass

from server.analysis.stopwords import NO_STOP_WORDS, StopWords
from server.analysis.synonyms import NO_SYNONYMS, Synonyms
from server.errors import CollectionNotFound, StoreUnavailable
from server.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryWords:
    """What acts on a collection's queries now."""

    synonyms: Synonyms = NO_SYNONYMS
    stop_words: StopWords = NO_STOP_WORDS


class QueryVocabulary:
    """Synonyms and stop words as searches need them: read again at most every ``seconds``, and parsed
    once a version. Thread-safe."""

    def __init__(self, vocabulary: Vocabulary, *, seconds: float = 1.0) -> None:
        self._vocabulary = vocabulary
        self._seconds = seconds
        self._read: dict[str, tuple[float, tuple[int, int], QueryWords]] = {}

    def of(self, collection: str) -> QueryWords:
        """Those in force, at most ``seconds`` old, or as last read where the store can't be asked.

        Raises CollectionNotFound, and StoreUnavailable where they were never read.
        """
        now = time.monotonic()
        read_at, versions, words = self._read.get(collection, (-math.inf, (0, 0), QueryWords()))
        if now - read_at < self._seconds:
            return words
        try:
            heads = self._vocabulary.heads(collection)
            latest = heads["synonyms"], heads["stop_words"]
            if latest != versions or read_at == -math.inf:
                words = self._parse(collection)
        except CollectionNotFound:
            self._read.pop(collection, None)  # another one of this name has its own
            raise
        except StoreUnavailable:
            if read_at == -math.inf:
                raise
            return words
        self._read[collection] = (now, latest, words)
        return words

    def _parse(self, collection: str) -> QueryWords:
        synonyms = self._vocabulary.lines(collection, "synonyms")
        stop_words = self._vocabulary.lines(collection, "stop_words")
        return QueryWords(
            synonyms=Synonyms.parse(synonyms.lines), stop_words=StopWords.parse(stop_words.lines)
        )
