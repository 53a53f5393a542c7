"""The report: its figures by hand, and as text, JSON and a page."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import InvalidInput
from server.evaluation import charts
from server.evaluation.evidence import latencies, overlaps, score_distributions
from server.evaluation.page import as_html
from server.evaluation.report import make_report
from server.evaluation.runs import Ranking
from server.evaluation.table import as_text
from tests.evaluation.builders import dataset, run

JUDGED = dataset(
    {"q1": {"a": 1}, "q2": {"b": 1, "c": 1}, "q3": {"z": 1}},
    {"q1": "年假几天", "q2": "报销流程", "q3": "<script>alert('x')</script> & \"q\""},
)
STAGES = {
    "bm25": run(q1=["a", "x"], q2=["x", "b"], q3=["x"]),
    "vector": run(q1=["x", "a"], q2=["b", "c"], q3=[]),
    "fused": run(q1=["a", "x"], q2=["b", "c", "x"], q3=["x"]),
}
ABOUT = {"data": "made", "collection": "c", "models": {"embedder": "e5"}, "queries": 3}
TOOK = {"search": [10.0, 20.0, 90.0], "embed": [5.0, 6.0, 7.0]}


def report(**changes):
    return make_report(JUDGED, **{"stages": STAGES, "about": ABOUT, "took": TOOK, **changes})


def test_the_last_stage_is_compared_with_the_better_leg_first():
    found = report()

    assert found.final == "fused"
    assert [each.baseline for each in found.comparisons] == ["vector", "bm25"]
    assert found.means["bm25"]["MRR@10"] == pytest.approx((1 + 0.5) / 3)
    assert found.means["fused"]["MRR@10"] == pytest.approx(2 / 3)
    by_mrr = report(measure="MRR@10", against=["bm25"])
    assert by_mrr.comparisons[0].deltas == pytest.approx({"q1": 0, "q2": 0.5, "q3": 0})
    assert found.worst()[0] == "q3"


def test_a_run_from_elsewhere_is_measured_and_compared():
    found = report(baselines={"old.trec": run(q1=["a"], q2=["b"])})

    assert [each.baseline for each in found.comparisons] == ["old.trec"]
    assert found.means["old.trec"]["Recall@10"] == pytest.approx((1 + 0.5) / 3)
    assert found.places("q3") == {
        "z": {"bm25": None, "vector": None, "fused": None, "old.trec": None}
    }


def test_a_run_of_other_queries_is_refused():
    with pytest.raises(InvalidInput, match=r"old\.trec has none of the judged queries"):
        report(baselines={"old.trec": run(q9=["a"])})


@pytest.mark.parametrize("name", ["nothing", "fused"])
def test_only_other_runs_can_be_compared_with(name):
    with pytest.raises(InvalidInput, match=r"bm25, vector\."):
        report(against=[name])


def test_ranks_of_relevant_documents_stand_by_run_the_best_found_first():
    assert report().places("q2") == {
        "b": {"bm25": 2, "vector": 1, "fused": 1},
        "c": {"bm25": None, "vector": 2, "fused": 2},
    }


def test_overlap_and_where_the_relevant_documents_are():
    ten, hundred = overlaps(JUDGED, STAGES)

    assert (ten.first, ten.second, ten.depth, hundred.depth) == ("bm25", "vector", 10, 100)
    assert ten.shared == pytest.approx((1 + 0.5 + 0) / 3)
    assert (ten.both, ten.only_first, ten.only_second, ten.neither) == (2, 0, 1, 1)
    assert overlaps(JUDGED, {"bm25": STAGES["bm25"]}) == []


def test_scores_are_counted_apart_for_relevant_documents_and_others():
    bm25, vector, _ = score_distributions(JUDGED, STAGES)

    assert (bm25.low, bm25.high) == (9.0, 10.0)
    assert (bm25.relevant[0], bm25.relevant[-1], bm25.others[0], bm25.others[-1]) == (1, 1, 1, 2)
    assert (sum(vector.relevant), vector.relevant_median, vector.others_median) == (3, 9.0, 10.0)
    unscored = {key: Ranking(ranking.documents) for key, ranking in STAGES["bm25"].items()}
    assert score_distributions(JUDGED, {"run": unscored}) == []


def test_latency_is_that_of_the_queries_that_had_the_part():
    search, embed = latencies(TOOK)

    assert (search.part, search.median, search.longest) == ("search", 20.0, 90.0)
    assert 20 < search.p95 <= 90
    assert embed.median == 6.0


def test_json_has_the_last_stage_on_top_and_everything_below():
    found = json.loads(json.dumps(report().as_dict(), allow_nan=False))

    assert found["data"] == "made"
    assert found["MRR@10"] == found["stages"]["fused"]["MRR@10"] == 0.6667
    assert [each["better"] for each in found["comparisons"]] == [1, 1]
    second = found["per_query"][1]
    assert (second["id"], second["text"], second["ranks"]["c"]["vector"]) == ("q2", "报销流程", 2)
    assert second["deltas"]["bm25"] > 0


def test_the_table_names_stages_comparisons_times_and_queries():
    text = as_text(report())

    assert re.search(r"^MRR@10 +0\.6667$", text, re.MULTILINE)
    assert re.search(r"^models +embedder e5$", text, re.MULTILINE)
    assert re.search(r"^vector +\d\.\d{4} +0\.5000 ", text, re.MULTILINE)
    assert re.search(r"^fused against vector +\+0\.\d{4} .* 1 +2 +0$", text, re.MULTILINE)
    assert re.search(r"^search +20\.0 +\d+\.\d +90\.0$", text, re.MULTILINE)
    assert re.search(r"^\+0\.\d{4}  q1  1 · 2 · 1  年假几天$", text, re.MULTILINE)


def test_one_stage_alone_shows_its_worst_queries():
    text = as_text(make_report(JUDGED, {"mine.trec": STAGES["bm25"]}, about=ABOUT))

    assert "against" not in text
    assert re.search(r"^\+?0\.0000  q3", text, re.MULTILINE)


HOSTILE = "</style><img src=//evil.example onerror=alert(1)>"


def test_a_page_holds_nothing_that_runs_or_is_fetched():
    judged = dataset({HOSTILE: {HOSTILE: 1}, "q": {"a": 1}}, {HOSTILE: HOSTILE, "q": HOSTILE})
    stages = {
        "bm25": run(**{HOSTILE: ["x"], "q": ["a"]}),
        HOSTILE: run(**{HOSTILE: [HOSTILE], "q": ["a"]}),
    }

    html = as_html(make_report(judged, stages, about={"data": HOSTILE, "profile": {HOSTILE: 1}}))

    assert "<img" not in html
    assert html.count("</style>") == 1
    assert re.findall(r"<script|<link|<iframe|@import|url\(|https?://", html) == []
    assert "&lt;img src=//evil.example onerror=alert(1)&gt;" in html


def test_the_page_shows_what_there_is():
    whole, alone = (
        as_html(found)
        for found in (
            report(),
            make_report(JUDGED, {"mine.trec": run(q1=["a"])}, about=ABOUT),
        )
    )

    for heading in (
        "Stages",
        "more than chance",
        "Query by query",
        "each leg",
        "Scores",
        "Time of",
    ):
        assert heading in whole
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in whole
    assert "Lowest nDCG@10" in alone
    for heading in ("more than chance", "Query by query", "each leg", "Time of"):
        assert heading not in alone


# Shapes --------------------------------------------------------------------------------------------

DELTAS = st.lists(st.floats(-1, 1, width=16), max_size=50)


@settings(max_examples=50)
@given(DELTAS)
def test_bars_stay_in_their_box(deltas):
    drawn = charts.gains(deltas)

    assert 0 <= drawn.zero <= charts.HEIGHT
    for path in (drawn.gained, drawn.lost):
        for letter, number in re.findall(r"([HV])(-?[\d.]+)", path):
            assert (
                -0.01 <= float(number) <= (charts.WIDTH if letter == "H" else charts.HEIGHT) + 0.01
            )
    assert bool(drawn.gained) == any(delta > 0 for delta in deltas)
    assert bool(drawn.lost) == any(delta < 0 for delta in deltas)


def test_like_neighbours_are_one_step():
    assert (
        charts.steps([1.0, 1.0, 3.0], width=10, base=5)
        == "M0.00 5.00H0.00V1.00H20.00V3.00H30.00V5.00Z"
    )


def test_parts_of_a_bar_lie_side_by_side():
    one, other = charts.stacked([("in both", "both", 3), ("in neither", "neither", 1)])

    assert (one.x, one.width, one.share) == (0, 750, 0.75)
    assert (other.x, other.width) == (750, 250)
    assert [part.width for part in charts.stacked([("a", "a", 0), ("b", "b", 0)])] == [0, 0]
