"""TREC runs, out and in."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import InvalidInput
from server.evaluation.measures import measure
from server.evaluation.runs import Ranking, as_run, read_trec, write_runs, write_trec
from tests.evaluation.builders import run

ids = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=8)


def test_runs_are_written_in_trec_format(tmp_path):
    path = tmp_path / "run.txt"

    write_trec(run(q1=["a", "b"]), path, tag="t")

    assert path.read_text().splitlines() == [
        "q1 Q0 a 1 1.000000000 t",
        "q1 Q0 b 2 0.500000000 t",
    ]
    with pytest.raises(InvalidInput, match="white space"):
        write_trec(run(q1=["a b"]), path, tag="t")


@settings(max_examples=20)
@given(st.dictionaries(ids, st.lists(ids, unique=True, min_size=1, max_size=20), min_size=1))
def test_a_run_comes_back_in_its_order(tmp_path_factory, documents):
    path = tmp_path_factory.mktemp("runs") / "run.trec"

    write_trec({key: Ranking(tuple(ranked)) for key, ranked in documents.items()}, path, tag="t")

    found = {key: list(ranking.documents) for key, ranking in read_trec(path).items()}
    assert found == documents


def test_order_is_by_score_with_ties_as_trec_eval_has_them(tmp_path):
    path = tmp_path / "run.trec"
    path.write_text("q1\tQ0\ta\t1\t0.5\tx\nq1 Q0 b 2 0.5 x\n\nq1 Q0 c 3 7e-1 x\n", encoding="utf-8")

    ranking = read_trec(path)["q1"]

    assert ranking.documents == ("c", "b", "a")
    assert ranking.scores == (0.7, 0.5, 0.5)
    assert (ranking.rank("a"), ranking.rank("z")) == (3, None)
    raw = {"q1": {"a": 0.5, "b": 0.5, "c": 0.7}}
    for document in raw["q1"]:
        qrels = {"q1": {document: 1}}
        ours, theirs = measure(qrels, as_run({"q1": ranking})), measure(qrels, raw)
        assert ours["nDCG@10"] == theirs["nDCG@10"]  # trec_eval's own; MRR@10 isn't


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"q1 Q0 a 1 0.5 x\nq1 a 2 0.4\n", "line 2: expected six columns"),
        (b"q1 Q0 a 1 high x\n", "line 1: expected six columns"),
        (b"q1 Q0 a 1 nan x\n", "no finite number"),
        (b"q1 Q0 a 1 inf x\n", "no finite number"),
        (b"q1 Q0 a 1 2 x\nq1 Q0 a 2 1 x\n", "line 2: document a stands twice"),
        (b"\n", "no ranked document"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_a_broken_run_is_named(tmp_path, content, said):
    path = tmp_path / "run.trec"
    path.write_bytes(content)

    with pytest.raises(InvalidInput, match=said):
        read_trec(path)


def test_files_that_can_not_be_used_are_named(tmp_path):
    with pytest.raises(InvalidInput, match="can't be read"):
        read_trec(tmp_path / "none")
    with pytest.raises(InvalidInput, match="can't be written"):
        write_trec(run(q1=["a"]), tmp_path / "none" / "run", tag="t")
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="can't be made"):
        write_runs({}, tmp_path / "file" / "folder")
