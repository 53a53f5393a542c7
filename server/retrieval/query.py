"""A search as asked for, and what of it goes to the BM25 retriever."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from server.analysis.contract import Analysis
from server.documents import check_collection
from server.errors import InvalidInput, PageTooDeep
from server.hits import Mode
from server.retrieval.fusion import Fusion
from server.stores.contract import MAX_DEPTH, TextClause
from server.stores.filters import Filter
from server.texts import check_text

MAX_QUERY_CHARS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """A search as asked for. ``offset`` is the API's ``from``. ``fusion`` None: the profile's.

    ``group``: one hit a document, its best. ``highlight`` False leaves the spans out, which takes
    most of the time of a long list. Raises InvalidInput or PageTooDeep.
    """

    query: str
    collection: str = "default"
    mode: Mode = "hybrid"
    size: int = 10
    offset: int = 0
    filter: Filter | None = None
    fusion: Fusion | None = None
    rerank: bool = True
    group: bool = False
    highlight: bool = True

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
class Profile:
    """The defaults of a search: weight of each text field (TEXT_FIELDS) and the fusion."""

    field_weights: Mapping[str, float] = field(
        default_factory=lambda: MappingProxyType(
            {"words": 1.0, "bigrams": 1.0, "title_words": 0.2, "title_bigrams": 0.2}
        )
    )
    fusion: Fusion = field(default_factory=Fusion)


def text_clauses(analysis: Analysis, profile: Profile) -> tuple[TextClause, ...]:
    """One clause a text field that has a weight and terms; none for a query without any term."""
    terms = {
        "words": tuple(token.term for token in analysis.words),
        "bigrams": tuple(token.term for token in analysis.bigrams),
    }
    return tuple(
        TextClause(field=name, terms=terms[name.removeprefix("title_")], weight=weight)
        for name, weight in profile.field_weights.items()
        if weight > 0 and terms[name.removeprefix("title_")]
    )
