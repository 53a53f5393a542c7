"""The pipeline on the real analyzer and the real embedded store."""

import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.analysis.dictionary import UserDictionary
from server.documents import Document
from server.errors import (
    CollectionNotFound,
    EmbedderUnavailable,
    InvalidInput,
    PageTooDeep,
    RecipeMismatch,
    RerankerUnavailable,
)
from server.ingest.chunker import Chunker
from server.retrieval.fusion import Fusion
from server.retrieval.query import SearchQuery
from server.retrieval.searcher import Searcher
from server.stores.embedded.store import EmbeddedStore
from server.stores.filters import Terms
from tests.fakes import FakeEmbedder, count_tokens, live_collections, make_indexer

EVERYONE = None
CHUNKER = Chunker(count_tokens, 128)
DOCUMENTS = [
    Document.create(
        id="travel",
        title="差旅费用报销标准",
        text="一类城市住宿每晚上限六百元。伙食补贴每天一百二十元。",
        metadata={"department": "finance"},
    ),
    Document.create(
        id="leave",
        title="年休假规定",
        text="年休假五天。报销与本规定无关。",
        metadata={"department": "hr"},
    ),
    Document.create(id="vpn", title="VPN setup", text="Install the client and restart the laptop."),
    Document.create(id="secret", title="薪酬表", text="报销审批人的薪酬区间。", acl=["hr"]),
    Document.create(
        id="long",
        title="手册",
        text="\n\n".join(f"# 第{n}章\n\n" + f"第{n}章讲报销流程的细节。" * 40 for n in range(5)),
    ),
]


class KeywordReranker:
    """Scores by how often a word stands in the passage; records what it was given."""

    name = "keyword"

    def __init__(self, word, *, broken=False):
        self.word, self.broken = word, broken
        self.passages = []

    def warm_up(self):
        pass

    def score(self, query, passages):
        if self.broken:
            raise RerankerUnavailable("The reranker broke.")
        self.passages += passages
        return [passage.count(self.word) / 1000 for passage in passages]


@pytest.fixture(scope="module")
def analyzer():
    return JiebaAnalyzer()


@pytest.fixture
def embedder():
    return FakeEmbedder()


