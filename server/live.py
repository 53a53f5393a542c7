"""Live collections: what each is served with now, by the recipe of its live generation.

Every search and every write opens its collection here, so that a promotion, a roll back or a dictionary
change counts in every process within ``Store.follow_seconds``, without a restart. The parts that a recipe
names are opened when first needed. A part that this process does not have, or that a setting pins to
something else, is an error that names both and the command that mends it; the others go on.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from server.analysis.contract import Analyzer
from server.analysis.dictionary import UserDictionary
from server.errors import (
    CollectionNotFound,
    EmbedderUnavailable,
    RecipeMismatch,
    TanyuanError,
    VersionNotFound,
)
from server.models.contract import Embedder, SparseEmbedder, gives_sparse
from server.models.embedders import Embedders
from server.recipes import CHUNKS, SPARSE, VECTORS, WORDS, Recipe, mismatch
from server.stores.contract import Collection, Store
from server.stores.generations import Generation
from server.vocabulary import Vocabulary, seed

_ANALYZERS = 16  # kept; each holds a dictionary of some 50 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A collection as it is served now.

    ``analyzer`` is the recipe's, or this process's own where that can't be had: then ``words`` says
    why terms made by it may meet the index's. ``vectors`` says why no query can be embedded,
    ``chunking`` why no document can be cut, and ``sparse``, where queries can be embedded, why the
    recipe's sparse weights can't be made; each is None where all is well.
    """

    collection: str
    generation: Generation
    analyzer: Analyzer
    embedder: Embedder | None
    words: TanyuanError | None = None
    vectors: TanyuanError | None = None
    chunking: TanyuanError | None = None
    sparse: TanyuanError | None = None

    @property
    def recipe(self) -> Recipe:
        return self.generation.recipe

    @property
    def sparse_embedder(self) -> SparseEmbedder | None:
        """What makes the sparse weights of the recipe; None where it has none, or they can't be made."""
        wanted = self.recipe.sparse and not self.sparse and not self.vectors
        return self.embedder if wanted and gives_sparse(self.embedder) else None


