"""Judgements of hits and answers: durable, bounded, the newest of the same counts."""

import threading
from collections.abc import Iterator

import pytest

from server.errors import CollectionNotFound, InvalidInput
from server.feedback import AnswerJudgement, Feedback, HitJudgement
from server.recipes import Recipe
from server.stores.contract import Store

C = "c"
RECIPE = Recipe(embedder="", dimensions=0, analyzer="test", chunker="test")


@pytest.fixture
def feedback(store: Store) -> Iterator[Feedback]:
    store.create_collection(C, recipe=RECIPE)
    yield Feedback(store.notes)
    store.delete_collection(C)


def judge(feedback: Feedback, query: str, document_id: str, grade: int) -> None:
    feedback.judge(C, HitJudgement(query=query, document_id=document_id, grade=grade))


def grades(feedback: Feedback) -> dict[str, dict[str, int]]:
    """Query → document → grade."""
    found = feedback.judgements(C)
    assert found.queries.keys() == found.qrels.keys()
    return {found.queries[key]: dict(found.qrels[key]) for key in found.qrels}


def test_the_newest_judgement_of_a_query_and_document_counts(feedback: Feedback) -> None:
    judge(feedback, "差旅報銷", "a", 3)
    judge(feedback, "差旅报销", "b", -1)
    judge(feedback, "vpn", "a", 1)
    assert grades(feedback) == {"差旅报销": {"a": 3, "b": 0}, "vpn": {"a": 1}}
    judge(feedback, " 差旅  报销", "a", 3)  # another query: its blank parts words
    judge(feedback, "差旅報銷", "a", 0)
    assert grades(feedback)["差旅報銷"] == {"a": 0, "b": 0}
    assert len(grades(feedback)) == 3


def test_answers_are_judged_once_each(feedback: Feedback) -> None:
    for verdict, comment in (("bad", "old version"), ("good", "")):
        made = AnswerJudgement(answer_id="x", question="q", verdict=verdict, comment=comment)
        feedback.judge_answer(C, made)
    feedback.judge_answer(C, AnswerJudgement(answer_id="y", question="q", verdict="bad"))
    assert {(each.answer_id, each.verdict) for each in feedback.answers(C)} == {
        ("x", "good"),
        ("y", "bad"),
    }
    assert grades(feedback) == {}


def test_all_is_forgotten_on_request_and_with_the_collection(
    feedback: Feedback, store: Store
) -> None:
    judge(feedback, "a", "a", 1)
    feedback.judge_answer(C, AnswerJudgement(answer_id="x", question="q", verdict="good"))
    assert feedback.forget(C) == 2
    assert (feedback.hits(C), feedback.answers(C)) == ([], [])
    judge(feedback, "b", "a", 1)
    store.delete_collection(C)
    with pytest.raises(CollectionNotFound):
        feedback.hits(C)
    store.create_collection(C, recipe=RECIPE)
    assert feedback.hits(C) == []


def test_judgements_at_once_are_all_kept(feedback: Feedback, store: Store) -> None:
    def give(number: int) -> None:
        mine = Feedback(store.notes)  # as another process has it
        for document in range(5):
            judge(mine, "the same query", f"{number}-{document}", 1)

    threads = [threading.Thread(target=give, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(grades(feedback)["the same query"]) == 20


def test_they_are_bounded_and_the_oldest_go(feedback: Feedback, store: Store) -> None:
    small = Feedback(store.notes, buckets=2, per_bucket=5)
    for number in range(30):
        judge(small, f"query {number}", "a", 1)
    kept = grades(feedback)
    assert len(kept) == 10
    assert "query 29" in kept
    assert "query 0" not in kept


@pytest.mark.parametrize(
    "wrong",
    [
        {"query": " "},
        {"query": "a\x00"},
        {"query": "长" * 2_001},
        {"document_id": ""},
        {"document_id": "a/../b"},
        {"grade": 4},
        {"grade": -2},
    ],
)
def test_what_is_wrong_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        HitJudgement(**{"query": "q", "document_id": "a", "grade": 1, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [{"answer_id": " "}, {"answer_id": "x" * 101}, {"comment": "c" * 1_001}, {"verdict": "so so"}],
)
def test_what_is_wrong_of_an_answer_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        AnswerJudgement(**{"answer_id": "x", "question": "q", "verdict": "good", **wrong})  # type: ignore[arg-type]
