"""The types of the API's requests and of those responses that are not a value of the inner rooms."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
)

from server.answering.answerer import MAX_HISTORY, MAX_MESSAGE_CHARS
from server.documents import (
    MAX_GROUPS,
    MAX_ID_BYTES,
    MAX_METADATA_KEYS,
    MAX_SOURCE_CHARS,
    MAX_TEXT_CHARS,
    MAX_TITLE_CHARS,
    PUBLIC,
    MetadataValue,
    Scalar,
    check_collection,
    check_document_id,
)
from server.errors import InvalidInput
from server.hits import Answer, Citation, Degraded, Hit, Mode
from server.retrieval.fusion import Fusion, Method
from server.retrieval.query import MAX_QUERY_CHARS
from server.stores.contract import MAX_DEPTH, Collection
from server.texts import check_text
from server.web.filters import MAX_FILTERS, OneFilter
from server.web.problems import Problem
from server.web.services import Component

MAX_SIZE = 100
MAX_SUGGESTIONS = 20
MAX_DESCRIPTION_CHARS = 2_000


def _checked(check: Callable[[str], str]) -> AfterValidator:
    """A check of the inner rooms as a pydantic validator, so that errors name the field's place."""

    def run(value: str) -> str:
        try:
            return check(value)
        except InvalidInput as error:
            raise ValueError(error.message) from None

    return AfterValidator(run)


def _text(value: str) -> str:
    return check_text(value, field="It", max_chars=MAX_TEXT_CHARS)


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("It is empty; type something to look for.")
    return value


CollectionName = Annotated[
    str,
    _checked(check_collection),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$",
            "description": "The collection's name.",
            "examples": ["default"],
        }
    ),
]
DocumentId = Annotated[
    str,
    _checked(check_document_id),
    WithJsonSchema(
        {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_ID_BYTES,
            "description": (
                "The document's id; in a path percent-encoded once as UTF-8, its slashes raw or as "
                f"%2F. At most {MAX_ID_BYTES} bytes, no control characters, no outer blanks, and no "
                "'.' or '..' between slashes."
            ),
            "examples": ["hr/差旅报销制度.md"],
        }
    ),
]
QueryText = Annotated[
    str,
    _checked(_text),
    AfterValidator(_not_blank),
    Field(
        min_length=1,
        max_length=MAX_QUERY_CHARS,
        description="What to look for, in words.",
        examples=["差旅报销标准"],
    ),
]
Text = Annotated[str, _checked(_text)]


class Strict(BaseModel):
    """Unknown fields, numbers as strings and booleans as numbers are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# Collections ---------------------------------------------------------------------------------------


class CollectionInput(Strict):
    description: Text = Field(
        default="", max_length=MAX_DESCRIPTION_CHARS, examples=["The company's handbook"]
    )


class CollectionList(BaseModel):
    collections: list[Collection]


class CollectionDeleted(BaseModel):
    name: str
    documents: int = Field(description="How many documents were removed.")


# Documents -----------------------------------------------------------------------------------------


class DocumentInput(Strict):
    text: str = Field(max_length=MAX_TEXT_CHARS, examples=["一线城市住宿标准每晚 500 元。"])
    title: str = Field(default="", max_length=MAX_TITLE_CHARS, examples=["差旅报销制度"])
    source: str = Field(
        default="",
        max_length=MAX_SOURCE_CHARS,
        description="Where it comes from: a path or an address, shown with hits.",
    )
    acl: list[str] = Field(
        default=[PUBLIC],
        max_length=MAX_GROUPS,
        description=f"Groups that may see it; {PUBLIC!r}: everyone; empty: only admins.",
        examples=[["hr", "finance"]],
    )
    metadata: dict[str, Scalar | list[Scalar] | None] = Field(
        default={},
        max_length=MAX_METADATA_KEYS,
        description="Own labels, which filters can use.",
        examples=[{"department": "hr", "year": 2024}],
    )


class DocumentLine(DocumentInput):
    """A line of a bulk request: a document with its id."""

    id: DocumentId


class WriteOptions(Strict):
    refresh: bool = Field(
        default=False, description="Answer only when search sees the change; slower."
    )
    if_revision: int | None = Field(
        default=None,
        ge=0,
        le=2**53,
        description="The revision that must be there now (0: none); otherwise 409.",
    )


class RefreshOption(Strict):
    refresh: bool = Field(
        default=False, description="Answer only when search sees the changes; slower."
    )


class DocumentPut(BaseModel):
    id: str
    revision: int
    chunks: int
    status: Literal["created", "updated", "unchanged"]


class DocumentDeleted(BaseModel):
    id: str
    revision: int = Field(description="The revision of the delete itself.")
    chunks: int = Field(description="How many chunks were removed.")


class DocumentView(BaseModel):
    id: str
    title: str
    text: str
    source: str
    acl: list[str]
    metadata: Mapping[str, MetadataValue]
    revision: int
    chunks: int
    updated_at: str = Field(description="ISO 8601, UTC.")


class LineFailure(BaseModel):
    code: str
    message: str


class FailedLine(BaseModel):
    id: str | None = Field(description="The document's id, where it could be told.")
    line: int = Field(description="The line's number, from 1.")
    error: LineFailure


class BulkResult(BaseModel):
    indexed: int = Field(description="Documents created or updated.")
    unchanged: int = Field(description="Documents that were there already, the same.")
    failed: list[FailedLine]


# Search --------------------------------------------------------------------------------------------


class FusionOptions(Strict):
    """How the retrievers' lists become one."""

    method: Method
    bm25: float = Field(default=1.0, ge=0, le=1e6, description="Weight of the BM25 list.")
    vector: float = Field(default=1.0, ge=0, le=1e6, description="Weight of the vector list.")
    sparse: float = Field(
        default=1.0,
        ge=0,
        le=1e6,
        description="Weight of the list of sparse weights, which collections of BGE-M3 have.",
    )
    rank_constant: int = Field(default=60, ge=1, le=MAX_DEPTH, description="RRF's k.")
    window: int = Field(
        default=200, ge=1, le=MAX_DEPTH, description="How deep each list enters the fusion."
    )

    def make(self) -> Fusion:
        return Fusion(**dict(self))


