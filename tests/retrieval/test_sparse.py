"""Hybrid search by three retrievers, on the embedded store."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Document
from server.errors import InvalidInput
from server.evaluation.replay import Recorder
from server.hits import Retrieval
from server.ingest.indexer import Indexer
from server.models.contract import Embedder
from server.models.remembering_sparse import remembering
from server.retrieval.fusion import Fusion
from server.retrieval.profile import Profile
from server.retrieval.query import SearchQuery
from server.retrieval.retrievers import WHOLE_MATCH
from server.retrieval.searcher import Searcher, Trace
from server.stores.contract import Legs, LegsRequest, Store
from server.stores.embedded.store import EmbeddedStore
from tests.fakes import FakeEmbedder, FakeSparseEmbedder, live_collections

ANALYZER = JiebaAnalyzer()
C = "default"
DOCUMENTS = [
    Document.create(id="travel", title="差旅", text="一类城市住宿每晚上限六百元，凭票报销。"),
    Document.create(id="leave", title="年假", text="年休假五天，须提前申请。"),
    Document.create(id="vpn", title="VPN", text="Install the client and restart the laptop."),
    Document.create(id="pay", title="薪酬", text="报销审批人的薪酬区间。", acl=["hr"]),
]


class Watched(EmbeddedStore):
    """Records what it was asked; ``broken``: legs that it says it can't give."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.requests: list[LegsRequest] = []
        self.broken: set[str] = set()

    def search(self, collection: str, request: LegsRequest) -> Legs:
        self.requests.append(request)
        found = super().search(collection, request)
        errors = {leg: InvalidInput(f"{leg} is broken.") for leg in self.broken}
        return replace(found, errors=errors, **dict.fromkeys(self.broken))  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Watched]:
    opened = Watched(tmp_path)
    yield opened
    opened.close()


def searcher(store: Store, embedder: Embedder, *, light: bool = False) -> Searcher:
    live = live_collections(store, ANALYZER, remembering(embedder))
    indexer = Indexer(store, live)
    indexer.ensure_collection(C)
    if not store.collection(C).documents:
        indexer.put(C, DOCUMENTS, refresh=True)
    return Searcher(store=store, live=live, reranker=None, light=light)


def trace(searcher: Searcher, query: str, **options: object) -> Trace:
    return searcher.trace(SearchQuery(query=query, **options), groups=None)  # type: ignore[arg-type]


def degraded(found: Retrieval) -> dict[str, str]:
    return {each.stage: each.reason for each in found.degraded if each.stage != "rerank"}


def test_a_hybrid_search_goes_by_sparse_weights_too(store: Watched) -> None:
    embedder = FakeSparseEmbedder()
    found = trace(searcher(store, embedder), "住宿报销", explain=True)
    assert list(found.lists) == ["bm25", "vector", "sparse", "fused"]
    assert found.worth is not None
    assert found.worth.sparse == pytest.approx(0.3 / 0.02)
    assert found.worth.vector == pytest.approx(1 / 0.02)
    best = next(hit for hit in found.retrieval.hits if hit.document_id == "travel")
    assert best.ranks["sparse"] == 1
    assert best.scores["sparse"] > 0
    parts = {
        name: getattr(found.worth, name) * best.scores[name]
        for name in ("bm25", "vector", "sparse")
    }
    assert parts["bm25"] <= WHOLE_MATCH * 10
    assert best.scores["fused"] == pytest.approx(sum(parts.values()))
    assert {stage.name for stage in found.retrieval.stages} >= {"bm25", "vector", "sparse"}
    assert degraded(found.retrieval) == {}


def test_permissions_hold_for_sparse_hits(store: Watched) -> None:
    made = searcher(store, FakeSparseEmbedder())
    query = SearchQuery(query="报销审批人的薪酬区间")
    for groups, seen in ((frozenset[str](), False), (frozenset({"hr"}), True)):
        found = made.trace(query, groups=groups)
        listed = {chunk_id for ranked in found.lists.values() for chunk_id, _ in ranked}
        assert ("pay:0" in listed) == seen
        assert ("pay:0" in dict(found.lists["sparse"])) == seen


