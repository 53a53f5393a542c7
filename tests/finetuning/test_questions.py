import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.documents import Chunk
from server.errors import InvalidInput
from server.finetuning import sources
from server.finetuning.corpus import Corpus, Piece
from server.finetuning.finetuner import Wanted
from server.finetuning.questions import Question, counts, merged
from server.finetuning.split import LEAST, split
from server.finetuning.training import Options
from server.stores.contract import OwnedChunk


def asked(text, source="judged", passages=(), **grades):
    return Question(text=text, source=source, grades=grades, passages=passages)


def test_the_same_question_counts_once_and_people_prevail():
    found = merged(
        [
            asked("差旅 标准", "titles", ("a:0",), a=1),
            asked("差旅　标准", "feedback", b=2, a=0),
            asked("別的", "judged", c=1),
            asked("别的", "judged", d=1),
            asked("没有答案", "feedback", a=0),
        ]
    )
    assert [(each.source, dict(each.grades), each.passages) for each in found] == [
        ("feedback", {"a": 0, "b": 2}, ()),
        ("judged", {"c": 1, "d": 1}, ()),
    ]
    assert counts(found) == {"feedback": 1, "judged": 1}


def test_passages_of_one_title_stay_together():
    (found,) = merged([asked("标题", "titles", (f"a:{at}",), a=1) for at in range(3)])
    assert found.passages == ("a:0", "a:1", "a:2")


def test_titles_ask_for_passages_that_don_t_hold_them(corpus):
    questions = list(sources.titles(corpus))
    assert {each.text for each in questions} >= {"报销管理规定第1版 第1章 报销的申请"}
    for question in questions:
        (chunk_id,) = question.passages
        bare = corpus.pieces[chunk_id].bare
        assert len(bare) >= 20
        assert "第1章" not in bare
        assert corpus.pieces[chunk_id].chunk.headings[-1] not in bare


def test_headings_alone_leave_nothing_bare():
    chunk = Chunk(document_id="a", position=0, text="# 标题\n\n## 小节\n", start=0, end=11)
    assert Piece(chunk, "标题").bare == "## 小节"
    assert Piece(Chunk(document_id="a", position=0, text="标题", start=0, end=2), "标题").bare == ""


def test_judgements_of_documents_that_are_gone_are_left_out(corpus):
    queries = {"1": "报销怎么办", "2": "没有的", "3": " "}
    qrels = {
        "1": {"报销-1": 2, "gone": 1, "年假-1": -1},
        "2": {"gone": 1},
        "3": {"报销-1": 1},
    }
    (found,) = sources.judged(queries, qrels, corpus, source="judged")
    assert found.grades == {"报销-1": 2, "年假-1": 0}


NAMES = st.sampled_from([f"d{number}" for number in range(40)])


def pieces(text_of=lambda name: name * 30):
    return Corpus(
        OwnedChunk(
            chunk=Chunk(document_id=name, position=0, text=text_of(name), start=0, end=1),
            title="",
            acl=(),
        )
        for name in (f"d{number}" for number in range(40))
    )


@given(
    st.lists(st.sets(NAMES, min_size=1, max_size=3), min_size=LEAST, max_size=60),
    st.floats(0.1, 0.9),
    st.integers(0, 5),
)
def test_no_document_is_on_both_sides(relevant, share, seed):
    questions = [
        Question(text=f"q{number}", source="judged", grades=dict.fromkeys(sorted(names), 1))
        for number, names in enumerate(relevant)
    ]
    try:
        found = split(questions, pieces(), share=share, seed=seed)
    except InvalidInput:
        return
    trained = {key for each in found.train for key in each.relevant}
    assert trained.isdisjoint(found.documents)
    assert found.documents == {key for each in found.held_out for key in each.relevant}
    assert len(found.held_out) >= LEAST
    assert len(found.train) + len(found.held_out) + found.leaking == len(questions)
    assert split(questions, pieces(), share=share, seed=seed) == found


def test_a_copy_of_a_held_out_passage_is_not_trained_on():
    corpus = pieces(lambda name: "同一段话" if name in {"d0", "d1"} else name)
    questions = [
        asked(f"q{number}", "judged", (f"d{number}:0",), **{f"d{number}": 1})
        for number in range(40)
    ]
    for seed in range(4):
        found = split(questions, corpus, share=0.5, seed=seed)
        sides = ["d0" in found.documents, "d1" in found.documents]
        assert found.leaking == int(sum(sides) == 1)
        assert sum("d0" in q.grades or "d1" in q.grades for q in found.train) == (
            0 if any(sides) else 2
        )


def test_titles_are_measured_by_only_where_there_are_too_few_questions():
    titles = [
        asked(f"t{number}", "titles", (f"d{number}:0",), **{f"d{number}": 1})
        for number in range(40)
    ]
    few = [asked(f"q{number}", "judged", **{f"d{number}": 1}) for number in range(8)]
    many = [asked(f"q{number}", "judged", **{f"d{number}": 1}) for number in range(30)]
    assert counts(split(titles + few, pieces(), share=0.5, seed=1).held_out) == {"titles": 20}
    assert counts(split(titles + many, pieces(), share=0.5, seed=1).held_out) == {"judged": 15}


def test_too_few_to_tell_a_gain_is_an_error():
    with pytest.raises(InvalidInput, match="--written"):
        split([asked("q", d1=1)], pieces(), share=0.5, seed=1)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Options(rate=0),
        lambda: Options(rate=float("nan")),
        lambda: Options(batch=1),
        lambda: Options(negatives=0),
        lambda: Options(epochs=0),
        lambda: Options(max_tokens=9_000),
        lambda: Wanted(share=1),
        lambda: Wanted(written=-1),
        lambda: Wanted(pool=1),
    ],
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(InvalidInput):
        wrong()
