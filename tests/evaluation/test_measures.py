import json
import math

import pytest

from server.errors import InvalidInput
from server.evaluation.dataset import Dataset, load_qrels
from server.evaluation.measures import measure, measure_each
from tests.evaluation import builders


def test_measures_by_hand():
    qrels = {"q1": {"a": 2, "b": 1}, "q2": {"z": 1}}
    run = {"q1": {"x": 1.0, "a": 0.5, "b": 0.4}}

    figures = measure(qrels, run)

    ideal = 2 + 1 / math.log2(3)
    ndcg = (2 / math.log2(3) + 1 / math.log2(4)) / ideal
    assert figures == {
        "nDCG@10": pytest.approx(ndcg / 2),
        "MRR@10": pytest.approx(0.25),
        "Recall@10": pytest.approx(0.5),
        "Recall@100": pytest.approx(0.5),
    }
    assert measure_each(qrels, run)["MRR@10"] == {"q1": 0.5, "q2": 0.0}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "corpus.jsonl").write_text(
        json.dumps({"_id": "a", "title": "标题", "text": "正文"}) + "\n", encoding="utf-8"
    )
    (tmp_path / "queries.jsonl").write_text(
        json.dumps({"_id": "q1", "text": "问题"}) + "\n" + json.dumps({"_id": "q2", "text": "无"}),
        encoding="utf-8",
    )
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\ta\t1\n", encoding="utf-8")
    return tmp_path


def test_only_judged_queries_count(folder):
    dataset = Dataset.load(folder)

    assert dataset.queries == {"q1": "问题"}
    assert dataset.qrels == {"q1": {"a": 1}}
    (document,) = dataset.documents()
    assert (document.id, document.title, document.text) == ("a", "标题", "正文")


def test_trec_qrels_are_read_too(tmp_path):
    path = tmp_path / "qrels.txt"
    path.write_text("q1 0 a 2\nq1 0 b 0\n", encoding="utf-8")

    assert load_qrels(path) == {"q1": {"a": 2, "b": 0}}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("queries.jsonl", "{broken", "line 1"),
        ("queries.jsonl", '{"_id": "q9", "text": "x"}', "judgement"),
        ("qrels.tsv", "a\tb\tscore\nq1\ta\tmany\n", "line 2"),
        ("qrels.tsv", "", "no judgement"),
    ],
)
def test_broken_data_is_named(folder, name, content, said):
    (folder / name).write_text(content, encoding="utf-8")

    with pytest.raises(InvalidInput, match=said):
        Dataset.load(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"qrels\.tsv"):
        Dataset.load(tmp_path / "none")


def test_files_of_queries_and_qrels_are_enough_without_a_corpus(folder):
    queries, qrels = folder / "queries.jsonl", folder / "qrels.tsv"

    dataset = Dataset.load(queries=queries, qrels=qrels)

    assert dataset.queries == {"q1": "问题"}
    assert dataset.name == "queries.jsonl"
    with pytest.raises(InvalidInput, match="no corpus"):
        list(dataset.documents())
    for one in ({"queries": queries}, {"qrels": qrels}, {}):
        with pytest.raises(InvalidInput, match="BEIR form"):
            Dataset.load(**one)


def test_the_first_queries_only(folder):
    (folder / "qrels.tsv").write_text("q2\ta\t1\nq1\ta\t1\n", encoding="utf-8")
    dataset = Dataset.load(folder)

    assert dataset.first(1).queries == {"q2": "无"}
    assert dataset.first(1).qrels.keys() == {"q2"}
    assert dataset.first(None) is dataset
    with pytest.raises(InvalidInput, match="At least one"):
        dataset.first(0)


def test_only_grades_above_0_are_relevant():
    assert builders.dataset({"q": {"a": 2, "b": 0, "c": -1, "d": 1}}).relevant("q") == {"a", "d"}
