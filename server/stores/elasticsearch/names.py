"""The names of a collection's indices and of the aliases that say what each is for.

| name (after ``{prefix}.{collection}``) | is |
|---|---|
| ``.documents``, ``.notes`` | aliases of ``.documents.000001`` and ``.notes.000001`` |
| ``.newest.000002`` | on the documents' index: the number given to a generation last |
| ``.chunks.000002`` | the index of a generation |
| ``.chunks`` | the alias that searches read: on the live generation |
| ``.chunks.000002.building``, ``.kept`` | the alias of one that is not live, in its place |
| ``.chunks.000002.edition.1`` | its edition; derived chunks are put through it |
| ``.chunks.000002.accepts.1_HASH`` | on the live generation where no fence stands: writes put through it |
| ``.fence.TOKEN`` | on the live generation: the fence |
"""

import re
from dataclasses import dataclass

from server.documents import check_collection
from server.errors import ConfigurationError, InvalidInput
from server.recipes import Recipe
from server.stores.generations import GenerationState

FIRST = "000001"
_PREFIX = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_GENERATION = re.compile(r"\d{6,9}")


def generation_id(number: int) -> str:
    return f"{number:06}"


def is_generation_id(text: str) -> bool:
    """Whether a name that came from outside may become part of an index's name."""
    return bool(_GENERATION.fullmatch(text))


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one collection."""

    prefix: str
    collection: str

    @property
    def all(self) -> str:
        return f"{self.prefix}.{self.collection}.*"

    @property
    def documents(self) -> str:
        return f"{self.prefix}.{self.collection}.documents"

    @property
    def notes(self) -> str:
        return f"{self.prefix}.{self.collection}.notes"

    @property
    def chunks(self) -> str:
        return f"{self.prefix}.{self.collection}.chunks"

    def newest(self, generation: str) -> str:
        return f"{self.prefix}.{self.collection}.newest.{generation}"

    def index(self, generation: str) -> str:
        return f"{self.chunks}.{generation}"

    def state(self, generation: str, state: GenerationState) -> str:
        return self.chunks if state == "live" else f"{self.chunks}.{generation}.{state}"

    def edition(self, generation: str, edition: int) -> str:
        return f"{self.chunks}.{generation}.edition.{edition}"

    def accepts(self, generation: str, edition: int, recipe: Recipe) -> str:
        """The recipe is part of it: a collection that is deleted and made anew starts over."""
        return f"{self.chunks}.{generation}.accepts.{edition}_{recipe.hash}"

    def fence(self, token: str) -> str:
        return f"{self.prefix}.{self.collection}.fence.{token}"


def check_prefix(prefix: str) -> str:
    """Return the index prefix, or raise ConfigurationError."""
    if not _PREFIX.fullmatch(prefix):
        raise ConfigurationError(
            "TANYUAN_INDEX_PREFIX must have 1 to 64 of a-z, 0-9, '_' and '-' and start with a "
            f"letter or digit; got {prefix[:80]!r}."
        )
    return prefix


def is_collection_name(collection: str) -> bool:
    """Whether it may be one, so that no wildcard ever gets into an index's name."""
    try:
        check_collection(collection)
    except InvalidInput:
        return False
    return True
