"""What comes back from the documents: Hit, Retrieval, Citation, Answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from server.documents import MetadataValue

Mode = Literal["hybrid", "bm25", "vector"]
Ranker = Literal["bm25", "vector", "sparse", "fused", "rerank"]


@dataclass(frozen=True, slots=True)
class Span:
    """Code-point offsets; ``end`` is exclusive."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a request and the milliseconds it took."""

    name: str
    took_ms: float


@dataclass(frozen=True, slots=True)
class Degraded:
    """A stage that is missing from the response, and why, in words for a user."""

    stage: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One ranked result. ``scores`` and ``ranks`` (from 1) hold only the rankers that had it.

    ``score`` is that of the last ranker that ordered the list: rerank, else fused, else the only leg.
    ``highlights`` are spans in ``text``, ``title_highlights`` in ``title``; ``start`` and ``end``
    place ``text`` in its document. ``more``: other chunks of the document that were found, when hits
    are grouped. ``evidence``: by kind, what the light ranker found to speak for it, in log-odds whose sum
    is its score; None where that was not asked for or another ranker placed it.
    """

    document_id: str
    chunk_id: str
    title: str
    text: str
    start: int
    end: int
    headings: tuple[str, ...]
    source: str
    metadata: Mapping[str, MetadataValue]
    score: float
    scores: Mapping[Ranker, float]
    ranks: Mapping[Ranker, int]
    highlights: tuple[Span, ...] = ()
    title_highlights: tuple[Span, ...] = ()
    more: int = 0
    evidence: Mapping[str, float] | None = None


Reason = Literal["spelling", "pinyin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DidYouMean:
    """Another query, whose words documents that the caller may see have where those of his do not.
    "pinyin": it was typed in pinyin, or with other characters of the same sound."""

    query: str
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A query to offer in a search box. ``kind``: where it comes from: a document's title, a heading,
    its text, or earlier queries."""

    text: str
    kind: Literal["title", "heading", "text", "query"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestions:
    """The response to what was typed so far, the best first."""

    query: str
    suggestions: tuple[Suggestion, ...] = ()
    degraded: tuple[Degraded, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """The response to a search. ``total`` counts the chunks found: those that match by words, or as
    many as the retrievers returned together where that is more. ``did_you_mean``: a better query, to
    be offered; the hits are always those of the query as it was asked."""

    query: str
    mode: Mode
    total: int
    hits: tuple[Hit, ...]
    stages: tuple[Stage, ...] = ()
    degraded: tuple[Degraded, ...] = ()
    did_you_mean: DidYouMean | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A source that the answer's text points at with ``[number]``.

    ``quote`` is the passage's text; ``start`` and ``end`` place it in its document.
    """

    number: int
    document_id: str
    chunk_id: str
    title: str
    quote: str
    start: int
    end: int


Verdict = Literal["supported", "partly", "unsupported", "uncited"]
Status = Literal["answered", "partial", "refused", "extract"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A sentence of the answer and the numbers that it cites; ``verdict`` None: not checked."""

    text: str
    citations: tuple[int, ...] = ()
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextReport:
    """How the prompt was filled: tokens of the whole prompt (an upper bound), the limit they had to
    keep to, and the chunk ids that were used, dropped for room, or cut to fit."""

    tokens: int = 0
    limit: int = 0
    used: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    truncated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The whole response to a question.

    ``status`` "partial": the text was cut off (length, or the generator failed in the middle).
    ``reason`` says why it is not "answered". ``model`` is None for an extract.
    """

    id: str
    status: Status
    answer: str
    reason: str | None = None
    standalone_question: str | None = None
    sentences: tuple[Sentence, ...] = ()
    citations: tuple[Citation, ...] = ()
    sources: tuple[Hit, ...] = ()
    context: ContextReport = field(default_factory=ContextReport)
    model: str | None = None
    stages: tuple[Stage, ...] = ()
    degraded: tuple[Degraded, ...] = ()
