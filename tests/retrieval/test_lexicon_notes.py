"""Lexicons kept in the store: what a restart begins with, and what servers have of each other."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Document
from server.errors import StoreUnavailable
from server.retrieval.lexicon import Entry, Lexicon
from server.retrieval.lexicon_notes import KEY, LexiconNotes
from server.retrieval.lexicons import Lexicons
from server.retrieval.suggest import Suggester
from server.stores.contract import OwnedChunk, Store
from server.stores.notes import Note
from tests.fakes import live_collections, make_indexer

ANALYZER = JiebaAnalyzer()
CALLERS: list[frozenset[str] | None] = [None, frozenset(), frozenset({"hr"})]


class Watched:
    """A store that counts how often its chunks are read, and can be told to refuse it."""

    def __init__(self, store: Store) -> None:
        self.reads = 0
        self.refuses = False
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def owned_chunks(self, collection: str) -> Iterator[OwnedChunk]:
        if self.refuses:
            raise StoreUnavailable("The chunks can't be read.")
        self.reads += 1
        return self._store.owned_chunks(collection)


class Server:
    """What one process suggests from a store. Every lexicon that it makes is kept."""

    def __init__(self, store: Store) -> None:
        self.watched = Watched(store)
        watched = cast(Store, self.watched)
        live = live_collections(watched, ANALYZER)
        lexicons = Lexicons(watched, live, None, long_seconds=0.0)
        self.suggester = Suggester(store=watched, live=live, lexicons=lexicons)

    def texts(self, collection: str, typed: str, groups: frozenset[str] | None = None) -> list[str]:
        found = self.suggester.suggest(typed, collection, groups=groups, size=8)
        return [each.text for each in found.suggestions]


@pytest.fixture
def serve(store: Store) -> Iterator[Callable[[], Server]]:
    servers: list[Server] = []

    def serve() -> Server:
        servers.append(Server(store))
        return servers[-1]

    yield serve
    for server in servers:
        server.suggester.close()


@pytest.fixture
def handbook(store: Store) -> Iterator[str]:
    name = "kept-lexicon"
    make_indexer(store, ANALYZER).ensure_collection(name)
    put(store, name, "travel", "差旅费用报销标准", ["public"])
    put(store, name, "pay", "薪酬调整方案", ["hr"])
    yield name
    store.delete_collection(name)


def put(store: Store, collection: str, document_id: str, title: str, acl: list[str]) -> None:
    document = Document.create(id=document_id, title=title, text=f"{title}的说明。", acl=acl)
    make_indexer(store, ANALYZER).put(collection, [document], refresh=True)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_restart_begins_with_what_was_made_before(
    handbook: str, serve: Callable[[], Server]
) -> None:
    first = serve()
    first.suggester.prepare(handbook)
    second = serve()
    second.watched.refuses = True
    until(lambda: second.texts(handbook, "chailv") != [])
    for groups in CALLERS:
        for typed in ("差旅", "xinchou", "薪", "clf"):
            expected = first.texts(handbook, typed, groups)
            assert second.texts(handbook, typed, groups) == expected
    assert second.texts(handbook, "xinchou", frozenset()) == []
    assert second.texts(handbook, "xinchou", frozenset({"hr"})) != []


def test_what_changed_while_nobody_served_is_followed(
    handbook: str, store: Store, serve: Callable[[], Server]
) -> None:
    serve().suggester.prepare(handbook)
    put(store, handbook, "leave", "年休假管理办法", ["public"])
    note = store.notes.get(handbook, KEY)
    assert note is not None
    store.notes.put(handbook, KEY, {**note.value, "made": time.time() - 3600})
    server = serve()
    until(lambda: server.texts(handbook, "年休") != [])
    assert server.watched.reads == 1


def test_servers_take_over_what_another_has_just_made(
    handbook: str, store: Store, serve: Callable[[], Server]
) -> None:
    second = serve()
    second.suggester.prepare(handbook)
    put(store, handbook, "leave", "年休假管理办法", ["public"])
    first = serve()
    first.suggester.prepare(handbook)
    until(lambda: second.texts(handbook, "年休") != [])
    assert second.watched.reads == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 0},
        {"packed": "eJw="},
        {"packed": "???"},
        {"packed": ""},
        {"mark": None},
        {"made": "yesterday"},
    ],
)
def test_a_note_that_can_not_be_read_is_made_anew(
    handbook: str, store: Store, serve: Callable[[], Server], changes: dict[str, object]
) -> None:
    serve().suggester.prepare(handbook)
    note = store.notes.get(handbook, KEY)
    assert note is not None
    store.notes.put(handbook, KEY, {**note.value, **changes})
    server = serve()
    until(lambda: server.texts(handbook, "chailv") != [])
    assert server.watched.reads == 1
    mended = store.notes.get(handbook, KEY)
    assert mended is not None
    assert mended.value["format"] == note.value["format"]


def test_one_that_can_not_be_kept_is_used_nevertheless(
    handbook: str, store: Store, serve: Callable[[], Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()
    server.watched.notes = Full()  # type: ignore[attr-defined]
    lexicons = Lexicons(
        cast(Store, server.watched),
        live_collections(store, ANALYZER),
        None,
        long_seconds=0.0,
    )
    assert lexicons.make(handbook).documents.entries
    assert "are not kept: No room." in caplog.text


class Full:
    """Notes of a store whose disk is full."""

    def put(self, *_: object, **__: object) -> Note:
        raise StoreUnavailable("No room.")


# What is written is what is read --------------------------------------------------------------------

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
_GROUPS = st.frozensets(st.sampled_from(["public", "hr", "法务", "a b"]), max_size=3)


@st.composite
def lexicons(draw: st.DrawFn) -> Lexicon:
    classes = draw(st.lists(_GROUPS, min_size=1, max_size=4, unique=True))
    access = st.integers(0, len(classes) - 1)
    counts = st.dictionaries(access, st.integers(1, 1_000_000), min_size=1)
    entries = st.builds(
        Entry,
        text=_TEXTS,
        kind=st.sampled_from(["title", "heading", "phrase", "word", "guess", "common"]),
        counts=counts.map(lambda each: tuple(each.items())),
    )
    sizes = draw(st.lists(st.integers(0, 10**9), min_size=len(classes), max_size=len(classes)))
    return Lexicon(draw(st.lists(entries, max_size=8)), classes, sizes)


class OneNote:
    """Notes in memory, of one collection."""

    note: Note | None = None

    def get(self, collection: str, key: str) -> Note | None:
        return self.note

    def put(self, collection: str, key: str, value: Any, *, expected: int | None = None) -> Note:
        self.note = Note(value=value, version=self.note.version + 1 if self.note else 1)
        return self.note


@given(lexicon=lexicons(), groups=st.none() | _GROUPS)
def test_a_kept_lexicon_is_the_one_that_was_made(
    lexicon: Lexicon, groups: frozenset[str] | None
) -> None:
    notes = LexiconNotes(cast(Any, OneNote()))
    version = notes.put("c", lexicon, mark="m", made=1.5, took=2.5)
    assert notes.newer("c", version) is None
    kept = notes.newer("c", 0)
    assert kept is not None
    assert (kept.mark, kept.made, kept.took, kept.version) == ("m", 1.5, 2.5, version)
    assert list(kept.lexicon.entries) == list(lexicon.entries)
    mine, own = kept.lexicon.view(groups), lexicon.view(groups)
    assert mine.counts.tolist() == own.counts.tolist()
    assert mine.scores.tolist() == own.scores.tolist()


def test_a_count_of_an_access_class_that_is_not_there_is_refused() -> None:
    kept = OneNote()
    entry = Entry(text="薪酬", kind="word", counts=((0, 3),))
    LexiconNotes(cast(Any, kept)).put(
        "c",
        Lexicon([entry, replace(entry, counts=((1, 2),))], [frozenset({"hr"})], [3]),
        mark="m",
        made=1.0,
        took=1.0,
    )
    assert LexiconNotes(cast(Any, kept)).newer("c", 0) is None
