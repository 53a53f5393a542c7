"""ChromaEngine: makes the indexes of one store, and clears away what is left of others."""

import shutil
from collections.abc import Collection
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from server.errors import ConfigurationError
from server.stores.chroma.index import ChromaIndex
from server.stores.chroma.worker import Worker
from server.stores.embedded.states import named

EXACT = 2_000
TAIL = 1_000


class ChromaEngine:
    """``server.stores.embedded.vectors.VectorEngine``.

    ``root``: where it keeps its files, apart from the collections: all of it can be made anew.
    ``exact``: as many allowed vectors as are compared one by one, which is faster for few.
    ``tail``: as many changes as ChromaDB may lack; vectors that it lacks are compared one by one.
    ``patience``: seconds that a search waits for ChromaDB to have what it lacks beyond that, before it
    compares all of it itself.

    Raises ConfigurationError where ChromaDB is not installed.
    """

    kind = "chroma"
    follows_writes = False  # every process has a copy of its own

    def __init__(
        self, root: Path, *, exact: int = EXACT, tail: int = TAIL, patience: float = 0.0
    ) -> None:
        if find_spec("chromadb") is None:
            raise ConfigurationError(
                "ChromaDB is not installed: run python3 scripts/environment.py chroma, or "
                "pip install 'tanyuan[chroma]'."
            )
        self._root = root.absolute()
        self._exact = exact
        self._tail = tail
        self._patience = patience
        self._worker = Worker()

    def index(self, folder: Path, generation: int, dimensions: int) -> ChromaIndex:
        return ChromaIndex(
            self._worker,
            folder / "collection.db",
            self._root / folder.name / named(generation),
            generation,
            dimensions,
            exact=self._exact,
            tail=self._tail,
            patience=self._patience,
        )

    def keep(self, folder: Path, generations: Collection[int]) -> None:
        place = self._root / folder.name
        self._clear(place, {named(generation) for generation in generations})
        if not generations:
            shutil.rmtree(place, ignore_errors=True)

    def keep_collections(self, folders: Collection[Path]) -> None:
        self._clear(self._root, {folder.name for folder in folders})

    def describe(self) -> str:
        return f"ChromaDB {version('chromadb')}"

    def close(self) -> None:
        self._worker.close()

    @staticmethod
    def _clear(place: Path, kept: Collection[str]) -> None:
        """Processes that have such files open still lose nothing but their names."""
        for found in place.glob("*"):
            if found.name not in kept:
                shutil.rmtree(found, ignore_errors=True)
