"""Sentence windows: what a chunk's text is cut into for a closer look."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from server.documents import Chunk, passage_text
from server.ingest.windows import MAX_WINDOWS, WINDOW, passages_of, windows

LEAVE = "员工每年享有十五天带薪年假，入职满一年以后方可申请。"
APPLY = "申请年假应当提前三个工作日在系统里提交，由直属上级审批。"
ILL = "病假需要医院证明。"
texts = st.lists(
    st.sampled_from(
        (LEAVE, APPLY, ILL, "Short. ", "\n\n", " ", "A sentence of some words. ", "图", "x")
    )
).map("".join) | st.text(max_size=300)


def test_sentences_are_joined_as_far_as_they_fit() -> None:
    assert windows(LEAVE + APPLY + ILL) == (LEAVE, APPLY + ILL)
    english = [f"This is the sentence number {n} about it." for n in range(8)]
    assert windows(" ".join(english)) == (
        " ".join(english[:4]),
        " ".join(english[4:]),
    )


def test_a_short_sentence_joins_the_next() -> None:
    assert windows(LEAVE + "第二条\n" + APPLY) == (LEAVE, "第二条\n" + APPLY)


def test_a_long_sentence_stands_alone() -> None:
    long = "很" * (3 * WINDOW) + "长。"
    assert windows(LEAVE + long + APPLY) == (LEAVE, long, APPLY)


def test_a_chunk_that_is_one_window_has_none() -> None:
    assert windows("") == windows(" \n") == windows(LEAVE) == windows(LEAVE + ILL) == ()
    assert windows(LEAVE * 5) == ()  # the same again says no more
    assert windows("字" * 5_000) == ()


def test_past_the_most_neighbours_are_joined_evenly() -> None:
    sentences = [
        f"第{n:04}条规定员工出差期间的住宿与交通费用如何申请如何审批如何报销。" for n in range(300)
    ]
    found = windows("".join(sentences))
    assert len(found) == MAX_WINDOWS
    assert "".join(found) == "".join(sentences)
    assert {window.count("条规定") for window in found} == {4, 5}


@given(texts)
def test_windows_are_the_text_in_order(text: str) -> None:
    found = windows(text)
    assert len(found) != 1
    assert len(found) <= MAX_WINDOWS
    assert len(set(found)) == len(found)
    starts = [text.find(window) for window in found]
    assert -1 not in starts
    assert all(window == window.strip() != "" for window in found)
    if text.count(LEAVE) + text.count(APPLY) + text.count(ILL) <= 1:  # else one may stand twice
        assert all(one <= other for one, other in pairwise(starts))


@given(texts, st.text(max_size=20))
def test_every_passage_has_a_key_of_its_own(text: str, title: str) -> None:
    chunk = Chunk(document_id="a", position=0, text=text, start=0, end=len(text), headings=("节",))
    own = passage_text(title, ("节",), text)
    assert passages_of(title, chunk, windowed=False) == {own: own}
    found = passages_of(title, chunk, windowed=True)
    assert next(iter(found.items())) == (own, own)
    assert list(found.values())[1:] == [
        passage_text(title, ("节",), each) for each in windows(text)
    ]
