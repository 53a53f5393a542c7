"""A change of the dictionary in place: what it derives, what is found before and after, cut-off ones."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.analysis.dictionary import UserDictionary
from server.documents import Document
from server.errors import (
    CollectionNotFound,
    InvalidInput,
    RebuildFailed,
    RebuildRunning,
    RecipeMismatch,
    Stopped,
    VersionNotFound,
)
from server.ingest.indexer import Indexer, Put, deriver_of
from server.lifecycle.affected import MOST_SEARCHES, Affected
from server.lifecycle.dictionary import DictionaryChanges
from server.lifecycle.lock import ChangeLock
from server.lifecycle.preview import preview
from server.lifecycle.progress import Rebuilds
from server.lifecycle.rebuild import Rebuilder
from server.live import LiveCollections
from server.retrieval.query import SearchQuery
from server.retrieval.query_log import LoggedQuery
from server.retrieval.searcher import Searcher
from server.stores.contract import LegsRequest, Store, TextClause
from server.stores.generations import Derivation, Generations
from server.vocabulary import Vocabulary
from tests.fakes import FakeEmbedder, live_collections
from tests.lifecycle.load import load

C = "handbook"
ANALYZER = JiebaAnalyzer()
WORD = "云梯平台"  # jieba: 云梯, 平台
TOUCHED = 7


def served(store: Store, embedder: FakeEmbedder | None = None) -> LiveCollections:
    return live_collections(store, ANALYZER, embedder)


def changes(store: Store, live: LiveCollections | None = None) -> DictionaryChanges:
    return DictionaryChanges(
        store, live or served(store), Vocabulary(store.notes), JiebaAnalyzer, UserDictionary()
    )


def document(number: int, text: str = "") -> Document:
    topic = f"第{number}条说明差旅报销的流程与时限。"
    return Document.create(id=f"d{number}", title=f"制度{number}", text=text or topic)


def touched(number: int) -> Document:
    return document(number, f"第{number}条：部署{WORD}之前先做评估，{WORD}由运维负责。")


def fill(store: Store, count: int = 60, live: LiveCollections | None = None) -> dict[str, Document]:
    """Documents of which the first TOUCHED hold WORD."""
    indexer = Indexer(store, live or served(store))
    indexer.ensure_collection(C)
    made = [touched(n) if n < TOUCHED else document(n) for n in range(count)]
    for at in range(0, count, 500):
        results = indexer.put(C, made[at : at + 500])
        assert all(isinstance(result, Put) for result in results), results
    store.refresh(C)
    return {each.id: each for each in made}


def add(store: Store, *lines: str, remove: tuple[str, ...] = ()) -> None:
    made = Vocabulary(store.notes).change(C, "dictionary", add=lines, remove=remove, author="lin")
    assert made is not None


def with_term(store: Store, term: str, field: str = "words") -> set[str]:
    """Ids of documents with a term in a field."""
    store.refresh(C)
    clause = TextClause(field=field, terms=(term,))
    leg = store.search(C, LegsRequest(text=(clause,), k=10_000)).bm25
    assert leg is not None
    return {chunk_id.rpartition(":")[0] for chunk_id, _ in leg.hits}


TOUCHED_IDS = {f"d{n}" for n in range(TOUCHED)}


def test_only_what_changes_is_derived_and_found_right_after(store: Store) -> None:
    documents = fill(store)
    before = store.live(C, fresh=True)
    add(store, WORD)
    assert with_term(store, WORD) == set()
    assert store.live(C, fresh=True).recipe.dictionary == 0  # a draft

    live = served(store)
    searcher = Searcher(store=store, live=live, reranker=None)
    record = changes(store, live).apply(C, by="anna").run()
    assert (record.kind, record.state, record.by) == ("dictionary", "promoted", "anna")
    assert record.done == TOUCHED
    assert with_term(store, WORD) == TOUCHED_IDS
    stamped = store.live(C, fresh=True)
    own = JiebaAnalyzer(UserDictionary.parse([WORD]))
    assert stamped.recipe == replace(before.recipe, analyzer=own.fingerprint)
    assert (stamped.recipe.dictionary, stamped.id) == (1, before.id)
    assert stamped.edition > before.edition
    assert store.notes.get(C, f"applying:{stamped.id}") is None

    found = searcher.search(SearchQuery(query=WORD, collection=C, mode="bm25"), groups=None)
    assert {hit.document_id for hit in found.hits} == TOUCHED_IDS
    hit = found.hits[0]
    marked = {hit.text[span.start : span.end] for span in hit.highlights}
    assert marked == {WORD}
    Indexer(store, live).put(C, [touched(99)], refresh=True)
    assert with_term(store, WORD) == TOUCHED_IDS | {"d99"}
    assert store.collection(C).documents == len(documents) + 1


def test_a_preview_shows_documents_and_queries_before_and_after(store: Store) -> None:
    fill(store)
    before = store.live(C, fresh=True)
    asked = [
        LoggedQuery(query=query, count=3, last_seen="2026-11-24T10:00:00.000+00:00", total=1)
        for query in (f"{WORD}怎么部署", "差旅报销")
    ]
    shown = changes(store).preview(C, [WORD], asked)
    assert [change.word for change in shown.words] == [WORD]
    assert (shown.documents, shown.looked_at) == (TOUCHED, TOUCHED)
    assert shown.complete
    assert not shown.everywhere
    assert {each.document_id for each in shown.examples} == TOUCHED_IDS
    example = shown.examples[0]
    assert WORD in example.text
    assert (WORD in example.before, WORD in example.after) == (False, True)
    assert {"云梯", "平台"} <= set(example.before)
    assert shown.queries == 1
    assert shown.query_examples[0].query == f"{WORD}怎么部署"
    assert WORD in shown.query_examples[0].after
    assert store.live(C, fresh=True) == before
    assert with_term(store, WORD) == set()
    assert changes(store).preview(C, []).documents == 0
    with pytest.raises(InvalidInput, match="line 1"):
        changes(store).preview(C, ["云梯 平台"])


def test_a_preview_that_takes_too_long_says_so(store: Store) -> None:
    fill(store)
    plain, own = ANALYZER, JiebaAnalyzer(UserDictionary.parse([WORD]))
    affected = Affected(store, C, [plain], own)
    shown = preview(store, C, store.live(C), affected, [], seconds=-1)
    assert (shown.documents, shown.complete) == (0, False)


def test_rolling_back_is_another_change(store: Store) -> None:
    fill(store)
    plain = with_term(store, "云梯")
    add(store, WORD)
    changes(store).apply(C, by="test").run()
    vocabulary = Vocabulary(store.notes)
    vocabulary.roll_back(C, "dictionary", 0, author="lin")
    record = changes(store).apply(C, by="test").run()
    assert record.done == TOUCHED
    assert with_term(store, WORD) == set()
    assert with_term(store, "云梯") == plain == TOUCHED_IDS
    assert store.live(C, fresh=True).recipe.dictionary == 2
    assert store.live(C, fresh=True).recipe.analyzer == ANALYZER.fingerprint
    record = changes(store).apply(C, by="test", version=1).run()
    assert record.done == TOUCHED
    assert with_term(store, WORD) == TOUCHED_IDS


def test_vectors_are_taken_over(store: Store) -> None:
    embedder = FakeEmbedder(version="dictionary")
    live = served(store, embedder)
    fill(store, live=live)
    old = store.generations.chunks(C, store.live(C, fresh=True).id, sorted(TOUCHED_IDS))
    embedder.calls.clear()
    add(store, WORD)
    record = changes(store, live).apply(C, by="test").run()
    assert embedder.texts == []
    assert (record.done, record.embedded, record.reused) == (TOUCHED, 0, TOUCHED)
    new = store.generations.chunks(C, store.live(C, fresh=True).id, sorted(TOUCHED_IDS))
    for name, chunks in new.items():
        for one, other in zip(chunks, old[name], strict=True):
            assert one.chunk == other.chunk
            assert one.vector is not None
            assert other.vector is not None
            assert one.vector == pytest.approx(other.vector, abs=1e-6)


@pytest.mark.parametrize(
    ("line", "text", "field"),
    [
        ("5G核心网", "升级５Ｇ核心網之前。", "words"),
        ("Kubernetes", "升级Kubernetes之前。", "words"),
        ("T恤", "买T恤。", "bigrams"),
        ("梯间", "楼梯间。", "words"),
    ],
)
def test_words_of_every_kind(store: Store, line: str, text: str, field: str) -> None:
    indexer = Indexer(store, served(store))
    indexer.ensure_collection(C)
    indexer.put(
        C, [document(0, text), document(1), document(2, "核心网络，升级Kubernetess之前，买恤。")]
    )
    term = line.lower()
    add(store, f"{line} 500")
    record = changes(store).apply(C, by="test").run()
    assert record.done == 1
    assert with_term(store, term, field) == {"d0"}
    add(store, remove=(line,))
    assert changes(store).apply(C, by="test").run().done == 1
    assert with_term(store, term, field) == set()


def test_titles_and_headings_count(store: Store) -> None:
    indexer = Indexer(store, served(store))
    indexer.ensure_collection(C)
    indexer.put(C, [Document.create(id="t", title=f"{WORD}手册", text="内容。"), document(1)])
    add(store, WORD)
    assert changes(store).apply(C, by="test").run().done == 1
    assert with_term(store, WORD, "title_words") == {"t"}


@pytest.mark.parametrize("wide", ["a frequency that weighs on everything", "many words"])
def test_a_change_that_may_touch_everything_makes_a_new_generation(store: Store, wide: str) -> None:
    embedder = FakeEmbedder(version="wide")
    live = served(store, embedder)
    documents = fill(store, live=live)
    embedder.calls.clear()
    before = store.live(C, fresh=True)
    many = [f"甲乙丙{chr(0x4E00 + n)}丁" for n in range(2 * MOST_SEARCHES)]
    lines = [f"{WORD} 2000000000"] if wide.startswith("a frequency") else [WORD, *many]
    add(store, *lines)
    record = changes(store, live).apply(C, by="test").run()
    assert (record.state, record.done, record.embedded) == ("promoted", len(documents), 0)
    assert (record.generation, record.replaced) != (before.id, before.id)
    assert embedder.calls == []
    assert with_term(store, WORD) == TOUCHED_IDS
    own = JiebaAnalyzer(UserDictionary.parse(lines))
    recipe = store.live(C, fresh=True).recipe
    assert (recipe.analyzer, recipe.dictionary) == (own.fingerprint, 1)
    assert [each.state for each in store.generations.all(C)] == ["kept", "live"]
    shown = changes(store, live).preview(C, [])
    assert shown.documents == TOUCHED
    assert shown.everywhere == wide.startswith("a frequency")
    add(store, remove=tuple(lines))
    changes(store, live).apply(C, by="test").run()
    assert with_term(store, WORD) == set()
    assert [each.state for each in store.generations.all(C)] == ["kept", "live"]


def test_one_that_died_making_a_new_generation_is_given_up(store: Store) -> None:
    fill(store)
    before = store.live(C, fresh=True)
    add(store, f"{WORD} 2000000000")
    with pytest.raises(Died):
        changes(Dying(store, "promote"), served(store)).apply(C, by="test").run()
    assert store.live(C, fresh=True).id == before.id
    assert [each.state for each in store.generations.all(C)] == ["live", "building"]
    assert changes(store).abandon(C, by="test") is None
    assert [each.state for each in store.generations.all(C)] == ["live"]
    assert with_term(store, WORD) == set()
    changes(store).apply(C, by="test").run()
    assert with_term(store, WORD) == TOUCHED_IDS


def test_nothing_to_do_is_done_at_once(store: Store) -> None:
    fill(store, 10)
    with pytest.raises(InvalidInput, match="no dictionary yet"):
        changes(store).apply(C, by="test")
    add(store, WORD)
    changes(store).apply(C, by="test").run()
    before = store.live(C, fresh=True)
    record = changes(store).apply(C, by="test").run()
    assert (record.state, record.done) == ("promoted", 0)
    assert store.live(C, fresh=True) == before
    add(store, "谁也没写过的词")
    assert changes(store).apply(C, by="test").run().done == 0
    assert store.live(C, fresh=True).recipe.dictionary == 2


def test_what_cannot_be_applied_is_named(store: Store) -> None:
    with pytest.raises(CollectionNotFound):
        changes(store).apply("none", by="test", version=1)
    fill(store, 3)
    with pytest.raises(VersionNotFound):
        changes(store).apply(C, by="test", version=7)
    add(store, WORD)
    with ChangeLock(store.notes, C).held("a rebuild"), pytest.raises(RebuildRunning):
        changes(store).apply(C, by="test")
    assert ChangeLock(store.notes, C).holder() == ""
    store.create_collection(
        "other", recipe=replace(store.live(C).recipe, analyzer="another program's")
    )
    Vocabulary(store.notes).change("other", "dictionary", add=[WORD], author="lin")
    with pytest.raises(RecipeMismatch, match="scripts/rebuild --collection other"):
        changes(store).apply("other", by="test")
    assert ChangeLock(store.notes, "other").holder() == ""


def test_a_document_that_cannot_be_derived_stops_it(store: Store) -> None:
    """One that has lost a chunk, so that its vector is not there to be taken over."""
    embedder = FakeEmbedder(version="broken")
    live = served(store, embedder)
    fill(store, 10, live)
    long = document(0, "".join(f"{WORD}的第{part}部分很长。" for part in range(80)))
    Indexer(store, live).put(C, [long], refresh=True)
    before = store.live(C, fresh=True)
    whole = next(deriver_of(live.open(C), live.own).derive([long]))[0].chunks
    assert isinstance(whole, tuple)
    revision = store.document(C, "d0").revision
    less = Derivation(document_id="d0", revision=revision, document=long, chunks=whole[:-1])
    assert store.generations.derive(C, before.id, [less]) == [True]
    add(store, WORD)
    embedder.down = True
    with pytest.raises(RebuildFailed, match=r"1 documents.*'d0'.*scripts/dictionary"):
        changes(store, live).apply(C, by="test").run()
    assert store.live(C, fresh=True) == before
    [failed] = Rebuilds(store.notes, C).all()
    assert failed.state == "failed"
    assert "'d0'" in failed.error
    embedder.down = False
    assert changes(store, live).apply(C, by="test").run().embedded > 0
    assert len(store.generations.chunks(C, before.id, ["d0"])["d0"]) == len(whole) > 1
    assert with_term(store, WORD) == TOUCHED_IDS


def test_one_that_was_asked_to_stop_can_be_given_up(store: Store) -> None:
    fill(store, 200)
    add(store, WORD)
    before = store.live(C, fresh=True)
    work = changes(store).apply(C, by="test")
    stopping = threading.Timer(0.0, Rebuilds(store.notes, C).stop, [work.record.id])
    stopping.start()
    stopping.join()
    time.sleep(0.6)  # the record is kept, and the wish to stop seen, twice a second
    with pytest.raises(Stopped):
        work.run()
    assert store.live(C, fresh=True) == before
    assert len(with_term(store, WORD)) < TOUCHED
    given_up = changes(store).abandon(C, by="test")
    assert given_up is not None
    assert given_up.run().state == "abandoned"
    assert with_term(store, WORD) == set()
    assert with_term(store, "云梯") == TOUCHED_IDS
    assert store.live(C, fresh=True).recipe == before.recipe
    assert changes(store).abandon(C, by="test") is None
    assert {each.state for each in Rebuilds(store.notes, C).all()} == {"abandoned"}


class Dying:
    """A store whose process dies when it calls one method of ``generations``."""

    def __init__(self, store: Store, at: str) -> None:
        self._store = store
        self.generations = DyingGenerations(store.generations, at)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class DyingGenerations:
    def __init__(self, generations: Generations, at: str) -> None:
        self._generations, self._at = generations, at

    def __getattr__(self, name: str) -> Any:
        if name == self._at:
            raise Died
        return getattr(self._generations, name)


class Died(Exception):
    pass


@pytest.mark.parametrize("at", ["derive", "fence", "restamp"])
def test_one_that_died_is_mended_by_the_next(store: Store, at: str) -> None:
    """Even by one of another dictionary: what the first has derived is derived again."""
    documents = fill(store)
    before = store.live(C, fresh=True)
    add(store, WORD)
    with pytest.raises(Died):
        changes(Dying(store, at), served(store)).apply(C, by="test").run()
    live = store.live(C, fresh=True)
    assert live.recipe == before.recipe
    assert with_term(store, "云梯", "bigrams") == TOUCHED_IDS  # found all the time

    other = "运维负责"
    add(store, other, remove=(WORD,))
    record = changes(store).apply(C, by="test").run()
    assert record.state == "promoted"
    assert with_term(store, WORD) == set()
    assert with_term(store, other) == TOUCHED_IDS
    assert with_term(store, "云梯") == TOUCHED_IDS
    states = [each.state for each in Rebuilds(store.notes, C).all()]
    assert states == ["promoted", "abandoned"]
    own = JiebaAnalyzer(UserDictionary.parse([other]))
    assert store.live(C, fresh=True).recipe.analyzer == own.fingerprint
    assert store.collection(C).documents == len(documents)


def test_one_that_died_after_its_stamp_is_finished(store: Store) -> None:
    fill(store, 10)
    add(store, WORD)
    work = changes(store).apply(C, by="test")
    record = work.record
    work.run()
    stamped = store.live(C, fresh=True)
    store.notes.put(
        C, f"applying:{stamped.id}", {"edition": stamped.edition, "versions": [1]}, expected=0
    )
    note = store.notes.get(C, f"rebuild:{record.id}")
    assert note is not None
    store.notes.put(C, f"rebuild:{record.id}", {**note.value, "state": "catching_up"})
    assert changes(store).abandon(C, by="test") is None
    assert store.live(C, fresh=True) == stamped
    assert Rebuilds(store.notes, C).get(record.id).state == "promoted"
    assert store.notes.get(C, f"applying:{stamped.id}") is None


def test_an_old_generation_comes_back_with_its_own_dictionary(store: Store) -> None:
    fill(store, 20)
    rebuilds = Rebuilder(store, served(store))
    rebuilds.rebuild(C, by="test").run()
    add(store, WORD)
    changes(store).apply(C, by="test").run()
    assert with_term(store, WORD) == TOUCHED_IDS
    rebuilds.roll_back(C, by="test").run()
    assert with_term(store, WORD) == set()
    assert changes(store).apply(C, by="test").run().done == TOUCHED
    assert with_term(store, WORD) == TOUCHED_IDS


def test_another_process_follows(open_store: Callable[[], Store], store: Store) -> None:
    fill(store, 10)
    other = open_store()
    live = served(other)
    searcher, indexer = Searcher(store=other, live=live, reranker=None), Indexer(other, live)
    query = SearchQuery(query=WORD, collection=C, mode="bm25", rerank=False)
    assert searcher.search(query, groups=None).hits
    add(store, WORD)
    changes(store).apply(C, by="test").run()
    [result] = indexer.put(C, [touched(50)], refresh=True)
    assert isinstance(result, Put)
    assert with_term(store, WORD) == TOUCHED_IDS | {"d50"}
    deadline = time.monotonic() + other.follow_seconds + 5
    while live.open(C).analyzer.fingerprint == ANALYZER.fingerprint:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    found = searcher.search(query, groups=None)
    assert len(found.hits) == TOUCHED + 1


@pytest.mark.timeout(900)
def test_searches_and_writes_go_on(open_store: Callable[[], Store], store: Store) -> None:
    """Afterwards every document has the terms that the dictionary in force gives it."""
    serving = open_store()
    live = served(serving, FakeEmbedder(version="load"))
    indexer = Indexer(serving, live)
    documents = fill(store, 100, live)
    searcher = Searcher(store=serving, live=live, reranker=None)
    own = served(store, FakeEmbedder(version="load"))
    words = ["差旅报销", "第一条", "住宿标准"]
    with load(searcher, indexer, C, documents) as made:
        for number in range(2):
            time.sleep(0.3)
            if number % 2 == 0:
                add(store, *words)
            else:
                add(store, remove=tuple(words))
            changes(store, own).apply(C, by="test").run()
        add(store, *words)
        changes(store, own).apply(C, by="test").run()
        time.sleep(0.3)
    assert made.failures == []
    assert made.writes > 50
    assert made.searches > 50
    store.refresh(C)
    analyzer = JiebaAnalyzer(Vocabulary(store.notes).dictionary(C))
    for word in words:
        expected = {
            name
            for name, each in made.documents.items()
            if word in {token.term for token in analyzer.analyze(each.text).words}
        }
        assert with_term(store, word) == expected
    assert store.collection(C).documents == len(made.documents)
