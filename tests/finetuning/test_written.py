import pytest

from server.errors import GeneratorUnavailable
from server.finetuning.answers import Answers
from server.finetuning.written import flaw, lines, write
from tests.answering.test_answerer import ScriptedGenerator


@pytest.fixture
def answers(tmp_path):
    return Answers(tmp_path / "finetuning" / "default.jsonl")


def written(searcher, corpus, generator, answers, passages=3):
    told = []
    found = write(
        generator,
        searcher,
        "default",
        corpus,
        passages=passages,
        seed=1,
        answers=answers,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(number, passages) for number in range(1, passages + 1)]
    return found


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("1. 谁来审批？\n2、逾期怎么办?\n3. 还有呢？", ["谁来审批？", "逾期怎么办?"]),
        ("好的，以下是问题：\n- “报销找谁？”\n答案：专员", ["报销找谁？"]),
        ("", []),
        ("no question at all", []),
    ],
)
def test_questions_are_the_lines_that_end_as_such(answer, found):
    assert list(lines(answer)) == found


def test_flaws_are_named(corpus):
    piece = corpus.pieces["报销-1:0"]
    assert flaw("报销要找哪个部门办？", piece) == ""
    assert flaw("谁？", piece) == "too short or too long"
    assert flaw("多长" * 200 + "？", piece) == "too short or too long"
    assert flaw("本文规定了哪些内容？", piece) == "points at the text"
    assert flaw("What does the document say?", piece) == "points at the text"
    assert flaw(piece.bare[:12] + "？", piece) == "copied from the passage"


def test_questions_that_search_answers_with_the_passage_are_kept(searcher, corpus, answers):
    class Asking(ScriptedGenerator):
        """Asks for what the passage's title says."""

        def stream(self, messages, *, max_tokens):
            self.prompts.append(messages)
            title = messages[-1].content.split(" > ")[0]
            yield f"1. 请问{title}里谁负责办理？\n"
            yield "2. zzz qqq xyzzy？"

    generator = Asking()
    found = written(searcher, corpus, generator, answers)
    assert len(found.questions) == 3
    for question in found.questions:
        (chunk_id,) = question.passages
        assert question.grades == {corpus.pieces[chunk_id].chunk.document_id: 1}
        assert corpus.pieces[chunk_id].title in question.text
    assert sum(found.refused.values()) == 3
    assert "问号结尾" in generator.prompts[0][0].content  # in the passage's language


def test_the_same_question_is_not_asked_twice(searcher, corpus, answers):
    generator = ScriptedGenerator("报销管理规定由谁办理？\n")
    found = written(searcher, corpus, generator, answers, passages=20)
    assert len(found.questions) <= 1
    assert found.refused.keys() <= {"asked before", "not found by search"}


def test_a_generator_that_is_gone_is_an_error(searcher, corpus, answers):
    gone = ScriptedGenerator(fails=GeneratorUnavailable("Ollama is gone."))
    with pytest.raises(GeneratorUnavailable):
        written(searcher, corpus, gone, answers)


def test_a_run_that_was_cut_off_does_not_ask_again(searcher, corpus, tmp_path):
    file = tmp_path / "finetuning" / "default.jsonl"
    first = ScriptedGenerator("报销管理规定由谁办理？\n")
    found = written(searcher, corpus, first, Answers(file), passages=3)
    assert len(first.prompts) == 3
    assert file.stat().st_mode & 0o077 == 0
    with file.open("a") as stream:
        stream.write('{"key": "of a passage that is gone", "text": "Q?"}\n{"key": "cut o')
    again = ScriptedGenerator("报销管理规定由谁办理？\n")
    assert written(searcher, corpus, again, Answers(file), passages=4).questions == found.questions
    assert len(again.prompts) == 1
    assert "gone" not in file.read_text()
    assert len(file.read_text().splitlines()) == 4
