"""A process that puts documents into a store with ChromaDB and searches it, until it is killed.

``python -m tests.stores.chroma_searcher FOLDER COLLECTION NAME``: each line names a document that was
put and found.
"""

import sys
from pathlib import Path

from server.stores.contract import Written
from server.stores.embedded.store import EmbeddedStore
from tests.stores.builders import unit, vector_ids, write
from tests.stores.chroma_folder import eager


def search_forever(folder: str, collection: str, name: str) -> None:
    store = EmbeddedStore(Path(folder), engine=eager(Path(folder)))
    number = 0
    while True:
        number += 1
        document = f"{name}-{number}" if number % 3 else f"{name}-again"
        [result] = store.write(collection, [write(document, "red", vectors=[unit(1, number)])])
        assert isinstance(result, Written), result
        assert f"{document}:0" in vector_ids(store, collection, unit(1), k=10_000)
        print(document, flush=True)  # noqa: T201


if __name__ == "__main__":
    search_forever(*sys.argv[1:4])
