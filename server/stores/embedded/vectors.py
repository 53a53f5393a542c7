"""What finds the nearest vectors: the seam between the embedded store and FAISS, ChromaDB or Milvus.

The database keeps every vector and is the truth; an index is derived from it. Each change of the
database takes the next number of one counter (``state.sequence``), so an index that knows up to where it
is level asks for what came since: rows of ``vectors`` whose ``chunk`` is above that, and ``removals``
whose ``sequence`` is. Removals up to ``state.pruned`` are forgotten: an index that is behind that number
is made anew. So is one that is damaged, lost or of a restored collection. A chunk's number never comes
back, and doing a change twice must change nothing.
"""

import sqlite3
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from server.documents import Vector
from server.stores.filters import Filter


class VectorIndex(Protocol):
    """Of one generation, as one process sees it. Thread-safe.

    Other processes have theirs at the same time, and any may be killed at any point. Whoever calls turns
    errors of SQLite and of the file system into the store's own; a library's are raised as
    StoreUnavailable, StoreTimeout or StoreFull.
    """

    def search(
        self,
        vector: Vector,
        condition: Filter | None,
        k: int,
        connection: sqlite3.Connection,
        names: Callable[[list[int]], dict[int, str]],
    ) -> list[tuple[str, float]]:
        """(chunk id, cosine) of the ``k`` nearest chunks that meet the condition, in order.

        By falling cosine and then chunk id, over no older state than that of the database at the call:
        the index is brought up first. The connection is within a read transaction, which may be begun
        anew; no lock is held. ``names``: chunk numbers → ids, without those that are gone by now.
        """
        ...

    def follow(self, connection: sqlite3.Connection) -> None:
        """Bring the index up to what the connection sees.

        Called after a write (under the write lock) and when a generation is settled (under its own) where
        the engine ``follows_writes``; a search does it whenever something is missing.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections. A search under way ends well or with StoreUnavailable."""
        ...


class VectorEngine(Protocol):
    """Makes the indexes of one store; one a process. Thread-safe.

    ``kind``: the store's, as TANYUAN_STORE has it. ``follows_writes``: whether an index outlives the
    process, so that writes and not searches had better bring it up.
    """

    kind: str
    follows_writes: bool

    def index(self, folder: Path, generation: int, dimensions: int) -> VectorIndex:
        """Of a generation of the collection in ``folder``, whose path never comes back.

        Opens nothing that could fail. What it keeps as files lies in the generation's folder
        (``generation_folder``), which goes with the generation.
        """
        ...

    def keep(self, folder: Path, generations: Collection[int]) -> None:
        """Remove what is kept elsewhere of other generations of the collection. Never raises.

        Called after generations were dropped and, with none, after the collection was deleted.
        """
        ...

    def keep_collections(self, folders: Collection[Path]) -> None:
        """The same of other collections: of those whose deletion was killed. Called at the start."""
        ...

    def describe(self) -> str:
        """The library and its version. Raises StoreUnavailable where a service doesn't answer."""
        ...

    def close(self) -> None: ...
