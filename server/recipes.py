"""Recipe: what made a generation's terms and vectors."""

from collections.abc import Set
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from server.errors import RecipeMismatch

MAPPING_VERSION = 1  # raise when es_mappings/ or the embedded schema changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Stamped on a generation before its first write and compared at every use.

    ``embedder`` is the fingerprint of the embedding model: kind, name, hash of weights, query
    instruction; empty where there is none (then ``dimensions`` is 0). ``analyzer`` covers the
    tokenizer's version and the dictionary's hash, ``chunker`` its version and sizes.

    ``model`` and ``dictionary`` say where to find what was used: the embedder as TANYUAN_EMBEDDER names
    it, and the version of the collection's dictionary (0: none of its own). They make no difference.
    """

    embedder: str
    dimensions: int
    analyzer: str
    chunker: str
    mapping: int = MAPPING_VERSION
    model: str = field(default="", compare=False)
    dictionary: int = field(default=0, compare=False)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stamped: dict[str, Any]) -> "Recipe":
        return cls(**stamped)

    def differences(self, other: "Recipe") -> dict[str, tuple[Any, Any]]:
        """Field → (own value, other's value), for the fields that differ."""
        mine, theirs = asdict(self), asdict(other)
        return {
            each.name: (mine[each.name], theirs[each.name])
            for each in fields(self)
            if each.compare and mine[each.name] != theirs[each.name]
        }


# What each retriever needs to be the same on both sides.
WORDS = frozenset({"analyzer", "mapping"})
VECTORS = frozenset({"embedder", "dimensions", "mapping"})
EVERYTHING = WORDS | VECTORS | {"chunker"}


def mismatch(
    collection: str, stamped: Recipe, own: Recipe, needed: Set[str] = EVERYTHING
) -> RecipeMismatch | None:
    """The error that names how this process's recipe differs from the generation's in ``needed``."""
    parts = "; ".join(
        f"{key} {was!r}, here {now!r}"
        for key, (was, now) in stamped.differences(own).items()
        if key in needed
    )
    if not parts:
        return None
    return RecipeMismatch(
        f"Collection {collection!r} was indexed by another recipe than this process has ({parts}). "
        "Start with the settings it was made with, or index its documents into a new collection: "
        "scripts/index_documents PATH --collection NAME."
    )
