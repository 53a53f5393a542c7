"""The contract of generations: what a rebuild, a roll back and a dictionary change ask of a store.

A generation is one physical index that one recipe made. One is live; others are being built or kept for
a roll back. Documents belong to no generation: each has a revision, and for every generation the store
knows which documents are *level* in it, that is, have their present revision's chunks there. The others
are *pending*. A live write makes its document level in the live generation and pending in all others.

How a generation becomes live, so that no acknowledged write is lost and no search fails:

1. ``pending`` and ``derive`` until few are left, ``settle``, and again;
2. ``fence``: writes to the live generation wait from here on (see ``Fenced``), searches don't;
3. ``pending`` and ``derive`` once more, until there is none;
4. ``promote``, atomic, which fails if the fence is gone. Whoever waited writes to the new generation.

A fence is for seconds. One that outlives its maker is lifted by whoever waited too long for it; the
maker's ``promote`` then fails and nothing has happened.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from server.documents import Chunk, Document, IndexedChunk, Vector, Vectors
from server.errors import TanyuanError
from server.recipes import Recipe
from server.sparse import SparseWeights

GenerationState = Literal["building", "live", "kept"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A generation as it stands.

    ``id``: digits that sort as they were made (``000002``), never used twice in a collection.
    ``edition`` counts the recipes that the generation has had in turn: a dictionary change stamps it
    anew in place. ``fence``: the token of the fence that stands now, empty where there is none.
    """

    id: str
    edition: int
    recipe: Recipe
    state: GenerationState
    created_at: str  # ISO 8601, UTC
    fence: str = ""

    @property
    def key(self) -> str:
        """What a writer derived for; the store takes chunks for the present one only.

        The recipe is part of it, since a collection that is deleted and made anew starts over.
        """
        return f"{self.id}.{self.edition}.{self.recipe.hash}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A document that is not level in a generation; ``document`` None: it was deleted, so that its
    chunks have to go."""

    document_id: str
    revision: int
    document: Document | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """What a recipe made of a document's ``revision``. ``document`` None, without chunks: of a delete."""

    document_id: str
    revision: int
    document: Document | None
    chunks: tuple[IndexedChunk, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChunk:
    """A chunk with its vector as a generation has it; the vector None where it has none.

    ``windows``: see ``Passage``. ``sparse``: as of an IndexedChunk, rounded; None where damaged.
    """

    chunk: Chunk
    vector: Vector | None
    windows: Vectors | None = None
    sparse: SparseWeights | None = None


class Generations(Protocol):
    """Thread-safe, and safe with other processes. Any method may raise CollectionNotFound,
    StoreUnavailable or StoreTimeout; those that name a generation raise GenerationNotFound."""

    def all(self, collection: str) -> list[Generation]:
        """By id. Exactly one is live."""

    def create(self, collection: str, *, recipe: Recipe) -> Generation:
        """An empty one in the state "building", stamped with ``recipe`` and tuned for filling."""

    def drop(self, collection: str, generation: str) -> None:
        """Remove it with all that it has; one that is gone already is no error. Raises InvalidInput
        for the live one."""

    def sweep(self, collection: str) -> None:
        """Remove what killed calls of ``create`` and ``drop`` left; while none of them runs."""

    def pending(self, collection: str, generation: str) -> Iterator[Pending]:
        """Documents that are not level, by id, with bounded memory; sees every acknowledged write
        made before the call, and every write that has begun to change what search sees.

        One that is written while the caller iterates may be missed or come twice: call again.
        """

    def pending_count(self, collection: str, generation: str) -> int:
        """How many ``pending`` would give now."""

    def derive(
        self,
        collection: str,
        generation: str,
        derivations: Sequence[Derivation],
        *,
        edition: int | None = None,
    ) -> list[bool | TanyuanError]:
        """Put what was made of documents, replacing all that the generation has of them, and mark
        them level; one result each, in order.

        False: the document has another revision by now, nothing was changed, and it is pending.
        ``edition`` above the present one: what is put survives late writes of the present edition.
        A live generation may be derived into as well: that is how chunks are mended and dictionary
        changes made. Raises InvalidInput for chunks that don't fit the recipe.
        """

    def chunks(
        self, collection: str, generation: str, document_ids: Sequence[str]
    ) -> dict[str, tuple[StoredChunk, ...]]:
        """What a generation has of documents, by position, with vectors; an id without any chunk is
        left out."""

    def containing(self, collection: str, terms: Sequence[str]) -> Iterator[str]:
        """Ids of documents, each once, of which the live generation has a chunk whose bigrams, or
        whose title_bigrams, hold every one of the terms. Bounded memory, however many there are."""

    def settle(self, collection: str, generation: str) -> None:
        """Make what was put searchable and as safe as a live generation is (refresh, replicas). May
        take minutes; called again it does what is left."""

    def fence(self, collection: str) -> str:
        """Let writes to the live generation wait; the fence's token. Raises Fenced if one stands."""

    def lift(self, collection: str, fence: str) -> bool:
        """Let writes go on; False if that fence is gone already."""

    def promote(self, collection: str, generation: str, *, fence: str) -> Generation:
        """Make a generation live in one step; the old one is kept. The fence is gone with it.

        Raises FenceLost, and then nothing has changed.
        """

    def restamp(self, collection: str, recipe: Recipe, *, fence: str, edition: int) -> Generation:
        """Stamp the live generation anew in one step, as ``edition``; the fence is gone with it.

        Raises FenceLost, and then nothing has changed; InvalidInput for an edition that is not above
        the present one.
        """
