"""A search as asked for, and what of it goes to the BM25 retriever."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.analysis import numerals
from server.analysis.contract import Analysis, Analyzer, is_character
from server.analysis.normalize import Normalizer
from server.analysis.stopwords import NO_STOP_WORDS, StopWords
from server.analysis.synonyms import Synonyms
from server.documents import check_collection
from server.errors import InvalidInput, PageTooDeep
from server.hits import Mode
from server.retrieval.evidence import OtherWords
from server.retrieval.fusion import Fusion
from server.retrieval.profile import WEIGHTED, Profile
from server.stores.contract import MAX_DEPTH, TextClause
from server.stores.filters import Filter
from server.texts import check_text

MAX_QUERY_CHARS = 2_000

# A phrase that is added, all its terms together, weighs this much of the phrase that stands in the query:
# a half keeps what has the exact words above what has their synonyms only, also where the other is
# somewhat rarer, and still lets it outweigh any one chance bigram.
ADDED_WEIGHT = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """A search as asked for. ``offset`` is the API's ``from``. ``fusion`` None: the profile's;
    ``profile`` None: the one in force.

    ``group``: one hit a document, its best. ``highlight`` False leaves the spans out, which takes
    most of the time of a long list. ``explain``: each hit says what placed it.

    Raises InvalidInput or PageTooDeep.
    """

    query: str
    collection: str = "default"
    mode: Mode = "hybrid"
    size: int = 10
    offset: int = 0
    filter: Filter | None = None
    fusion: Fusion | None = None
    profile: Profile | None = None
    rerank: bool = True
    group: bool = False
    highlight: bool = True
    explain: bool = False

    def __post_init__(self) -> None:
        check_text(self.query, field="query", max_chars=MAX_QUERY_CHARS)
        if not self.query.strip():
            raise InvalidInput("The query is empty; type something to look for.", field="query")
        check_collection(self.collection)
        if not 1 <= self.size <= MAX_DEPTH or self.offset < 0:
            raise InvalidInput(
                f"size is from 1 to {MAX_DEPTH:,} and from is at least 0.", field="size"
            )
        if self.offset + self.size > MAX_DEPTH:
            raise PageTooDeep(
                f"from + size goes past {MAX_DEPTH:,} hits; narrow the search by a filter instead.",
                field="from",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """A phrase that is looked for beside one of the query; ``own``: the words of that one. ``shares``:
    by kind of terms, the weight of each of its terms beside that of a term of the query."""

    phrase: str
    own: frozenset[str]
    analysis: Analysis
    shares: Mapping[str, float]


def additions(
    query: str, analyzer: Analyzer, normalizer: Normalizer, synonyms: Synonyms
) -> tuple[Addition, ...]:
    """What synonyms and other writings of numbers add to a query, each phrase once."""
    found: dict[str, Addition] = {}
    numbers = numerals.expand(normalizer.normalize(query).text)
    for expansion in (*synonyms.expand(query), *numbers):
        own = _terms(analyzer.analyze(expansion.phrase))
        for phrase in expansion.added:
            analysis = analyzer.analyze(phrase)
            shares = {
                name: ADDED_WEIGHT * min(1.0, len(own[name]) / max(1, len(terms)))
                for name, terms in _terms(analysis).items()
            }
            found.setdefault(
                phrase,
                Addition(
                    phrase=phrase,
                    own=frozenset(own["words"]),
                    analysis=analysis,
                    shares=shares,
                ),
            )
    return tuple(found.values())


def text_clauses(
    analysis: Analysis,
    profile: Profile,
    *,
    added: Sequence[Addition] = (),
    stop_words: StopWords = NO_STOP_WORDS,
) -> tuple[TextClause, ...]:
    """One clause a kind of terms that has a weight and terms, and more for what is looked for beside
    them; none for a query without any term. A term that the query itself has is not added again."""
    terms = _terms(stop_words.without(analysis))
    extra = {kind: _added_terms(kind, terms[kind], added) for kind in terms}
    return tuple(
        TextClause(field=text_field, terms=found, weight=weight * share)
        for name, weight in profile.field_weights.items()
        if weight > 0
        for text_field, kinds in (WEIGHTED[name],)
        for kind in kinds
        for share, found in ((1.0, terms[kind]), *extra[kind])
        if found
    )


def with_additions(analysis: Analysis, added: Sequence[Addition]) -> Analysis:
    """The query's terms and those looked for beside them, as highlights want them."""
    if not added:
        return analysis
    analyses = (analysis, *(addition.analysis for addition in added))
    return Analysis(
        tuple(token for each in analyses for token in each.words),
        tuple(token for each in analyses for token in each.bigrams),
    )


def said_otherwise(analysis: Analysis, added: Sequence[Addition]) -> tuple[OtherWords, ...]:
    """What is as good as having words of the query."""
    words = {token.term for token in analysis.words}
    return tuple(
        OtherWords(own=own, others=others)
        for each in added
        if (own := each.own & words) and (others := frozenset(_terms(each.analysis)["words"]))
    )


def _terms(analysis: Analysis) -> dict[str, tuple[str, ...]]:
    """Terms by kind, as WEIGHTED names them."""
    bigrams = [token.term for token in analysis.bigrams]
    return {
        "words": tuple(token.term for token in analysis.words),
        "bigrams": tuple(term for term in bigrams if not is_character(term)),
        "characters": tuple(term for term in bigrams if is_character(term)),
    }


def _added_terms(
    name: str, own: Sequence[str], added: Sequence[Addition]
) -> list[tuple[float, tuple[str, ...]]]:
    """Terms by their share, the largest first; each term once, with its largest share."""
    shares: dict[str, float] = {}
    for addition in added:
        share = addition.shares[name]
        if not share:  # the phrase that stands in the query has no such terms
            continue
        for term in _terms(addition.analysis)[name]:
            shares[term] = max(share, shares.get(term, 0.0))
    for term in own:
        shares.pop(term, None)
    by_share: dict[float, list[str]] = {}
    for term, share in shares.items():
        by_share.setdefault(share, []).append(term)
    return [(share, tuple(by_share[share])) for share in sorted(by_share, reverse=True)]
