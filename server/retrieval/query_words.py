"""QueryWords: the synonyms and stop words that act on a collection's queries now."""

from dataclasses import dataclass

from server.analysis.stopwords import NO_STOP_WORDS, StopWords
from server.analysis.synonyms import NO_SYNONYMS, Synonyms
from server.retrieval.following import Followed
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
        self._followed = Followed(self._versions, self._parse, seconds=seconds)

    def of(self, collection: str) -> QueryWords:
        """Those in force, at most ``seconds`` old, or as last read where the store can't be asked.

        Raises CollectionNotFound, and StoreUnavailable where they were never read.
        """
        return self._followed.of(collection)

    def _versions(self, collection: str) -> tuple[int, int]:
        heads = self._vocabulary.heads(collection)
        return heads["synonyms"], heads["stop_words"]

    def _parse(self, collection: str) -> QueryWords:
        synonyms = self._vocabulary.lines(collection, "synonyms")
        stop_words = self._vocabulary.lines(collection, "stop_words")
        return QueryWords(
            synonyms=Synonyms.parse(synonyms.lines), stop_words=StopWords.parse(stop_words.lines)
        )