def _filters_kind(value: Any) -> str:
    if value is None:
        return "=none"
    return "=list" if isinstance(value, list) else "=one"


def _fusion_kind(value: Any) -> str:
    if value is None:
        return "=none"
    return "=options" if isinstance(value, dict | FusionOptions) else "=method"


_Mode = Annotated[Mode, Field(description="Which retrievers to ask.")]
_Size = Annotated[int, Field(ge=1, le=MAX_SIZE, description="Hits wanted.")]
_From = Annotated[
    int,
    Field(alias="from", ge=0, description=f"Hits to skip; from + size is at most {MAX_DEPTH:,}."),
]
_Group = Annotated[bool, Field(description="One hit a document, its best chunk.")]
_Rerank = Annotated[bool, Field(description="Whether the reranker orders the best hits.")]
_Explain = Annotated[
    bool, Field(description="Each hit says what placed it, where the light ranker did.")
]


class SearchParameters(Strict):
    """A search as a link; POST takes filters too."""

    q: QueryText
    collection: CollectionName = "default"
    mode: _Mode = "hybrid"
    size: _Size = 10
    offset: _From = 0
    group: _Group = False
    rerank: _Rerank = True
    explain: _Explain = False
    fusion: Method | None = Field(
        default=None, description="How the lists become one; unset: the collection's profile."
    )


_Filters = Annotated[
    Annotated[list[OneFilter], Field(max_length=MAX_FILTERS), Tag("=list")]
    | Annotated[OneFilter, Tag("=one")]
    | Annotated[None, Tag("=none")],
    Discriminator(_filters_kind),
    Field(
        description="Only documents that match; a list: all of them.",
        examples=[{"term": {"department": "hr"}}],
    ),
]
_Fusion = Annotated[
    Annotated[FusionOptions, Tag("=options")]
    | Annotated[Method, Tag("=method")]
    | Annotated[None, Tag("=none")],
    Discriminator(_fusion_kind),
    Field(description="A method's name, or with its weights; unset: the collection's profile."),
]


class SearchInput(Strict):
    query: QueryText
    collection: CollectionName = "default"
    mode: _Mode = "hybrid"
    size: _Size = 10
    offset: _From = 0
    filters: _Filters = None
    fusion: _Fusion = None
    rerank: _Rerank = True
    group: _Group = False
    explain: _Explain = False


class SuggestParameters(Strict):
    """What is typed so far."""

    q: QueryText
    collection: CollectionName = "default"
    size: int = Field(default=8, ge=1, le=MAX_SUGGESTIONS, description="Suggestions wanted.")


# Answers -------------------------------------------------------------------------------------------


class Turn(Strict):
    """An earlier message of the conversation."""

    role: Literal["user", "assistant"]
    content: Text = Field(max_length=MAX_MESSAGE_CHARS)


class QuestionInput(Strict):
    question: QueryText
    collection: CollectionName = "default"
    history: list[Turn] = Field(
        default=[], max_length=MAX_HISTORY, description="Earlier messages, oldest first."
    )
    filters: _Filters = None
    mode: _Mode = "hybrid"
    stream: bool = Field(
        default=False, description="Server-sent events; so does `Accept: text/event-stream`."
    )


class SourcesEvent(BaseModel):
    """The passages found, in the order whose numbers the markers use."""

    sources: tuple[Hit, ...]
    degraded: tuple[Degraded, ...]


class TokenEvent(BaseModel):
    """The next piece of the answer's text."""

    text: str


class CitationsEvent(BaseModel):
    """The sources that the answer's markers point at."""

    citations: tuple[Citation, ...]


class ErrorEvent(Problem):
    """Why the answer broke off; `answer` holds what came until then."""

    answer: Answer | None = None


# The data of each server-sent event, by its name, in the order in which they come.
EVENTS: Mapping[str, Any] = MappingProxyType(
    {
        "sources": SourcesEvent,
        "token": TokenEvent,
        "citations": CitationsEvent,
        "done": Answer,
        "error": ErrorEvent,
    }
)


# Health --------------------------------------------------------------------------------------------


class Alive(BaseModel):
    status: Literal["ok"]


class ReadinessReport(BaseModel):
    """`ready` is the store's; a missing embedder, reranker or generator degrades, no more."""

    ready: bool
    version: str
    components: Mapping[str, Component]
