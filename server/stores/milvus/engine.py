"""MilvusEngine: the embedded store's vectors in Milvus Lite or on a Milvus server."""

import contextlib
import json
import logging
import re
import threading
import uuid
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from server.errors import ConfigurationError, StoreUnavailable
from server.stores.embedded.locks import WriteLock
from server.stores.milvus import progress
from server.stores.milvus.connection import Connection
from server.stores.milvus.follower import Follower
from server.stores.milvus.index import MilvusIndex
from server.stores.milvus.lite import Lite

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_log = logging.getLogger(__name__)
_LOCK_SECONDS = 10.0


class MilvusEngine:
    """``vectors.VectorEngine``. ``store``: the store's folder; ``uri``: of a server, empty for Milvus
    Lite in ``<store>/milvus``; ``token``: of the server.

    Milvus collections are named ``tanyuan_<store>_<collection>_<generation>_<random>``. Of a server,
    which other stores may use too, ``<store>`` is an id in the store's folder.
    """

    kind = "milvus"
    follows_writes = True

    def __init__(self, store: Path, *, uri: str = "", token: str = "") -> None:
        try:
            self._library = f"pymilvus {version('pymilvus')}"
            if not uri:
                self._library = f"Milvus Lite {version('milvus-lite')}, {self._library}"
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                "TANYUAN_STORE=milvus needs pymilvus, and Milvus Lite unless TANYUAN_MILVUS_URI names "
                "a server: pip install 'tanyuan[milvus]'."
            ) from error
        self._store = store.absolute()
        self._folder = self._store / "milvus"
        self._lite = not uri
        self._connection = Connection(Lite(self._folder) if self._lite else uri, token=token)
        self._turn = threading.Lock()
        self._id = ""
        self._swept = False

    def index(self, folder: Path, generation: int, dimensions: int) -> MilvusIndex:
        follower = Follower(
            self._connection, folder, generation, dimensions, base=self._base, lite=self._lite
        )
        return MilvusIndex(self._connection, follower, generation, lite=self._lite)

    def keep(self, folder: Path, generations: Collection[int]) -> None:
        collection = folder.name.rpartition(".")[2]
        kept = {f"{generation:06d}" for generation in generations}
        pattern = re.compile(rf"_{collection}_(\d+)_[0-9a-f]+")
        with contextlib.suppress(StoreUnavailable, OSError):
            for name in self._names():
                found = pattern.fullmatch(name.removeprefix(self._base()))
                if found is not None and found[1] not in kept:
                    self._drop(name)

    def keep_collections(self, folders: Collection[Path]) -> None:
        """Milvus is not asked at the start, where it may be away, but with the first search or write."""

    def describe(self) -> str:
        if self._lite:
            self._connection.epoch()
            return self._library
        return f"{self._connection.place} ({self._connection.ask(_version)}), {self._library}"

    def close(self) -> None:
        self._connection.close()

    def _base(self) -> str:
        """What the names of this store's Milvus collections begin with. Removes strays at first."""
        with self._turn:
            if not self._id:
                self._id = "here" if self._lite else self._id_of_folder()
            base = f"tanyuan_{self._id}"
            sweep, self._swept = not self._swept, True
        if sweep:
            with contextlib.suppress(StoreUnavailable, OSError):
                # Named first, then looked up: whoever makes one writes its name into a file before.
                names = self._names()
                for stray in names - progress.names(self._store / "collections"):
                    self._drop(stray)
        return base

    def _names(self) -> set[str]:
        found = self._connection.ask(lambda client: client.list_collections(timeout=10.0))
        return {name for name in found if name.startswith(f"{self._base()}_")}

    def _drop(self, name: str) -> None:
        self._connection.ask(lambda client: client.drop_collection(name, timeout=10.0))
        _log.info("Dropped the Milvus collection %s", name)

    def _id_of_folder(self) -> str:
        """Of this folder and no copy of it: a copy would change the rows of the original.

        The number of a file and the time when that was made are no part of what a copy takes along.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with WriteLock(self._folder, timeout=_LOCK_SECONDS).held():
            anchor, file = self._folder / "anchor", self._folder / "id.json"
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                known = json.loads(file.read_bytes())
                if known["anchor"] == _fingerprint(anchor):
                    return str(known["id"])
            anchor.touch()
            new = uuid.uuid4().hex[:12]
            file.write_text(json.dumps({"id": new, "anchor": _fingerprint(anchor)}), "utf-8")
            return new


def _fingerprint(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_ino, status.st_ctime_ns]


def _version(client: "MilvusClient") -> str:
    return str(client.get_server_version(timeout=5.0))
