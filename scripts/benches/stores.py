"""The product on a store, and the reference server, as benches use them."""

import argparse
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from server.analysis.analyzer import JiebaAnalyzer
from server.analysis.dictionary import UserDictionary
from server.app import open_live, open_store
from server.documents import Document
from server.errors import TanyuanError
from server.ingest.indexer import Indexer
from server.live import LiveCollections
from server.models.choice import Choice, choose_embedder
from server.models.contract import Embedder
from server.retrieval.profile import Profile
from server.retrieval.searcher import Searcher
from server.settings import Settings
from server.stores.contract import Store

COLLECTION = "bench"
BATCH = 64  # documents put together
_PATIENCE = 300.0  # seconds: a busy machine must not end a long run


@dataclass(frozen=True, kw_only=True)
class Product:
    """The product's own parts on one store, with the one collection COLLECTION."""

    store: Store
    live: LiveCollections
    indexer: Indexer

    def searcher(self, profile: Profile | None = None) -> Searcher:
        return Searcher(
            store=self.store, live=self.live, reranker=None, profile=profile, seconds=_PATIENCE
        )

    def put(self, documents: Sequence[Document]) -> None:
        """Index them and show them to search. Raises what one failed with."""
        for start in range(0, len(documents), BATCH):
            for put in self.indexer.put(COLLECTION, documents[start : start + BATCH]):
                if isinstance(put, TanyuanError):
                    raise put
        self.store.refresh(COLLECTION)


@contextmanager
def product(
    folder: Path, *, elasticsearch: str = "", embedder: Embedder | str = "none"
) -> Iterator[Product]:
    """The product with its data in ``folder``, or in indices of an Elasticsearch that are removed after.

    ``embedder``: one, or what TANYUAN_EMBEDDER would say. No setting of the environment counts.
    """
    settings = Settings.load(
        {},
        data=str(folder),
        store="elasticsearch" if elasticsearch else "embedded",
        elasticsearch_url=elasticsearch or None,
        elasticsearch_timeout=_PATIENCE,
        index_prefix=f"bench-{uuid.uuid4().hex[:12]}",
        embedder=embedder if isinstance(embedder, str) else "none",
    )
    chosen = (
        choose_embedder(settings)
        if isinstance(embedder, str)
        else Choice(component="embedder", adapter=embedder, name=embedder.name, reason="")
    )
    store = open_store(settings)
    live = open_live(settings, store, UserDictionary(), lru_cache(4)(JiebaAnalyzer), chosen)
    indexer = Indexer(store, live)
    try:
        indexer.ensure_collection(COLLECTION)
        yield Product(store=store, live=live, indexer=indexer)
    finally:
        for collection in store.collections() if elasticsearch else ():
            store.delete_collection(collection.name)
        store.close()


def add_elasticsearch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--elasticsearch",
        metavar="URL",
        default=os.environ.get("ELASTICSEARCH_URL", "own"),
        help="a server to use; own (as the tests start it) or none (leave it out); %(default)s",
    )


@contextmanager
def elasticsearch(choice: str) -> Iterator[str]:
    """The URL of the server chosen; empty where there is none, and why is told."""
    if choice != "own":
        yield "" if choice == "none" else choice
        return
    from tests.services.elasticsearch import VERSIONS, ServerFailed, server
    from tests.services.system import MissingTool

    with ExitStack() as running:
        try:
            url = running.enter_context(server(VERSIONS[0]))
        except (ServerFailed, MissingTool, OSError) as error:
            left_out("Elasticsearch", error)
            url = ""
        yield url


def left_out(what: str, error: Exception) -> None:
    print(f"bench: {what} can't be had and is left out: {error}", file=sys.stderr)
