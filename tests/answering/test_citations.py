import pytest

from server.answering.citations import cite, marked_numbers, sentences_of
from tests.answering.test_prompt import hit

SOURCES = [hit(number, f"内容{number}。") for number in range(1, 4)]
ALL = ("d1:0", "d2:0", "d3:0")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("上限 500 元[1]。", [1]),
        ("a [2][1] b [2]", [2, 1]),
        ("见【1】和［3］", [1, 3]),
        ("[1, 2]、[2，3]", [1, 2, 3]),
        ("array[0] x[1234] [a] []", [0]),
        ("没有", []),
    ],
)
def test_markers_of_both_writings_are_found(text, numbers):
    assert marked_numbers(text) == numbers


def test_only_sources_in_the_prompt_are_cited():
    cited = cite("甲[1] 乙[2] 丙[3] 丁[9] 戊[0]", SOURCES, ("d1:0", "d3:0"))

    assert [(citation.number, citation.chunk_id) for citation in cited] == [
        (1, "d1:0"),
        (3, "d3:0"),
    ]
    assert cited[0].quote == "内容1。"


def test_each_sentence_has_its_citations():
    answer = "住宿上限 500 元。[1] 餐费 100 元[2]。没有来源的一句。"

    sentences = sentences_of(answer, cite(answer, SOURCES, ALL))

    assert [(sentence.citations, sentence.verdict) for sentence in sentences] == [
        ((1,), None),
        ((2,), None),
        ((), "uncited"),
    ]
    assert sentences[0].text.endswith("[1]")


def test_an_empty_answer_has_no_sentences():
    assert sentences_of("", ()) == ()
