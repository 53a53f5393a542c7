"""A collection from one store to another: the same documents, the same search, nothing embedded."""

import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Document
from server.errors import CollectionExists, CollectionNotFound
from server.ingest.indexer import Indexer
from server.lifecycle.transfer import Report, Transfer
from server.retrieval.fusion import Fusion
from server.retrieval.profile import Profile
from server.retrieval.profiles import Profiles
from server.stores.contract import Leg, LegsRequest, Store, TextClause
from server.stores.elasticsearch.store import ElasticsearchStore
from server.stores.embedded.store import EmbeddedStore
from server.vocabulary import Vocabulary
from tests.fakes import FakeEmbedder, make_indexer
from tests.lifecycle.archives import some_documents
from tests.lifecycle.load import TOPICS
from tests.lifecycle.moves import (
    ANALYZER,
    assert_same_chunks,
    change_dictionary,
    chunks,
    contents,
    put,
)
from tests.product import ROOT, environment, script
from tests.services.elasticsearch import targets


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedStore]:
    store = EmbeddedStore(tmp_path / "data" / "store")
    yield store
    store.close()


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def remote(elasticsearch: Callable[[str], str], prefix: str) -> Iterator[ElasticsearchStore]:
    store = ElasticsearchStore(elasticsearch(targets()[0]), prefix=prefix)
    yield store
    for collection in store.collections():
        store.delete_collection(collection.name)
    store.close()


def copy(
    source: Store,
    target: Store,
    indexer: Indexer,
    name: str = "copy",
    *,
    update: bool = False,
    progress: Callable[[Report], None] = lambda _: None,
) -> Report:
    transfer = Transfer(target, indexer, JiebaAnalyzer, progress=progress)
    return transfer.copy(source, "books", name, update=update)


def library(count: int) -> list[Document]:
    """Texts that differ in length and words, some with several chunks."""
    random = Random(count)
    return [
        Document.create(
            id=f"d{number}",
            title=random.choice(TOPICS),
            text="\n\n".join(
                f"{random.choice(TOPICS)}第{random.randrange(400)}条，编号 QH-{random.randrange(90)}，"
                f"由{random.choice(TOPICS)}负责人在 {random.randrange(1, 30)} 日内说明。"
                for _ in range(random.randrange(1, 40))
            ),
            acl=random.choice((["public"], ["hr"], [])),
        )
        for number in range(count)
    ]


def request(text: str) -> LegsRequest:
    analysis = ANALYZER.analyze(text)
    words = tuple(token.term for token in analysis.words)
    bigrams = tuple(token.term for token in analysis.bigrams)
    clauses = tuple(
        TextClause(field=field, terms=terms, weight=weight)
        for field, terms, weight in (
            ("words", words, 1.0),
            ("bigrams", bigrams, 0.5),
            ("title_words", words, 1.5),
        )
    )
    return LegsRequest(text=clauses, vector=FakeEmbedder().embed_query(text), k=50)


def assert_searched_alike(one: Store, collection: str, other: Store, name: str) -> None:
    """Scores are the same, and so the order but for ties and for Elasticsearch's quantised vectors."""
    shares: dict[str, list[float]] = {"bm25": [], "vector": []}
    for number in range(40):
        asked = request(f"{TOPICS[number % len(TOPICS)]} {number} QH-{number}")
        found = [one.search(collection, asked), other.search(name, asked)]
        for leg, own in shares.items():
            ours, theirs = (getattr(legs, leg) for legs in found)
            assert isinstance(ours, Leg)
            assert isinstance(theirs, Leg)
            assert ours.total == theirs.total
            scores, other_scores = dict(ours.hits), dict(theirs.hits)
            common = scores.keys() & other_scores.keys()
            assert [scores[chunk] for chunk in common] == pytest.approx(
                [other_scores[chunk] for chunk in common], rel=1e-3, abs=1e-4
            )
            tops = [{chunk for chunk, _ in each.hits[:10]} for each in (ours, theirs)]
            own.append(len(tops[0] & tops[1]) / max(map(len, tops)))
    for leg, own in shares.items():
        assert sum(own) / len(own) >= 0.95, (leg, own)


def test_from_embedded_to_elasticsearch_and_back(
    embedded: EmbeddedStore, remote: ElasticsearchStore
) -> None:
    embedder = FakeEmbedder()
    indexer = make_indexer(embedded, ANALYZER, embedder)
    indexer.ensure_collection("books", "旧书")
    documents = library(300)
    put(indexer, "books", documents)
    embedder.calls.clear()

    report = copy(embedded, remote, make_indexer(remote, ANALYZER, embedder), "books")

    assert report.whole
    assert report.written == 300
    assert embedder.texts == []
    assert contents(remote, "books") == {each.id: each for each in documents}
    assert remote.collection("books").description == "旧书"
    assert_same_chunks(chunks(remote, "books"), chunks(embedded, "books"))
    assert_searched_alike(embedded, "books", remote, "books")

    assert copy(remote, embedded, indexer, "back").digest == report.digest
    assert embedder.texts == []
    assert_same_chunks(chunks(embedded, "back"), chunks(embedded, "books"))


def test_another_embedder_makes_its_own_vectors(embedded: EmbeddedStore) -> None:
    indexer = make_indexer(embedded, ANALYZER, FakeEmbedder())
    indexer.ensure_collection("books")
    put(indexer, "books", some_documents(9))
    other = FakeEmbedder(version="2")
    assert copy(embedded, embedded, make_indexer(embedded, ANALYZER, other)).whole
    assert len(other.texts) == embedded.collection("copy").chunks


