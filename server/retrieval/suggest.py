"""Suggester: completions for what is typed into a search box, and the query that was meant.

Candidates come from a lexicon, which knows what the caller's groups may see, and from what was asked
before. None is shown before the store has said, under the caller's filter, that one chunk or title that
he may see has all of its words now.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

from server.analysis.contract import Analyzer
from server.analysis.normalize import Normalizer
from server.errors import TanyuanError
from server.hits import Degraded, DidYouMean, Suggestion, Suggestions
from server.live import LiveCollections
from server.retrieval.completions import Completions, Typed, distinct
from server.retrieval.lexicon_builder import longest
from server.retrieval.lexicons import Lexicons, Phrases
from server.retrieval.searcher import visible
from server.retrieval.spelling import Spelling
from server.stores.contract import Store

MAX_TYPED = 60  # characters; what is longer is no beginning of a query that others would type
STAGE = "suggest"

_SPARE = 4  # candidates checked past those wanted, in case some are gone
_TAILS = 24  # completions of the last word alone that are checked
_RARE = 3  # chunks; a part that has more is meant as it is typed
_MORE = 10  # times as many chunks has what was meant
_NOT_YET = "The suggestions are still being made from the collection's documents."


class Suggester:
    """Thread-safe."""

    def __init__(self, *, store: Store, live: LiveCollections, lexicons: Lexicons) -> None:
        self._store = store
        self._live = live
        self._lexicons = lexicons
        self._normalizer = Normalizer()

    def suggest(
        self, query: str, collection: str, *, groups: frozenset[str] | None, size: int
    ) -> Suggestions:
        """At most ``size`` completions for a caller of ``groups`` (None: may see everything).

        Raises CollectionNotFound; a store that fails is named in ``degraded``.
        """
        analyzer = self._live.open(collection).analyzer
        phrases = self._lexicons.of(collection)
        if phrases is None:
            return Suggestions(query=query, degraded=(Degraded(STAGE, _NOT_YET),))
        if len(query) > MAX_TYPED:
            return Suggestions(query=query)
        checked = _Checked(self._store, collection, analyzer, groups)
        try:
            found = self._complete(query, phrases, checked, size)
            if not found and (meant := _meant(query, phrases, checked, self._normalizer)):
                found = [Suggestion(text=meant.query, kind="text")]
        except TanyuanError as error:
            return Suggestions(query=query, degraded=(Degraded(STAGE, error.message),))
        return Suggestions(query=query, suggestions=tuple(found[:size]))

    def did_you_mean(
        self, query: str, collection: str, *, groups: frozenset[str] | None
    ) -> DidYouMean | None:
        """What a caller of ``groups`` may have meant by a query that has words which none of his
        documents has, or hardly one; None too while nothing is known of the collection.

        Raises CollectionNotFound, StoreUnavailable, StoreTimeout.
        """
        phrases = self._lexicons.of(collection)
        if phrases is None:
            return None
        analyzer = self._live.open(collection).analyzer
        checked = _Checked(self._store, collection, analyzer, groups)
        return _meant(query, phrases, checked, self._normalizer)

    def prepare(self, collection: str) -> int:
        """Read the collection as it is now and wait for it; how many phrases are known of it.

        Raises CollectionNotFound, StoreUnavailable.
        """
        return len(self._lexicons.make(collection).documents.entries)

    def close(self) -> None:
        """End what is being made in the background."""
        self._lexicons.close()

    def _complete(
        self, query: str, phrases: Phrases, checked: "_Checked", size: int
    ) -> list[Suggestion]:
        completions = Completions(
            documents=phrases.documents.view(checked.groups),
            queries=phrases.queries.view(None),
            analyzer=checked.analyzer,
            normalizer=self._normalizer,
        )

        def shown(found: Iterator[Suggestion], at_most: int) -> list[tuple[Suggestion, int]]:
            candidates = list(islice(distinct(found, query, checked.analyzer), at_most))
            counts = checked.counts([each.text for each in candidates])
            return [each for each in zip(candidates, counts, strict=True) if each[1]]

        found = shown(completions.whole(Typed.of(query, self._normalizer)), size + _SPARE)
        if len(found) < size:
            tails = shown(completions.last_word(query), _TAILS)
            found += sorted(tails, key=lambda tail: -tail[1])
        return list(distinct((each for each, _ in found), query, checked.analyzer))


class _Checked:
    """What the store says now of texts, under one caller's filter."""

    def __init__(
        self, store: Store, collection: str, analyzer: Analyzer, groups: frozenset[str] | None
    ) -> None:
        self.analyzer = analyzer
        self.groups = groups
        self._store = store
        self._collection = collection

    def counts(self, texts: Sequence[str], *, whole: Sequence[str] = ()) -> list[int]:
        """How many chunks that the caller may see have all the words of each of ``texts``, and then
        how many have each of ``whole`` as it is."""
        phrases = [_words(text, self.analyzer) for text in texts]
        phrases += [_phrase(text, self.analyzer) for text in whole]
        if not phrases:
            return []
        return self._store.holding(self._collection, phrases, filter=visible(None, self.groups))


def _meant(
    query: str, phrases: Phrases, checked: _Checked, normalizer: Normalizer
) -> DidYouMean | None:
    """The query with the parts that are not there, or hardly, as they were meant."""
    view = phrases.documents.view(checked.groups)
    parts = Spelling(view, checked.analyzer, normalizer).parts(query)
    asked = [query[part.start : part.end] for part in parts]
    texts = [text for part in parts for text in part.meant]
    found = checked.counts(texts, whole=asked)
    counts = dict(zip(texts, found, strict=False))
    as_typed = found[len(texts) :]
    corrected, at = "", 0
    reasons = []
    for part, typed in zip(parts, as_typed, strict=True):
        meant = next((text for text in part.meant if counts[text]), None)
        if meant is None or typed > _RARE or counts[meant] < _MORE * typed:
            continue
        corrected += query[at : part.start] + meant
        at = part.end
        reasons.append(part.reason)
    corrected += query[at:]
    return DidYouMean(query=corrected, reason=reasons[0]) if reasons else None


def _words(text: str, analyzer: Analyzer) -> list[str]:
    """The terms of the bigrams of each of a text's words: what stands where the words do, whether side
    by side or not."""
    words = longest(analyzer.analyze(text).words)
    found = [_phrase(text[word.start : word.end], analyzer) for word in words]
    return list(dict.fromkeys(term for terms in found for term in terms))


def _phrase(text: str, analyzer: Analyzer) -> list[str]:
    """The terms of a text's bigrams; single characters only where no longer term has them."""
    tokens = analyzer.analyze(text).bigrams
    long = [token for token in tokens if len(token.term) > 1]
    covered = {place for token in long for place in range(token.start, token.end)}
    return list(
        dict.fromkeys(
            token.term for token in tokens if len(token.term) > 1 or token.start not in covered
        )
    )
