"""Searches and writes without pause, and a record of what was acknowledged."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

from server.documents import Document
from server.errors import TanyuanError
from server.ingest.indexer import Indexer, Put
from server.retrieval.query import SearchQuery
from server.retrieval.searcher import Searcher

SEARCHERS = 8
WRITERS = 2
TOPICS = (
    "差旅报销",
    "年休假",
    "住宿标准",
    "服务器机房",
    "采购审批",
    "invoice rules",
    "采样泵",
    "保修期",
)


def document(name: str, version: int) -> Document:
    """A document whose text says which version of it this is."""
    random = Random(f"{name} {version}")
    sentences = [
        f"{random.choice(TOPICS)}第{random.randrange(1000)}条，由{random.choice(TOPICS)}负责人说明。"
        for _ in range(random.randrange(1, 6))
    ]
    return Document.create(
        id=name,
        title=f"{random.choice(TOPICS)}（{name}）",
        text=f"第{version}版。" + "".join(sentences),
        acl=["public"] if random.random() < 0.8 else ["hr"],
        metadata={"version": version},
    )


def fill(indexer: Indexer, collection: str, count: int) -> dict[str, Document]:
    """Documents d0 … by id, put into a new collection."""
    indexer.ensure_collection(collection)
    documents = [document(f"d{number}", 0) for number in range(count)]
    for at in range(0, count, 500):
        results = indexer.put(collection, documents[at : at + 500])
        assert all(isinstance(result, Put) for result in results), results
    return {each.id: each for each in documents}


@dataclass
class Load:
    """What the threads did. ``acknowledged``: by id, the document as the last acknowledged write left
    it, None: deleted. Each id belongs to one writer, so there is a last one. ``attempted``: what writes
    that failed since then meant to leave, which may have happened all the same."""

    acknowledged: dict[str, Document | None]
    failures: list[str] = field(default_factory=list)
    attempted: dict[str, list[Document | None]] = field(default_factory=dict)
    searches: int = 0
    writes: int = 0
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def count(self, *, searches: int = 0, writes: int = 0) -> None:
        with self._counting:
            self.searches += searches
            self.writes += writes

    @property
    def documents(self) -> dict[str, Document]:
        """What has to be there in the end."""
        return {name: each for name, each in self.acknowledged.items() if each is not None}


@contextmanager
def load(
    searcher: Searcher, indexer: Indexer, collection: str, documents: Mapping[str, Document]
) -> Iterator[Load]:
    """SEARCHERS threads search and WRITERS put, replace and delete until the block ends."""
    made = Load(dict(documents))
    ended = threading.Event()
    threads = [
        threading.Thread(target=_search, args=(searcher, collection, number, made, ended))
        for number in range(SEARCHERS)
    ] + [
        threading.Thread(target=_write, args=(indexer, collection, number, made, ended))
        for number in range(WRITERS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _search(
    searcher: Searcher, collection: str, number: int, made: Load, ended: threading.Event
) -> None:
    random = Random(number)
    while not ended.is_set():
        query = SearchQuery(query=random.choice(TOPICS), collection=collection, rerank=False)
        try:
            found = searcher.search(
                query, groups=random.choice([None, frozenset(), frozenset({"hr"})])
            )
        except Exception as error:  # noqa: BLE001 - every failure counts
            made.failures.append(f"search: {error!r}")
            continue
        if not found.hits or found.degraded:
            made.failures.append(f"search: {len(found.hits)} hits, {found.degraded}")
        made.count(searches=1)


def _write(
    indexer: Indexer, collection: str, number: int, made: Load, ended: threading.Event
) -> None:
    random = Random(number)
    own = [name for at, name in enumerate(sorted(made.acknowledged)) if at % WRITERS == number]
    version = 0
    while not ended.is_set():
        version += 1
        name = random.choice(own) if random.random() < 0.8 else f"new-{number}-{version}"
        deleting = random.random() < 0.2 and made.acknowledged.get(name) is not None
        new = None if deleting else document(name, version)
        try:
            _write_one(indexer, collection, name, new, refresh=random.random() < 0.1)
        except Exception as error:  # noqa: BLE001
            made.failures.append(f"write of {name}: {error!r}")
            made.attempted.setdefault(name, []).append(new)
            continue
        made.acknowledged[name] = new
        made.attempted.pop(name, None)
        if name not in own:
            own.append(name)
        made.count(writes=1)


def _write_one(
    indexer: Indexer, collection: str, name: str, new: Document | None, *, refresh: bool
) -> None:
    if new is None:
        indexer.delete(collection, name, refresh=refresh)
        return
    [result] = indexer.put(collection, [new], refresh=refresh)
    if isinstance(result, TanyuanError):
        raise result
