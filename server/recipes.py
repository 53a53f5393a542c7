"""Recipe: what made a generation's terms and vectors."""

from dataclasses import asdict, dataclass
from typing import Any

MAPPING_VERSION = 1  # raise when es_mappings/ or the embedded schema changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Stamped on a generation before its first write and compared at every use.

    ``embedder`` is the fingerprint of the embedding model: kind, name, hash of weights, query
    instruction; empty where there is none (then ``dimensions`` is 0). ``analyzer`` covers the
    tokenizer's version and the dictionary's hash, ``chunker`` its version and sizes.
    """

    embedder: str
    dimensions: int
    analyzer: str
    chunker: str
    mapping: int = MAPPING_VERSION

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stamped: dict[str, Any]) -> "Recipe":
        return cls(**stamped)

    def differences(self, other: "Recipe") -> dict[str, tuple[Any, Any]]:
        """Field → (own value, other's value), for the fields that differ."""
        mine, theirs = asdict(self), asdict(other)
        return {key: (mine[key], theirs[key]) for key in mine if mine[key] != theirs[key]}