@pytest.mark.parametrize("mode", ["bm25", "vector"])
def test_a_search_by_one_retriever_asks_for_none(store: Watched, mode: str) -> None:
    found = trace(searcher(store, FakeSparseEmbedder()), "报销", mode=mode)
    assert list(found.lists) == [mode]
    assert store.requests[-1].sparse is None


def test_without_weight_they_are_not_asked_for(store: Watched) -> None:
    made = searcher(store, FakeSparseEmbedder())
    for options in ({"fusion": Fusion(sparse=0)}, {"profile": Profile(fusion=Fusion(sparse=0))}):
        assert "sparse" not in trace(made, "报销", **options).lists
        assert store.requests[-1].sparse is None


def test_a_collection_without_them_is_searched_as_before(store: Watched) -> None:
    found = trace(searcher(store, FakeEmbedder()), "报销")
    assert list(found.lists) == ["bm25", "vector", "fused"]
    assert store.requests[-1].sparse is None
    again = trace(searcher(store, FakeSparseEmbedder()), "报销")  # until it is rebuilt
    assert list(again.lists) == ["bm25", "vector", "fused"]
    assert again.lists == found.lists
    assert degraded(again.retrieval) == {}


def test_what_is_missing_is_named_once(store: Watched) -> None:
    made = searcher(store, FakeSparseEmbedder())
    other = trace(searcher(store, FakeSparseEmbedder(head="2")), "报销")
    assert list(other.lists) == ["bm25", "vector", "fused"]
    assert "fake-head:1" in degraded(other.retrieval)["sparse"]
    store.broken = {"sparse"}
    found = trace(made, "报销")
    assert degraded(found.retrieval) == {"sparse": "sparse is broken."}
    assert list(found.lists) == ["bm25", "vector", "fused"]
    down = FakeSparseEmbedder()
    down.down = True
    store.broken = set()
    words = trace(searcher(store, down), "报销")
    assert list(words.lists) == ["bm25"]
    assert list(degraded(words.retrieval)) == ["vector"]


@pytest.mark.parametrize("broken", ["bm25", "vector"])
def test_two_of_three_are_fused_and_keep_their_order(store: Watched, broken: str) -> None:
    made = searcher(store, FakeSparseEmbedder(), light=True)
    store.broken = {broken}
    found = trace(made, "报销")
    assert set(found.lists) == {"bm25", "vector", "sparse", "fused"} - {broken}
    assert list(degraded(found.retrieval)) == [broken]


def test_sparse_weights_alone_still_find(store: Watched) -> None:
    made = searcher(store, FakeSparseEmbedder(), light=True)
    store.broken = {"bm25", "vector"}
    found = trace(made, "住宿报销")
    assert list(found.lists) == ["sparse"]
    assert found.retrieval.hits[0].document_id == "travel"
    assert set(degraded(found.retrieval)) == {"bm25", "vector"}


def test_the_light_ranker_says_what_they_gave(store: Watched) -> None:
    found = trace(searcher(store, FakeSparseEmbedder(), light=True), "住宿报销", explain=True)
    assert found.worth is not None
    for hit in found.retrieval.hits:
        assert hit.evidence is not None
        assert hit.score == pytest.approx(sum(hit.evidence.values()))
        wanted = found.worth.sparse * hit.scores.get("sparse", 0.0)
        assert hit.evidence["sparse"] == pytest.approx(wanted)


def test_a_replay_ranks_as_the_search_does(store: Watched) -> None:
    made = searcher(store, FakeSparseEmbedder())
    recording = Recorder(store, made, depth=100).record(C, "住宿报销申请")
    for fusion in (
        Fusion(),
        Fusion(sparse=0),
        Fusion(method="rrf"),
        Fusion(method="convex", sparse=3),
    ):
        profile = Profile(fusion=fusion)
        found = trace(made, "住宿报销申请", profile=profile, group=True).retrieval
        assert recording.documents(profile, 4) == [hit.document_id for hit in found.hits]
