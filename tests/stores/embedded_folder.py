"""An embedded store's folder seen from outside: its files, its database, processes that work on it."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from server.stores.contract import Write, Written
from server.stores.embedded.store import EmbeddedStore
from tests.stores.builders import bm25_ids, unit, vector_ids

ROOT = Path(__file__).parents[2]


def put(store: EmbeddedStore, *writes: Write) -> None:
    for result in store.write("c", writes, refresh=True):
        assert isinstance(result, Written), result


def place(folder: Path, name: str = "c") -> Path:
    [found] = (folder / "collections").glob(f"{name}.*")
    return found


def text_folder(folder: Path) -> Path:
    [found] = place(folder).glob("generations/*/text-*")
    return found


def process(module: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.stores.{module}", str(folder), "c", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def check_sound(store: EmbeddedStore) -> None:
    """Both indexes and the documents agree, chunk by chunk."""
    documents = list(store.documents("c"))
    expected = sorted(
        f"{found.document.id}:{position}" for found in documents for position in range(found.chunks)
    )
    assert sorted(bm25_ids(store, "c", "red", k=10_000)) == expected
    assert sorted(vector_ids(store, "c", unit(1), k=10_000)) == expected
    counts = store.collection("c")
    assert (counts.documents, counts.chunks) == (len(documents), len(expected))


def query(folder: Path, sql: str, name: str = "c") -> tuple[int, ...]:
    with closing(sqlite3.connect(place(folder, name) / "collection.db")) as connection:
        row: tuple[int, ...] = connection.execute(sql).fetchone()
        return row


def execute(folder: Path, *statements: str) -> None:
    """Change the database as a program would that knows nothing of it: foreign keys are off."""
    with closing(sqlite3.connect(place(folder) / "collection.db")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
