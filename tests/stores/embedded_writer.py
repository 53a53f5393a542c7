"""A process that puts documents into an embedded store and prints each acknowledgement.

``python -m tests.stores.embedded_writer FOLDER COLLECTION NAME COUNT``: COUNT 0 goes on until killed.
Odd rounds put ``NAME-<round>``, even ones replace ``NAME-again``; every document has two chunks.
``--file-limit BYTES`` lets no file grow past a size, as a full disk or a quota would, until the store
refuses, and then once more without the limit.
"""

import resource
import sys
from pathlib import Path

from server.errors import StoreFull
from server.stores.contract import LegsRequest, Written
from server.stores.embedded.store import EmbeddedStore
from tests.stores.builders import unit, words, write


def put_forever(store: EmbeddedStore, collection: str, name: str, count: int) -> None:
    number = 0
    while not count or number < count:
        number += 1
        document = f"{name}-{number}" if number % 2 else f"{name}-again"
        mark = f"{name}n{number}"
        [result] = store.write(
            collection, [write(document, f"red {mark} first", f"red {mark} second")], refresh=True
        )
        assert isinstance(result, Written), result
        print(document, mark, result.revision, flush=True)  # noqa: T201
    store.close()


def put_until_full(folder: str, collection: str, limit: int) -> None:
    store = EmbeddedStore(Path(folder))
    store.search(collection, LegsRequest(text=words("red"), vector=unit(1)))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    for number in range(1_000):
        big = write(f"big-{number}", f"red n{number} " + "filler " * 30_000)
        [result] = store.write(collection, [big], refresh=True)
        if not isinstance(result, Written):
            assert isinstance(result, StoreFull), result
            break
        print(f"big-{number}", flush=True)  # noqa: T201
    print("full", flush=True)  # noqa: T201
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    [result] = store.write(collection, [write("after", "red after")], refresh=True)
    assert isinstance(result, Written), result
    print("after", flush=True)  # noqa: T201
    store.close()


if __name__ == "__main__":
    if sys.argv[3] == "--file-limit":
        put_until_full(sys.argv[1], sys.argv[2], int(sys.argv[4]))
    else:
        put_forever(EmbeddedStore(Path(sys.argv[1])), sys.argv[2], sys.argv[3], int(sys.argv[4]))
