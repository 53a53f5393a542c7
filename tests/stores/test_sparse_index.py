"""The embedded store's sparse index beyond the contract: much that was replaced, other processes, damage."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from server.stores.contract import LegsRequest
from server.stores.embedded.store import EmbeddedStore
from tests.stores.builders import sparse_of, write
from tests.stores.embedded_folder import place
from tests.stores.sparse_contract import SPARSE, hits, ids, product, sparse_write

COUNT = 1_200


def test_what_was_replaced_is_thrown_out_and_the_rest_scores_as_before(tmp_path: Path) -> None:
    with closing(EmbeddedStore(tmp_path)) as store:
        store.create_collection("c", recipe=SPARSE)
        for turn in range(3):
            texts = {f"d{n:04}": f"all n{n % 7} t{turn} u{n}" for n in range(COUNT)}
            store.write("c", [sparse_write(write(*each)) for each in texts.items()])
            found = dict(hits(store, "c", sparse_of("n3 u3 u700"), k=2_000))
            assert found == pytest.approx(
                {
                    f"{name}:0": score
                    for name, text in texts.items()
                    if (score := product(sparse_of("n3 u3 u700"), sparse_of(text)))
                },
                rel=1e-5,
            )
            assert len(ids(store, "c", f"t{turn}", k=2_000)) == COUNT
            assert ids(store, "c", f"t{turn - 1}") == []
            assert ids(store, "c", "all", k=3) == ["d0000:0", "d0001:0", "d0002:0"]  # all tie
        index = store._open["c"].searches._sparse[1]
        assert len(index._members.chunks) == COUNT
        assert sum(len(part.tokens) for part in index._parts) == 4 * COUNT


def test_what_others_write_is_found_and_what_is_damaged_left_out(tmp_path: Path) -> None:
    with closing(EmbeddedStore(tmp_path)) as ours, closing(EmbeddedStore(tmp_path)) as theirs:
        ours.create_collection("c", recipe=SPARSE)
        assert ids(ours, "c", "red") == []
        theirs.write("c", [sparse_write(write("a", "red")), sparse_write(write("b", "red blue"))])
        assert ids(ours, "c", "red") == ["a:0", "b:0"]
        theirs.delete("c", "a")
        assert ids(ours, "c", "red") == ["b:0"]
    with closing(sqlite3.connect(place(tmp_path) / "collection.db")) as connection:
        connection.execute("UPDATE sparse SET weights = x'00'")
        connection.commit()
    with closing(EmbeddedStore(tmp_path)) as store:
        store.write("c", [sparse_write(write("c", "red"))])
        assert ids(store, "c", "red") == ["c:0"]
        legs = store.search("c", LegsRequest(sparse=sparse_of("blue")))
        assert legs.sparse is not None
        assert legs.sparse.hits == ()