def test_the_vocabulary_is_copied(embedded: EmbeddedStore) -> None:
    indexer = make_indexer(embedded, ANALYZER)
    indexer.ensure_collection("books")
    vocabulary = Vocabulary(embedded.notes)
    change_dictionary(embedded, indexer, "books", ["齐岚采样泵"])
    vocabulary.change("books", "synonyms", add=["年假, 休假"], author="li")
    put(indexer, "books", some_documents(3))
    assert copy(embedded, embedded, indexer).whole
    assert embedded.collection("copy").recipe.dictionary == 1
    assert vocabulary.history("copy", "synonyms") == vocabulary.history("books", "synonyms")
    vocabulary.change("books", "synonyms", add=["出差, 差旅"], author="li")
    assert copy(embedded, embedded, indexer, update=True).whole
    assert vocabulary.lines("copy", "synonyms") == vocabulary.lines("books", "synonyms")


def test_the_profile_is_copied(embedded: EmbeddedStore) -> None:
    indexer = make_indexer(embedded, ANALYZER)
    indexer.ensure_collection("books")
    put(indexer, "books", some_documents(3))
    profiles = Profiles(embedded.notes)
    assert copy(embedded, embedded, indexer).whole
    assert profiles.history("copy") == []
    profiles.save("books", Profile(fusion=Fusion(window=300)), author="li")
    assert copy(embedded, embedded, indexer, update=True).whole
    assert profiles.history("copy") == profiles.history("books")


def test_a_finished_copy_follows_only_when_asked(embedded: EmbeddedStore) -> None:
    embedder = FakeEmbedder()
    indexer = make_indexer(embedded, ANALYZER, embedder)
    indexer.ensure_collection("books")
    put(indexer, "books", some_documents(100))
    assert copy(embedded, embedded, indexer).whole
    put(indexer, "books", some_documents(5, version=1))
    put(indexer, "books", [Document.create(id="new", text="new")])
    for number in range(50, 60):
        indexer.delete("books", f"d{number}")
    with pytest.raises(CollectionExists):
        copy(embedded, embedded, indexer)
    embedder.calls.clear()
    report = copy(embedded, embedded, indexer, update=True)
    assert (report.written, report.unchanged, report.removed) == (6, 85, 10)
    assert report.whole
    assert embedder.texts == []
    assert contents(embedded, "copy") == contents(embedded, "books")


def test_a_collection_is_never_copied_into_another(embedded: EmbeddedStore) -> None:
    indexer = make_indexer(embedded, ANALYZER)
    for name in ("books", "others"):
        indexer.ensure_collection(name)
        put(indexer, name, some_documents(3))
    for update in (False, True):
        for name in ("books", "others"):
            with pytest.raises(CollectionExists):
                copy(embedded, embedded, indexer, name, update=update)
    with pytest.raises(CollectionNotFound):
        Transfer(embedded, indexer, JiebaAnalyzer).copy(embedded, "missing", "copy")
    with pytest.raises(CollectionNotFound):
        embedded.collection("copy")


def test_a_copy_while_others_write(embedded: EmbeddedStore) -> None:
    """What was not changed is there, and an update brings the rest."""
    embedder = FakeEmbedder()
    indexer = make_indexer(embedded, ANALYZER, embedder)
    indexer.ensure_collection("books")
    put(indexer, "books", some_documents(300))
    ended = threading.Event()

    def write() -> None:
        random = Random(1)
        while not ended.is_set():
            at = random.randrange(0, 300, 2)
            document = Document.create(id=f"d{at}", title=f"{random.random()}", text="同一篇正文。")
            put(indexer, "books", [document])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        report = copy(embedded, embedded, indexer)
    finally:
        ended.set()
        thread.join()
    assert report.whole
    found = contents(embedded, "copy")
    assert found.keys() == contents(embedded, "books").keys()
    assert all(found[f"d{at}"] == some_documents(300)[at] for at in range(1, 300, 2))
    for passage, vector in chunks(embedded, "copy").values():
        assert vector is not None
        assert vector.tobytes() == embedder.embed_query(passage).tobytes()
    assert copy(embedded, embedded, indexer, update=True).whole
    assert contents(embedded, "copy") == contents(embedded, "books")


def test_the_script(
    embedded: EmbeddedStore,
    remote: ElasticsearchStore,
    prefix: str,
    tmp_path: Path,
    elasticsearch: Callable[[str], str],
) -> None:
    """The embedder is the collection's own, without being named."""
    data = tmp_path / "data"
    settings = {"elasticsearch_url": elasticsearch(targets()[0]), "embedder": "auto"}
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.md").write_text(f"# 第{number}条\n\n员工请假须提前{number}天。")
    script("index_documents", str(folder), "--collection=books", data=data)
    recipe = embedded.collection("books").recipe
    arguments = (
        "--collection=books",
        "--from=embedded",
        "--to=elasticsearch",
        f"--to-prefix={prefix}",
    )
    report = script("copy_collection", *arguments, "--as=moved", data=data, **settings)
    assert (report["written"], report["failed"]) == (12, [])
    assert remote.collection("moved").recipe == recipe
    assert_same_chunks(chunks(remote, "moved"), chunks(embedded, "books"))
    again = subprocess.run(
        [sys.executable, ROOT / "scripts/copy_collection", *arguments, "--as=moved"],
        env=environment(data, **settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 2
    assert again.stderr.startswith("copy_collection: There is a collection 'moved' already")


def test_a_store_with_the_same_documents_needs_no_copy(tmp_path: Path) -> None:
    refused = subprocess.run(
        [sys.executable, ROOT / "scripts/copy_collection", "--from=embedded", "--to=chroma"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert "TANYUAN_STORE=chroma serves it as it is" in refused.stderr
