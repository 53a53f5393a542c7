"""Recipe: what made a generation's terms and vectors."""

import hashlib
import json
from collections.abc import Set
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from server.errors import RecipeMismatch

MAPPING_VERSION = 3  # raise when es_mappings/ or the embedded schema changes

# Fields that older recipes lack. Empty they are left out, so that those keep their JSON and hash.
_LATER = frozenset({"windows", "sparse"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Stamped on a generation before its first write and compared at every use.

    ``embedder`` is the fingerprint of the embedding model: kind, name, hash of weights, query
    instruction; empty where there is none (then ``dimensions`` is 0). ``analyzer`` covers the
    tokenizer's version and the dictionary's hash, ``chunker`` its version and sizes, ``windows``
    those of the sentence windows whose vectors are kept with each chunk; empty where none are.
    ``sparse`` names what makes the chunks' sparse weights of the embedder's hidden states; empty where
    they have none.

    ``model`` and ``dictionary`` say where to find what was used: the embedder as TANYUAN_EMBEDDER names
    it, and the version of the collection's dictionary (0: none of its own). They make no difference.
    """

    embedder: str
    dimensions: int
    analyzer: str
    chunker: str
    mapping: int = MAPPING_VERSION
    windows: str = ""
    sparse: str = ""
    model: str = field(default="", compare=False)
    dictionary: int = field(default=0, compare=False)

    @property
    def hash(self) -> str:
        """Eight hex digits of everything that makes a difference."""
        stated = self.as_json()
        made = [stated[each.name] for each in fields(self) if each.compare and each.name in stated]
        return hashlib.sha256(json.dumps(made).encode()).hexdigest()[:8]

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value or name not in _LATER}

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
WORDS = frozenset({"analyzer"})
VECTORS = frozenset({"embedder", "dimensions"})
CHUNKS = frozenset({"chunker", "windows"})
SPARSE = VECTORS | {"sparse"}


def mismatch(
    collection: str, stamped: Recipe, own: Recipe, needed: Set[str]
) -> RecipeMismatch | None:
    """The error that names how this process's recipe differs from the generation's in ``needed``.

    A generation of an older mapping is served as it is; one of a newer mapping can't be.
    """
    if stamped.mapping > own.mapping:
        return RecipeMismatch(
            f"Collection {collection!r} was indexed with the mapping {stamped.mapping} by a newer "
            f"version of this program, which has {own.mapping}. Update the program."
        )
    parts = "; ".join(
        f"{key} {was!r}, here {now!r}"
        for key, (was, now) in stamped.differences(own).items()
        if key in needed
    )
    if not parts:
        return None
    named = f" (TANYUAN_EMBEDDER={stamped.model})" if stamped.model and needed & VECTORS else ""
    return RecipeMismatch(
        f"Collection {collection!r} was indexed by another recipe than this process has ({parts}). "
        f"Start with the settings that it was made with{named}, or make it anew with these, while "
        f"the others go on serving: scripts/rebuild --collection {collection}"
    )
