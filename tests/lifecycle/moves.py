"""What tests of archives, copies and backups share."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Document, passage_text
from server.ingest.indexer import Indexer, Put
from server.lifecycle.archive import Archive
from server.lifecycle.transfer import Report, Transfer
from server.stores.contract import Store
from server.vocabulary import Vocabulary

ANALYZER = JiebaAnalyzer()


def put(indexer: Indexer, collection: str, documents: Sequence[Document]) -> None:
    for at in range(0, len(documents), 200):
        results = indexer.put(collection, documents[at : at + 200])
        assert all(isinstance(result, Put) for result in results), results


def import_archive(
    store: Store,
    indexer: Indexer,
    path: Path,
    name: str,
    progress: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Check and import, as the script does."""
    with Archive(path) as archive:
        archive.check()
        transfer = Transfer(store, indexer, JiebaAnalyzer, progress=progress)
        return transfer.from_archive(archive, name)


def contents(store: Store, collection: str) -> dict[str, Document]:
    store.refresh(collection)
    return {stored.document.id: stored.document for stored in store.documents(collection)}


def passages_and_vectors(store: Store, collection: str) -> dict[str, tuple[str, bytes | None]]:
    """By chunk id what a model read of it, and its vector as bytes."""
    live = store.live(collection, fresh=True)
    found = {}
    for document in contents(store, collection).values():
        chunks = store.generations.chunks(collection, live.id, [document.id])
        for stored in chunks.get(document.id, ()):
            chunk = stored.chunk
            passage = passage_text(document.title, chunk.headings, chunk.text)
            vector = None if stored.vector is None else stored.vector.tobytes()
            found[chunk.id] = (passage, vector)
    return found


def change_dictionary(store: Store, indexer: Indexer, collection: str, lines: list[str]) -> None:
    """Words for an empty collection, in force at once."""
    vocabulary = Vocabulary(store.notes)
    made = vocabulary.change(collection, "dictionary", add=lines, author="li")
    assert made
    analyzer = JiebaAnalyzer(vocabulary.dictionary(collection))
    live = store.live(collection, fresh=True)
    recipe = replace(live.recipe, analyzer=analyzer.fingerprint, dictionary=made.version)
    fence = store.generations.fence(collection)
    store.generations.restamp(collection, recipe, fence=fence, edition=live.edition + 1)
