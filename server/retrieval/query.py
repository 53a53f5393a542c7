"""From an analysed query to what the BM25 retriever is asked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from server.analysis.contract import Analysis
from server.retrieval.fusion import Fusion
from server.stores.contract import TextClause


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
