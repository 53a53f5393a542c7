"""What tests of archives, copies and backups share."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Document, Vector, passage_text
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


def chunks(store: Store, collection: str) -> dict[str, tuple[str, Vector | None]]:
    """By chunk id what a model read of it, and its vector."""
    live = store.live(collection, fresh=True)
    found = {}
    for document in contents(store, collection).values():
        stored = store.generations.chunks(collection, live.id, [document.id])
        for each in stored.get(document.id, ()):
            passage = passage_text(document.title, each.chunk.headings, each.chunk.text)
            found[each.chunk.id] = (passage, each.vector)
    return found


def assert_same_chunks(
    one: dict[str, tuple[str, Vector | None]], other: dict[str, tuple[str, Vector | None]]
) -> None:
    """Passages are the same; vectors too, but for a last bit that Elasticsearch rounds."""
    assert one.keys() == other.keys()
    for chunk_id, (passage, vector) in one.items():
        assert other[chunk_id][0] == passage
        theirs = other[chunk_id][1]
        if vector is None or theirs is None:
            assert vector is theirs
        else:
            np.testing.assert_allclose(theirs, vector, atol=1e-6)


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
