"""The light ranker on passages made by hand, whose vectors say what they mean."""

import numpy as np
import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Chunk, Passage
from server.errors import InvalidInput
from server.retrieval.evidence import QueryTerms, query_terms
from server.retrieval.fusion import Worth
from server.retrieval.light import Candidate, LightRanker, LightWeights
from server.stores.contract import Frequencies

ANALYZER = JiebaAnalyzer()
NOTHING = LightWeights(windows=0, bm25=0, coverage=0, phrase=0, feedback=0)


def direction(*values):
    vector = np.array(values, dtype=np.float32)
    return vector / np.linalg.norm(vector)


def candidate(name, text="", vectors=None, *, bm25=0.0, vector=0.0):
    passage = Passage(
        chunk=Chunk(document_id=name, position=0, text=text, start=0, end=len(text)),
        title="",
        source="",
        metadata={},
        revision=1,
        vector=None if vectors is None else vectors[0],
        windows=np.stack(vectors[1:]) if vectors and len(vectors) > 2 else None,
    )
    return Candidate(passage=passage, fused={"bm25": bm25, "vector": vector})


def rank(candidates, query="差旅", weights=NOTHING):
    analysis = ANALYZER.analyze(query)
    counts = {name: dict.fromkeys(terms, 5) for name, terms in query_terms(analysis).items()}
    ranker = LightRanker(
        weights=weights,
        terms=QueryTerms.of(analysis, Frequencies(chunks=100, of=counts)),
        worth=Worth(bm25=1, vector=100),
        vector=direction(1, 0, 0),
        analyzer=ANALYZER,
    )
    return ranker.rank(candidates)


def order(said):
    return sorted(said, key=lambda chunk_id: -sum(said[chunk_id].values()))


def test_evidence_is_told_by_kind_and_sums_to_the_score():
    weights = LightWeights(windows=0.5, bm25=0.5, coverage=2, phrase=4, feedback=0)
    passage = candidate(
        "a", "差旅", [direction(3, 4, 0), direction(1, 0, 0), direction(0, 0, 1)], bm25=6
    )

    said = rank([passage], weights=weights)["a:0"]

    assert said == pytest.approx(
        {"vector": 60, "windows": 20, "bm25": 3, "coverage": 2, "phrase": 4}, abs=1e-4
    )


def test_the_best_window_can_lift_a_passage_over_one_that_is_nearer_as_a_whole():
    near = candidate("near", vectors=[direction(3, 2, 0)])
    hidden = candidate(
        "hidden", vectors=[direction(1, 1, 0), direction(1, 0, 0), direction(0, 1, 0)]
    )

    assert order(rank([near, hidden])) == ["near:0", "hidden:0"]
    assert order(rank([near, hidden], weights=LightWeights(feedback=0))) == ["hidden:0", "near:0"]


def test_a_passage_without_vectors_keeps_what_the_fusion_knew():
    said = rank([candidate("old", vector=42.0)], weights=LightWeights())["old:0"]

    assert said["vector"] + said["windows"] == pytest.approx(42)


def test_feedback_lifts_what_is_like_the_first():
    first = candidate("first", vectors=[direction(10, 4, 0)])
    alike = candidate("alike", vectors=[direction(10, 11, 0)])
    other = candidate("other", vectors=[direction(10, -10.5, 0)])
    candidates = [other, first, alike]

    assert order(rank(candidates)) == ["first:0", "other:0", "alike:0"]
    weights = LightWeights(windows=0, bm25=0, coverage=0, phrase=0, feedback=0.5)
    assert order(rank(candidates, weights=weights)) == ["first:0", "alike:0", "other:0"]


def test_headings_and_title_are_read_too():
    passage = Passage(
        chunk=Chunk(document_id="a", position=0, text="六百元", start=0, end=3, headings=("差旅",)),
        title="",
        source="",
        metadata={},
        revision=1,
    )
    weights = LightWeights(windows=0, bm25=0, coverage=2, phrase=0, feedback=0)

    said = rank([Candidate(passage=passage, fused={"bm25": 0, "vector": 0})], weights=weights)

    assert said["a:0"]["coverage"] == pytest.approx(2)


def test_nothing_to_rank_is_no_trouble():
    assert rank([], weights=LightWeights()) == {}


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"windows": 1.5}, "light.windows"),
        ({"coverage": -1.0}, "light.coverage"),
        ({"phrase": float("nan")}, "light.phrase"),
        ({"feedback": 2.0}, "light.feedback"),
    ],
)
def test_weights_out_of_range_are_refused(values, field):
    with pytest.raises(InvalidInput) as caught:
        LightWeights(**values)

    assert caught.value.field == field