@pytest.fixture
def store(tmp_path):
    store = EmbeddedStore(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
def indexer(store, analyzer, embedder):
    indexer = make_indexer(store, analyzer, embedder, CHUNKER)
    indexer.ensure_collection("default")
    indexer.put("default", DOCUMENTS, refresh=True)
    return indexer


@pytest.fixture
def make_searcher(store, analyzer, embedder, indexer):
    def make(**changes):
        parts = {
            "store": store,
            "live": live_collections(store, analyzer, embedder, CHUNKER),
            "reranker": None,
        }
        return Searcher(**{**parts, **changes})

    return make


def search(searcher, query, groups=EVERYONE, **options):
    return searcher.search(SearchQuery(query=query, **options), groups=groups)


def ids(retrieval):
    return [hit.document_id for hit in retrieval.hits]


def test_hits_of_both_retrievers_carry_ranks_and_scores_apart(make_searcher):
    found = search(make_searcher(), "差旅报销标准")

    best = next(hit for hit in found.hits if hit.document_id == "travel")
    assert best.ranks.keys() == best.scores.keys() == {"bm25", "vector", "fused"}
    assert best.score == best.scores["fused"]
    assert [hit.ranks["fused"] for hit in found.hits] == list(range(1, len(found.hits) + 1))
    assert {"analyze", "embed", "retrieve", "bm25", "vector", "fuse"} <= {
        stage.name for stage in found.stages
    }


def test_one_leg_alone_keeps_its_own_scores(make_searcher):
    found = search(make_searcher(), "住宿上限", mode="bm25", rerank=False)

    assert ids(found)[0] == "travel"
    assert found.hits[0].scores.keys() == {"bm25"}
    assert found.hits[0].score == found.hits[0].scores["bm25"]
    assert found.degraded == ()


def test_highlights_point_into_the_original_text(make_searcher):
    found = search(make_searcher(), "住宿標準", mode="bm25")

    hit = next(hit for hit in found.hits if hit.document_id == "travel")
    assert [hit.text[span.start : span.end] for span in hit.highlights] == ["住宿"]
    assert [hit.title[span.start : span.end] for span in hit.title_highlights] == ["标准"]
    document = next(document for document in DOCUMENTS if document.id == "travel")
    assert document.text[hit.start : hit.end] == hit.text


def test_the_reranker_reads_raw_passages_and_orders_the_top(make_searcher):
    reranker = KeywordReranker("年休假")

    found = search(make_searcher(reranker=reranker), "报销", mode="bm25")

    assert found.hits[0].document_id == "leave"
    assert found.hits[0].ranks["rerank"] == 1
    assert found.hits[0].score == found.hits[0].scores["rerank"]
    assert "年休假规定\n年休假五天。报销与本规定无关。" in reranker.passages
    assert found.degraded == ()


def test_what_the_reranker_did_not_reach_follows_in_fused_order(make_searcher):
    found = search(
        make_searcher(reranker=KeywordReranker("无"), rerank_top_n=2), "报销", mode="bm25"
    )

    reranked = ["rerank" in hit.ranks for hit in found.hits]
    assert reranked == sorted(reranked, reverse=True)
    assert reranked.count(True) == 2
    rest = [hit.ranks["bm25"] for hit in found.hits[2:]]
    assert rest == sorted(rest)


@pytest.mark.parametrize("broken", [None, KeywordReranker("x", broken=True)])
def test_a_missing_reranker_is_named_and_the_order_stays(make_searcher, broken):
    with_reranker = search(make_searcher(reranker=broken), "报销")
    without = search(make_searcher(), "报销", rerank=False)

    assert [degraded.stage for degraded in with_reranker.degraded] == ["rerank"]
    assert [hit.chunk_id for hit in with_reranker.hits] == [hit.chunk_id for hit in without.hits]


def test_without_the_embedder_words_still_find(make_searcher, embedder):
    embedder.down = True

    found = search(make_searcher(), "住宿上限", rerank=False)

    assert ids(found)[0] == "travel"
    assert [degraded.stage for degraded in found.degraded] == ["vector"]
    with pytest.raises(EmbedderUnavailable):
        search(make_searcher(), "住宿上限", mode="vector")


def test_no_embedder_at_all_says_why(make_searcher, store, analyzer):
    searcher = make_searcher(live=live_collections(store, analyzer, None, CHUNKER))

    found = search(searcher, "住宿", rerank=False)

    assert found.degraded[0].reason == "No embedder is configured, so words alone decide."


def test_another_embedder_than_the_recipe_s_is_refused_for_its_leg_only(
    make_searcher, store, analyzer
):
    other = FakeEmbedder(version="2")
    searcher = make_searcher(live=live_collections(store, analyzer, other, CHUNKER))

    found = search(searcher, "住宿上限", rerank=False)

    assert ids(found)[0] == "travel"
    assert "scripts/rebuild --collection default" in found.degraded[0].reason
    with pytest.raises(RecipeMismatch, match=r"'fake:1', here 'fake:2'.*TANYUAN_EMBEDDER=fake"):
        search(searcher, "住宿上限", mode="vector")
    assert other.calls == []


def test_an_embedder_that_no_setting_pins_is_found_by_the_recipe(
    make_searcher, store, analyzer, embedder
):
    live = live_collections(
        store, analyzer, FakeEmbedder(version="2"), CHUNKER, others=[embedder], pinned=()
    )

    found = search(make_searcher(live=live), "住宿上限", mode="vector", rerank=False)

    assert found.hits
    assert not found.degraded


def test_a_dictionary_that_is_nowhere_is_refused_for_words(
    make_searcher, store, analyzer, embedder
):
    own = JiebaAnalyzer(UserDictionary.parse(["产研中心"]))
    make_indexer(store, own, embedder, CHUNKER).ensure_collection("own")
    searcher = make_searcher()

    with pytest.raises(RecipeMismatch, match="dictionary:"):
        search(searcher, "住宿上限", collection="own", mode="bm25")
    assert search(searcher, "住宿", collection="own", rerank=False).degraded[0].stage == "bm25"


@pytest.mark.parametrize("mode", ["hybrid", "bm25", "vector"])
def test_permissions_hold_in_every_retriever(make_searcher, mode):
    searcher = make_searcher(reranker=KeywordReranker("薪酬"))

    assert "secret" not in ids(search(searcher, "薪酬", frozenset(), mode=mode, size=100))
    assert "secret" not in ids(search(searcher, "薪酬", frozenset({"it"}), mode=mode, size=100))
    assert "secret" in ids(search(searcher, "薪酬", frozenset({"hr"}), mode=mode, size=100))
    assert "secret" in ids(search(searcher, "薪酬", EVERYONE, mode=mode, size=100))


def test_a_filter_narrows_both_legs(make_searcher):
    found = search(make_searcher(), "报销", filter=Terms("department", ("hr",)), size=100)

    assert set(ids(found)) == {"leave"}


def test_hits_can_be_grouped_by_document(make_searcher):
    apart = search(make_searcher(), "报销流程", mode="bm25", size=100)
    grouped = search(make_searcher(), "报销流程", mode="bm25", size=100, group=True)

    assert ids(apart).count("long") > 1
    assert sorted(set(ids(apart))) == sorted(ids(grouped))
    best = next(hit for hit in grouped.hits if hit.document_id == "long")
    assert best.more == ids(apart).count("long") - 1
    assert best.chunk_id == next(hit.chunk_id for hit in apart.hits if hit.document_id == "long")


def test_pages_join_without_a_gap_or_a_repeat(make_searcher):
    searcher = make_searcher(reranker=KeywordReranker("报销"), rerank_top_n=3)
    whole = search(searcher, "报销", size=100)

    pages = [search(searcher, "报销", size=2, offset=offset) for offset in range(0, 12, 2)]

    joined = [hit.chunk_id for page in pages for hit in page.hits]
    assert joined == [hit.chunk_id for hit in whole.hits][:12]


def test_a_query_without_any_term_finds_nothing_by_words(make_searcher):
    found = search(make_searcher(), "？？！", mode="bm25")

    assert found.hits == ()
    assert found.total == 0


def test_fusion_may_be_chosen(make_searcher):
    found = search(make_searcher(), "报销", fusion=Fusion(method="rrf"), rerank=False)

    assert found.hits[0].scores["fused"] <= 2 / 61


def test_a_missing_collection_is_an_error(make_searcher):
    with pytest.raises(CollectionNotFound):
        search(make_searcher(), "报销", collection="none")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"query": ""}, InvalidInput),
        ({"query": " \n"}, InvalidInput),
        ({"query": "x" * 2001}, InvalidInput),
        ({"query": "a\x00b"}, InvalidInput),
        ({"query": "\ud800"}, InvalidInput),
        ({"size": 0}, InvalidInput),
        ({"offset": -1}, InvalidInput),
        ({"offset": 9_995, "size": 10}, PageTooDeep),
        ({"collection": "../x"}, InvalidInput),
    ],
)
def test_wrong_searches_are_refused(wrong, error):
    with pytest.raises(error):
        SearchQuery(**{"query": "报销", **wrong})