class LiveCollections:
    """Thread-safe.

    ``own``: the recipe that this process's settings make, with ``dictionary``, which collections of its
    making begin with. ``pinned``: the fields of it that a setting names outright (``embedder``,
    ``chunker``, ``windows``): a collection that differs in one is not served with it, unless it was
    promoted while this process served it. ``no_embedder``: why there is none.
    """

    def __init__(
        self,
        store: Store,
        *,
        own: Recipe,
        dictionary: UserDictionary | None = None,
        analyzer: Analyzer,
        make_analyzer: Callable[[UserDictionary], Analyzer],
        embedders: Embedders,
        pinned: Iterable[str] = (),
        no_embedder: str = "No embedder is configured, so words alone decide.",
    ) -> None:
        self.own = own
        self._dictionary = dictionary or UserDictionary()
        self._store = store
        self._vocabulary = Vocabulary(store.notes)
        self._analyzer = analyzer
        self._make_analyzer = make_analyzer
        self._embedders = embedders
        self._pinned = frozenset(pinned)
        self._no_embedder = no_embedder
        self._analyzers: dict[str, Analyzer] = {analyzer.fingerprint: analyzer}
        self._seen: dict[str, str] = {}  # collection → the key of its generation last seen
        self._followed: set[str] = set()  # collections promoted while this process served them
        self._opened: dict[str, tuple[float, Live]] = {}
        self._mutex = threading.Lock()

    def open(self, collection: str, *, fresh: bool = False) -> Live:
        """The collection with its parts; ``fresh``: as it is now, not as it was seconds ago.

        Raises CollectionNotFound, StoreUnavailable.
        """
        try:
            generation = self._store.live(collection, fresh=fresh)
        except CollectionNotFound:
            self._seen.pop(collection, None)  # another one of this name is not a promotion
            self._followed.discard(collection)
            self._opened.pop(collection, None)
            raise
        now = time.monotonic()
        opened_at, live = self._opened.get(collection, (0.0, None))
        if live is None or live.generation != generation or not self._is_whole(live, opened_at):
            self._note(collection, generation)
            followed = collection in self._followed
            live = self._make(collection, generation, followed=followed)
            self._opened[collection] = (now, live)
        return live

    def create(self, name: str, description: str = "") -> Collection:
        """Create a collection by this process's recipe, whose dictionary becomes the collection's own.

        Raises CollectionExists.
        """
        notes = seed(self._dictionary)
        recipe = replace(self.own, dictionary=1 if notes else 0)
        return self._store.create_collection(
            name, recipe=recipe, description=description, notes=notes
        )

    def of(self, collection: str, generation: Generation) -> Live:
        """What serves a generation that is not live yet, whatever settings pin."""
        return self._make(collection, generation, followed=True)

    def target(self, collection: str) -> Recipe:
        """What a rebuild makes now: this process's own recipe, with the collection's dictionary.

        Raises CollectionNotFound, StoreUnavailable.
        """
        stamped = self._store.live(collection, fresh=True).recipe
        analyzer = self._analyzer_of(collection, stamped) or self._analyzer
        return replace(self.own, analyzer=analyzer.fingerprint, dictionary=stamped.dictionary)

    def _is_whole(self, live: Live, opened_at: float) -> bool:
        """What could not be had is looked for again now and then."""
        whole = not (live.words or live.vectors or live.chunking or live.sparse)
        return whole or time.monotonic() - opened_at < 1.0

    def _note(self, collection: str, generation: Generation) -> None:
        seen = self._seen.get(collection)
        if seen is not None and seen != generation.key:
            self._followed.add(collection)
        self._seen[collection] = generation.key

    def _make(self, collection: str, generation: Generation, *, followed: bool) -> Live:
        recipe = generation.recipe
        analyzer = self._analyzer_of(collection, recipe)
        embedder, vectors = self._embedder_of(collection, recipe, followed=followed)
        return Live(
            collection=collection,
            generation=generation,
            analyzer=analyzer or self._analyzer,
            embedder=embedder,
            words=None if analyzer else mismatch(collection, recipe, self.own, WORDS),
            vectors=vectors,
            chunking=None
            if followed or not CHUNKS & self._pinned
            else mismatch(collection, recipe, self.own, CHUNKS & self._pinned),
            sparse=self._no_sparse(collection, recipe, embedder),
        )

    def _no_sparse(
        self, collection: str, recipe: Recipe, embedder: Embedder | None
    ) -> TanyuanError | None:
        """Why the sparse weights of a recipe can't be made by its embedder, which is there."""
        if not recipe.sparse or embedder is None:
            return None
        try:
            made = embedder.sparse_fingerprint if gives_sparse(embedder) else ""
        except EmbedderUnavailable as error:
            return error
        own = replace(self.own, embedder=recipe.embedder, dimensions=recipe.dimensions, sparse=made)
        return mismatch(collection, recipe, own, SPARSE)

    def _embedder_of(
        self, collection: str, recipe: Recipe, *, followed: bool
    ) -> tuple[Embedder | None, TanyuanError | None]:
        differs = mismatch(collection, recipe, self.own, VECTORS)
        if differs is None and recipe.embedder:
            return self._embedders.configured, None
        if not recipe.embedder:
            return None, None
        if self._embedders.configured is None and not followed:
            return None, EmbedderUnavailable(self._no_embedder)
        if "embedder" in self._pinned and not followed:
            return None, differs
        try:
            return self._embedders.of(recipe), None
        except RecipeMismatch as error:
            detail = differs.message if differs else f"Collection {collection!r} can't be served."
            return None, RecipeMismatch(f"{detail} ({error.message})")

    def _analyzer_of(self, collection: str, recipe: Recipe) -> Analyzer | None:
        """The analyzer with the recipe's fingerprint, or None where it can't be made here."""
        if mismatch(collection, recipe, self.own, frozenset()):
            return None  # a newer program's
        with self._mutex:
            known = self._analyzers.get(recipe.analyzer)
            if known is None:
                try:
                    dictionary = self._vocabulary.dictionary(collection, recipe.dictionary)
                except VersionNotFound:
                    return None
                made = self._make_analyzer(dictionary)
                if made.fingerprint != recipe.analyzer:
                    return None
                if len(self._analyzers) > _ANALYZERS:
                    del self._analyzers[next(iter(self._analyzers))]
                self._analyzers[recipe.analyzer] = known = made
            return known
