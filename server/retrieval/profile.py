"""Profile: what decides how a collection is searched, as a value that can be written down."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from server.errors import InvalidInput
from server.retrieval.fusion import Fusion
from server.retrieval.light import LightWeights

MAX_FIELD_WEIGHT = 1_000.0

# What has a weight of its own: name → text field, and the kinds of the query's terms that are looked for
# there. The bigram fields hold single characters too, which tell much less of a word but never miss it.
WEIGHTED: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "words": ("words", ("words",)),
        "bigrams": ("bigrams", ("bigrams",)),
        "characters": ("bigrams", ("characters",)),
        "title_words": ("title_words", ("words",)),
        "title_bigrams": ("title_bigrams", ("bigrams", "characters")),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The defaults of a search: weights of the text fields (WEIGHTED), the fusion, and the weights of
    the light ranker. Raises InvalidInput.
    """

    field_weights: Mapping[str, float] = field(
        default_factory=lambda: MappingProxyType(
            {
                "words": 1.0,
                "bigrams": 0.5,
                "characters": 1.0,
                "title_words": 0.1,
                "title_bigrams": 0.1,
            }
        )
    )
    fusion: Fusion = field(default_factory=Fusion)
    light: LightWeights = field(default_factory=LightWeights)

    def __post_init__(self) -> None:
        for name, weight in self.field_weights.items():
            if name not in WEIGHTED:
                raise InvalidInput(
                    f"field_weights.{name[:80]}: unknown; the fields are {', '.join(WEIGHTED)}.",
                    field=f"field_weights.{name[:80]}",
                )
            if not (math.isfinite(weight) and 0 <= weight <= MAX_FIELD_WEIGHT):
                raise InvalidInput(
                    f"field_weights.{name} is from 0 to {MAX_FIELD_WEIGHT:,.0f}.",
                    field=f"field_weights.{name}",
                )
        if not any(self.field_weights.values()):
            raise InvalidInput(
                "field_weights: at least one field has a weight above 0.", field="field_weights"
            )

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain JSON values, as ``from_dict`` takes them."""
        plain: dict[str, Any] = _plain(self)
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, base: "Profile | None" = None) -> "Profile":
        """``base``, or the defaults, with these values in the place of its own, at any depth.

        Raises InvalidInput, which names the value, for one that is unknown, of another type or out
        of range.
        """
        whole = _merged((base or cls()).as_dict(), values)
        try:
            text = json.dumps(whole, allow_nan=False)
            return _adapter().validate_json(text, strict=True, extra="forbid")
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part)[:80] for part in first["loc"]) or "profile"
            unknown = first["type"] == "unexpected_keyword_argument"
            message = "unknown; remove it" if unknown else str(first["msg"])
            raise InvalidInput(f"{place}: {message}.", field=place) from None
        except (TypeError, ValueError, RecursionError):
            raise InvalidInput(
                "The profile holds what is no JSON value.", field="profile"
            ) from None

    def changes(self, base: "Profile | None" = None) -> dict[str, Any]:
        """What of it differs from ``base``, or from the defaults, as ``from_dict`` takes it."""
        return _differing(self.as_dict(), (base or Profile()).as_dict())


@cache
def _adapter() -> TypeAdapter[Profile]:
    return TypeAdapter(Profile)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value


def _merged(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in values.items():
        inner = merged.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            value = _merged(inner, value)  # noqa: PLW2901
        merged[key] = value
    return merged


def _differing(values: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    differing = {}
    for key, value in values.items():
        old = base.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            if inner := _differing(value, old):
                differing[key] = inner
        elif value != old:
            differing[key] = value
    return differing