def test_the_light_ranker_stands_in_for_a_reranker_and_says_what_placed_each_hit(make_searcher):
    found = search(make_searcher(light=True), "住宿每晚上限", explain=True)

    assert found.degraded == ()
    for hit in found.hits:
        assert hit.score == hit.scores["rerank"] == pytest.approx(sum(hit.evidence.values()))
    for kind in ("bm25", "coverage", "phrase"):
        assert max(found.hits, key=lambda hit: hit.evidence[kind]).document_id == "travel"
    assert [hit.ranks["rerank"] for hit in found.hits] == list(range(1, len(found.hits) + 1))


def test_evidence_is_told_only_to_those_who_ask(make_searcher):
    searcher = make_searcher(light=True)

    assert {hit.evidence for hit in search(searcher, "报销").hits} == {None}
    assert {hit.evidence for hit in search(searcher, "报销", rerank=False, explain=True).hits} == {
        None
    }


def test_one_retriever_alone_keeps_its_order(make_searcher, embedder):
    searcher = make_searcher(light=True)

    for mode in ("bm25", "vector"):
        found = search(searcher, "报销", mode=mode)
        assert {tuple(hit.ranks) for hit in found.hits} == {(mode,)}
    embedder.down = True
    assert {tuple(hit.ranks) for hit in search(searcher, "报销").hits} == {("bm25",)}


