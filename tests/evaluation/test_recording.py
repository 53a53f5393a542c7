"""What a recording holds beside what an ordinary search answers, on both stores."""

import math

import pytest

from server.errors import CollectionNotFound, EmbedderUnavailable, RerankerUnavailable
from server.evaluation.ablation import measure_set
from server.evaluation.recording import WHOLE, record
from server.evaluation.variants import JudgedSet
from server.retrieval.fusion import Fusion
from server.retrieval.profile import Profile
from server.retrieval.query import SearchQuery
from tests.evaluation import builders
from tests.evaluation.conftest import COLLECTION, TOPICS, documents
from tests.fakes import FakeEmbedder

QUERIES = [(f"q{number}", f"{topic}流程") for number, topic in enumerate(TOPICS)]


def ordinary(searcher, text, **options):
    """The documents of a search for all of them."""
    query = SearchQuery(
        query=text, collection=COLLECTION, size=100, group=True, highlight=False, **options
    )
    return tuple(hit.document_id for hit in searcher.search(query, groups=None).hits)


class FailsFor(FakeEmbedder):
    """An embedder that fails for one query."""

    def __init__(self, text):
        super().__init__()
        self.text = text

    def embed_query(self, text):
        if text == self.text:
            raise EmbedderUnavailable("The model choked.")
        return super().embed_query(text)


class LongestFirst:
    """A reranker that likes long passages; fails for one query."""

    name = "longest"

    def __init__(self, *, failing=""):
        self.failing = failing

    def warm_up(self):
        pass

    def score(self, query, passages):
        if query == self.failing:
            raise RerankerUnavailable("The reranker broke.")
        return [len(passage) / 10_000 for passage in passages]


def test_each_stage_is_what_a_search_of_that_kind_answers(make_searcher):
    searcher = make_searcher()

    recording = record(searcher, QUERIES, collection=COLLECTION)

    assert [*recording.stages] == ["bm25", "vector", "fused"]
    for query_id, text in QUERIES:
        found = {name: run[query_id].documents for name, run in recording.stages.items()}
        assert found["bm25"] == ordinary(searcher, text, mode="bm25")
        assert found["vector"] == ordinary(searcher, text, mode="vector")
        assert found["fused"] == ordinary(searcher, text)
        assert set(found["vector"]) == {document.id for document in documents()}
        for run in recording.stages.values():
            scores = run[query_id].scores
            assert len(scores) == len(run[query_id].documents)
            assert list(scores) == sorted(scores, reverse=True)
    assert recording.took.keys() >= {WHOLE, "embed", "bm25", "vector", "fuse", "highlight"}
    assert len(recording.took[WHOLE]) == len(QUERIES)
    assert {stage for stage, _ in recording.degraded} == {"rerank"}
    assert [*recording.degraded.values()] == [len(QUERIES)]


def test_one_mode_is_one_stage(make_searcher):
    for mode in ("bm25", "vector"):
        recording = record(make_searcher(), QUERIES, collection=COLLECTION, mode=mode, rerank=False)
        assert [*recording.stages] == [mode]
        assert recording.degraded == {}


def test_the_reranker_orders_the_head_and_the_rest_stays_fused(make_searcher):
    searcher = make_searcher(reranker=LongestFirst(), rerank_top_n=3)

    stages = record(searcher, QUERIES, collection=COLLECTION, highlight=False).stages

    assert [*stages] == ["bm25", "vector", "fused", "reranked"]
    for query_id, text in QUERIES:
        fused, reranked = stages["fused"][query_id], stages["reranked"][query_id]
        assert reranked.documents == ordinary(searcher, text)
        assert sorted(reranked.documents) == sorted(fused.documents)
        assert 1 <= len(reranked.scores) <= 3
        rest = reranked.documents[len(reranked.scores) :]
        assert rest == tuple(each for each in fused.documents if each in rest)


def test_a_query_that_lacked_a_stage_counts_as_users_saw_it(make_searcher):
    (first, text), (second, other) = QUERIES[:2]
    searcher = make_searcher(FailsFor(text), reranker=LongestFirst(failing=other))

    recording = record(searcher, QUERIES, collection=COLLECTION)

    stages = recording.stages
    assert [*stages] == ["bm25", "vector", "fused", "reranked"]
    assert stages["vector"][first].documents == ()
    assert stages["fused"][first] == stages["bm25"][first]
    assert stages["reranked"][second] == stages["fused"][second]
    assert recording.degraded == {
        ("vector", "The model choked."): 1,
        ("rerank", "The reranker broke."): 1,
    }


def test_a_profile_takes_the_place_of_the_one_in_force(make_searcher):
    words = Profile(fusion=Fusion(bm25=1, vector=0))

    stages = record(make_searcher(), QUERIES, collection=COLLECTION, profile=words).stages

    for query_id, _ in QUERIES:
        head = stages["bm25"][query_id].documents[:3]
        assert stages["fused"][query_id].documents[: len(head)] == head


def test_what_a_search_raises_is_raised(make_searcher):
    with pytest.raises(CollectionNotFound):
        record(make_searcher(), QUERIES, collection="none")


def test_variants_of_the_profile_are_measured_beside_each_other(make_searcher):
    judged = JudgedSet(
        name="made",
        collection=COLLECTION,
        dataset=builders.dataset(
            {
                query_id: {f"{topic}-1": 1}
                for (query_id, _), topic in zip(QUERIES, TOPICS, strict=True)
            },
            dict(QUERIES),
        ),
    )
    variants = {"default": Profile(), "words": Profile(fusion=Fusion(bm25=1, vector=0))}

    measured = measure_set(
        make_searcher(), judged, variants, measures=["nDCG@10", "Recall@100"], queries=QUERIES
    )

    words = record(
        make_searcher(), QUERIES, collection=COLLECTION, profile=variants["words"]
    ).stages["fused"]
    assert measured.values.keys() == {"nDCG@10", "Recall@100"}
    for query_id, topic in zip(dict(QUERIES), TOPICS, strict=True):
        rank = words[query_id].rank(f"{topic}-1")
        expected = 1 / math.log2(1 + rank) if rank and rank <= 10 else 0
        assert measured.values["nDCG@10"]["words"][query_id] == pytest.approx(expected)
    assert [*measured.degraded.values()] == [2 * len(QUERIES)]
