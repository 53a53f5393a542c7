"""The same over TCP, as with a Milvus server: the contract of vectors and filters, and servers that are
away, silent, emptied or shared. Milvus Lite's own engine answers; a real server is not at hand here."""

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.errors import ConfigurationError, StoreUnavailable
from server.settings import Settings
from server.stores.contract import Legs, LegsRequest
from server.stores.embedded.store import EmbeddedStore
from server.stores.filters import Terms
from server.stores.milvus.engine import MilvusEngine
from server.stores.milvus.lite_server import LiteServer
from tests.stores.builders import RECIPE, unit, vector_ids, words, write
from tests.stores.embedded_folder import check_sound, put
from tests.stores.test_embedded import TestFilters, TestVectors  # noqa: F401


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    server = LiteServer(folder / "data", f"127.0.0.1:{port}")
    opened = opened_at(folder / "store", port)
    yield opened
    opened.close()
    server.close()


def opened_at(folder: Path, port: int, token: str = "") -> EmbeddedStore:
    engine = MilvusEngine(folder, uri=f"http://127.0.0.1:{port}", token=token)
    return EmbeddedStore(folder, engine=engine)


def both(opened: EmbeddedStore, *, seconds: float = 10.0) -> Legs:
    """A search of both legs, within bounds."""
    started = time.monotonic()
    legs = opened.search("c", LegsRequest(text=words("red"), vector=unit(1)))
    assert time.monotonic() - started < seconds
    return legs


def names(opened: EmbeddedStore, port: int) -> list[str]:
    from pymilvus import MilvusClient

    with contextlib.closing(MilvusClient(uri=f"http://127.0.0.1:{port}", dedicated=True)) as client:
        return sorted(client.list_collections())


class TestAway:
    def test_words_are_searched_and_writes_taken_while_it_is_away(self, tmp_path: Path) -> None:
        port = free_port()
        opened = opened_at(tmp_path / "store", port)
        opened.create_collection("c", recipe=RECIPE)
        put(opened, write("a", "red"))
        legs = both(opened)
        assert legs.bm25 is not None
        assert legs.bm25.total == 1
        message = legs.errors["vector"].message
        assert f"127.0.0.1:{port}" in message
        assert "TANYUAN_MILVUS_URI" in message
        with pytest.raises(StoreUnavailable, match="can't be reached"):
            opened.check()
        server = LiteServer(tmp_path / "data", f"127.0.0.1:{port}")
        time.sleep(2.1)  # it is not asked again at once
        put(opened, write("b", "red"))
        check_sound(opened)
        assert f"127.0.0.1:{port}" in opened.check()
        server.close()
        put(opened, write("c", "red"))
        opened.delete("c", "a")
        legs = both(opened)
        assert legs.bm25 is not None
        assert isinstance(legs.errors["vector"], StoreUnavailable)
        server = LiteServer(tmp_path / "data", f"127.0.0.1:{port}")
        time.sleep(2.1)
        check_sound(opened)
        server.close()
        shutil.rmtree(tmp_path / "data")  # it comes back with nothing
        server = LiteServer(tmp_path / "data", f"127.0.0.1:{port}")
        with contextlib.suppress(StoreUnavailable, AssertionError):
            vector_ids(opened, "c", unit(1))
        time.sleep(2.1)
        check_sound(opened)
        opened.close()
        server.close()

    def test_one_that_accepts_and_says_nothing_holds_nobody(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            opened = opened_at(tmp_path / "store", listening.getsockname()[1])
            opened.create_collection("c", recipe=RECIPE)
            started = time.monotonic()
            put(opened, write("a", "red"))
            legs = both(opened)
            assert time.monotonic() - started < 8
            assert legs.bm25 is not None
            assert isinstance(legs.errors["vector"], StoreUnavailable)
            opened.close()


class TestShared:
    def test_stores_and_copies_of_a_folder_keep_apart(self, tmp_path: Path) -> None:
        port = free_port()
        server = LiteServer(tmp_path / "data", f"127.0.0.1:{port}")
        first = opened_at(tmp_path / "first", port)
        first.create_collection("c", recipe=RECIPE)
        put(first, write("a", "red"), write("b", "red", acl=["chiefs"]))
        first.close()
        shutil.copytree(tmp_path / "first", tmp_path / "copy")
        first, copy = opened_at(tmp_path / "first", port), opened_at(tmp_path / "copy", port)
        put(copy, write("only in the copy", "red"))
        copy.delete("c", "a")
        check_sound(copy)
        check_sound(first)
        assert vector_ids(first, "c", unit(1), filter=Terms("acl", ("public",))) == ["a:0"]
        assert len(names(first, port)) == 2
        copy.delete_collection("c")
        assert len(names(first, port)) == 1
        check_sound(first)
        first.close()
        copy.close()
        server.close()


class TestSettings:
    @pytest.mark.parametrize(
        "uri",
        [
            "localhost:19530",
            "http://",
            "http://user:secret@host",
            "file.db",
            "http://h:0",
            "http://h/x",
        ],
    )
    def test_other_forms_are_refused_without_telling_them(self, uri: str) -> None:
        with pytest.raises(ConfigurationError, match="TANYUAN_MILVUS_URI") as refused:
            Settings(milvus_uri=uri)
        assert "secret" not in str(refused.value)

    def test_the_token_is_in_no_text(self, tmp_path: Path) -> None:
        settings = Settings(milvus_uri="https://milvus.example:19530", milvus_token="top-secret")
        assert "top-secret" not in repr(settings)
        opened = opened_at(tmp_path / "store", free_port(), token="top-secret")
        opened.create_collection("c", recipe=RECIPE)
        assert "top-secret" not in str(both(opened).errors)
        opened.close()


def test_many_threads_ask_at_once(store: EmbeddedStore) -> None:
    store.create_collection("threads", recipe=RECIPE)
    store.write("threads", [write(f"a{i}", "red", vectors=[unit(1, i)]) for i in range(1, 60)])
    expected = [vector_ids(store, "threads", unit(1, i), k=5) for i in range(1, 9)]
    found: dict[int, list[str]] = {}

    def ask(number: int) -> None:
        found[number] = vector_ids(store, "threads", unit(1, number % 8 + 1), k=5)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: expected[number % 8] for number in range(32)}
