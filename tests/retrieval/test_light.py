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


QUERY = direction(1, 0, 0)


def candidate(name, text="", whole=None, windows=None, *, bm25=0.0):
    """``whole``: the passage's own vector, of which the ranker knows the cosine alone."""
    passage = Passage(
        chunk=Chunk(document_id=name, position=0, text=text, start=0, end=len(text)),
        title="",
        source="",
        metadata={},
        revision=1,
        windows=None if windows is None else np.stack(windows),
    )
    cosine = 0.0 if whole is None else float(whole @ QUERY)
    return Candidate(passage=passage, fused={"bm25": bm25, "vector": 100 * cosine})


def rank(candidates, query="差旅", weights=NOTHING):
    analysis = ANALYZER.analyze(query)
    counts = {name: dict.fromkeys(terms, 5) for name, terms in query_terms(analysis).items()}
    ranker = LightRanker(
        weights=weights,
        terms=QueryTerms.of(analysis, Frequencies(chunks=100, of=counts)),
        worth=Worth(bm25=1, vector=100),
        vector=QUERY,
        analyzer=ANALYZER,
    )
    return ranker.rank(candidates)


def order(said):
    return sorted(said, key=lambda chunk_id: -sum(said[chunk_id].values()))


def test_evidence_is_told_by_kind_and_sums_to_the_score():
    weights = LightWeights(windows=0.5, bm25=0.5, coverage=2, phrase=4, feedback=0)
    windows = [direction(1, 0, 0), direction(0, 0, 1)]
    passage = candidate("a", "差旅", direction(3, 4, 0), windows, bm25=6)

    said = rank([passage], weights=weights)["a:0"]

    assert said == pytest.approx(
        {"vector": 60, "windows": 20, "bm25": 3, "coverage": 2, "phrase": 4}, abs=1e-4
    )


def test_the_best_window_can_lift_a_passage_over_one_that_is_nearer_as_a_whole():
    near = candidate("near", whole=direction(3, 2, 0))
    windows = [direction(1, 0, 0), direction(0, 1, 0)]
    hidden = candidate("hidden", whole=direction(1, 1, 0), windows=windows)

    assert order(rank([near, hidden])) == ["near:0", "hidden:0"]
    assert order(rank([near, hidden], weights=LightWeights(feedback=0))) == ["hidden:0", "near:0"]


def test_a_passage_without_windows_keeps_what_the_fusion_knew():
    said = rank([candidate("short", whole=direction(3, 4, 0))], weights=LightWeights())["short:0"]

    assert said["vector"] == pytest.approx(60, abs=1e-4)
    assert said["windows"] == said.get("feedback", 0) == 0


def test_feedback_lifts_what_is_like_the_first():
    def passage(name, *window):
        return candidate(name, windows=[direction(*window), direction(0, 0, 1)])

    candidates = [
        passage("other", 10, -10.5, 0),
        passage("first", 10, 4, 0),
        passage("alike", 10, 11, 0),
    ]

    only_windows = {"windows": 1, "bm25": 0, "coverage": 0, "phrase": 0}
    apart = rank(candidates, weights=LightWeights(**only_windows, feedback=0))
    drawn = rank(candidates, weights=LightWeights(**only_windows, feedback=0.5))
    assert order(apart) == ["first:0", "other:0", "alike:0"]
    assert order(drawn) == ["first:0", "alike:0", "other:0"]


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
