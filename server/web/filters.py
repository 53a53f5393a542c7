"""Filters as the API takes them, and as the stores do."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from server.documents import MAX_VALUE_CHARS, Scalar, check_metadata
from server.errors import InvalidInput
from server.stores import filters
from server.texts import check_text

MAX_FILTERS = 100
MAX_DEPTH = 8
MAX_VALUES = 1_000

_LARGEST = 2**53
_KINDS = frozenset({"term", "terms", "range", "exists", "not", "all", "any"})


def _check_key(key: str) -> str:
    """Metadata keys, ``document_id`` and ``source``; permissions are not for callers to filter on."""
    if key not in {"document_id", "source"}:
        try:
            check_metadata({key: None})
        except InvalidInput:
            raise ValueError(
                f"{key[:80]!r} can't be filtered on; use a metadata key, document_id or source."
            ) from None
    return key


def _check_value(value: Scalar) -> Scalar:
    if isinstance(value, str):
        try:
            check_text(value, field="value", max_chars=MAX_VALUE_CHARS)
        except InvalidInput as error:
            raise ValueError(error.message) from None
    elif abs(value) > _LARGEST and isinstance(value, int):
        raise ValueError("Integers past 2^53 are kept as strings.")
    return value


Key = Annotated[
    str,
    AfterValidator(_check_key),
    Field(description="A metadata key, `document_id` or `source`.", examples=["department"]),
]
Value = Annotated[str | int | float | bool, AfterValidator(_check_value)]
Bound = Annotated[str | int | float, AfterValidator(_check_value)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TermFilter(_Strict):
    """The document has this value under this key."""

    term: dict[Key, Value] = Field(
        min_length=1, max_length=1, examples=[{"department": "hr"}], description="Key → value."
    )

    def make(self) -> filters.Filter:
        ((key, value),) = self.term.items()
        return filters.Terms(key, (value,))


class TermsFilter(_Strict):
    """The document has one of these values under this key."""

    terms: dict[Key, Annotated[list[Value], Field(max_length=MAX_VALUES)]] = Field(
        min_length=1, max_length=1, examples=[{"department": ["hr", "it"]}]
    )

    def make(self) -> filters.Filter:
        ((key, values),) = self.terms.items()
        return filters.Terms(key, tuple(values))


class Bounds(_Strict):
    """At least one bound; all numbers or all strings (ISO dates sort as strings do)."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    gte: Bound | None = None
    gt: Bound | None = None
    lte: Bound | None = None
    lt: Bound | None = None


def _check_bounds(bounds: Bounds) -> Bounds:
    kinds = {isinstance(bound, str) for _, bound in bounds if bound is not None}
    if len(kinds) != 1:
        raise ValueError("A range has one bound or more, all numbers or all strings.")
    return bounds


class RangeFilter(_Strict):
    """The document has a value within the bounds under this key."""

    range: dict[Key, Annotated[Bounds, AfterValidator(_check_bounds)]] = Field(
        min_length=1, max_length=1, examples=[{"year": {"gte": 2023, "lt": 2025}}]
    )

    def make(self) -> filters.Filter:
        ((key, bounds),) = self.range.items()
        return filters.Range(key=key, gte=bounds.gte, gt=bounds.gt, lte=bounds.lte, lt=bounds.lt)


class ExistsFilter(_Strict):
    """The document has a value under this key."""

    exists: Key

    def make(self) -> filters.Filter:
        return filters.Exists(self.exists)


class NotFilter(_Strict):
    """The filter does not hold."""

    inner: "OneFilter" = Field(alias="not")

    def make(self) -> filters.Filter:
        return filters.Not(self.inner.make())


class AllFilter(_Strict):
    """Every filter holds."""

    inner: "list[OneFilter]" = Field(alias="all", max_length=MAX_FILTERS)

    def make(self) -> filters.Filter:
        return filters.All(tuple(one.make() for one in self.inner))


class AnyFilter(_Strict):
    """At least one filter holds."""

    inner: "list[OneFilter]" = Field(alias="any", max_length=MAX_FILTERS)

    def make(self) -> filters.Filter:
        return filters.Any(tuple(one.make() for one in self.inner))


def _kind(value: Any) -> str | None:
    """The tag of a filter: an object with exactly one key says by it which filter it is."""
    if isinstance(value, dict) and len(value) == 1:
        (kind,) = value
        return f"={kind}" if kind in _KINDS else None
    return None


OneFilter = Annotated[
    Annotated[TermFilter, Tag("=term")]
    | Annotated[TermsFilter, Tag("=terms")]
    | Annotated[RangeFilter, Tag("=range")]
    | Annotated[ExistsFilter, Tag("=exists")]
    | Annotated[NotFilter, Tag("=not")]
    | Annotated[AllFilter, Tag("=all")]
    | Annotated[AnyFilter, Tag("=any")],
    Discriminator(
        _kind,
        custom_error_type="filter_kind",
        custom_error_message=(
            "A filter is an object with exactly one of term, terms, range, exists, not, all, any."
        ),
    ),
]


def to_store(given: OneFilter | list[OneFilter] | None) -> filters.Filter | None:
    """The filter of the stores; a list means all of them. Raises InvalidInput past the bounds."""
    if given is None:
        return None
    several = given if isinstance(given, list) else [given]
    made = filters.All(tuple(one.make() for one in several))
    if _size(made) > MAX_FILTERS + MAX_VALUES or _depth(made) > MAX_DEPTH:
        raise InvalidInput(
            f"Filters are nested at most {MAX_DEPTH} deep and hold at most {MAX_VALUES} values.",
            field="filters",
        )
    return made.filters[0] if len(made.filters) == 1 else made


def _children(given: filters.Filter) -> tuple[filters.Filter, ...]:
    match given:
        case filters.Not(inner):
            return (inner,)
        case filters.All(several) | filters.Any(several):
            return several
        case _:
            return ()


def _size(given: filters.Filter) -> int:
    own = len(given.values) if isinstance(given, filters.Terms) else 1
    return own + sum(_size(child) for child in _children(given))


def _depth(given: filters.Filter) -> int:
    return 1 + max((_depth(child) for child in _children(given)), default=0)