def test_a_named_reranker_that_is_missing_is_told_though_the_light_one_stands_in(make_searcher):
    searcher = make_searcher(light=True, missing={"reranker": "It has no weights."})

    found = search(searcher, "报销")

    assert [(each.stage, each.reason) for each in found.degraded] == [
        ("rerank", "It has no weights.")
    ]
    assert all("rerank" in hit.ranks for hit in found.hits)


def test_a_query_without_words_goes_by_its_meaning(make_searcher):
    found = search(make_searcher(), "？！", rerank=False)

    assert found.hits
    assert [hit.ranks["vector"] for hit in found.hits] == sorted(
        hit.ranks["vector"] for hit in found.hits
    )


CODES = [
    Document.create(id="4012", title="报错", text="ERR-4012：数据库连接超时，请重启网关。"),
    Document.create(id="4013", title="报错处理", text="ERR-4013：怎么办？数据库连接超时怎么办。"),
    Document.create(id="part", title="年假", text="年假可以结转。结转的年假次年用完。"),
    Document.create(
        id="phrase", title="其他", text="关于未用完的年假结转，另见规定，此处不再赘述。"
    ),
    Document.create(id="hidden", title="年假结转", text="年假结转的例外。", acl=["hr"]),
]


@pytest.mark.parametrize(
    ("query", "best"), [("伙食补贴每天120元", "travel"), ("5天年休假", "leave")]
)
def test_a_number_in_another_writing_counts_as_said(make_searcher, query, best):
    """Not only to BM25: to the light ranker too, which else takes it for a word that is lacking."""
    hits = search(make_searcher(light=True), query, explain=True, group=True).hits
    evidence = {hit.document_id: hit.evidence for hit in hits}
    assert evidence[best]["coverage"] == pytest.approx(2.0)


@pytest.mark.parametrize("mode", ["hybrid", "bm25"])
@pytest.mark.parametrize("light", [True, False])
@pytest.mark.parametrize(
    ("query", "best"), [("报错 ERR-4012 怎么办", "4012"), ('"年假结转" 可以', "phrase")]
)
def test_what_holds_the_exact_phrase_comes_first(make_searcher, indexer, query, best, light, mode):
    indexer.put("default", CODES, refresh=True)
    reranker = None if light else KeywordReranker("可以" if "可以" in query else "怎么办")

    found = search(
        make_searcher(light=light, reranker=reranker), query, frozenset(), mode=mode, size=100
    )

    assert ids(found)[0] == best
    assert {"part", "4013"} & {*ids(found)}
    assert "hidden" not in ids(found)
    assert found.hits[0].scores.keys() >= {"bm25"}


def test_a_phrase_that_nothing_holds_changes_nothing(make_searcher, indexer):
    indexer.put("default", CODES, refresh=True)
    searcher = make_searcher(light=True)

    quoted = search(searcher, '"结转总经理"', mode="bm25")

    assert ids(quoted) == ids(search(searcher, "结转总经理", mode="bm25"))


def test_a_code_that_is_everywhere_puts_nothing_first(make_searcher, indexer):
    indexer.put("default", CODES, refresh=True)
    indexer.put(
        "default",
        [Document.create(id=f"n{n}", title="", text=f"ERR-4012 第{n}次出现。") for n in range(3)],
        refresh=True,
    )

    few, many = (
        search(make_searcher(rerank_top_n=top_n), "ERR-4012 怎么办", mode="bm25", rerank=False)
        for top_n in (3, 4)
    )

    assert ids(few)[0] == "4013"
    assert ids(many)[0] != "4013"
