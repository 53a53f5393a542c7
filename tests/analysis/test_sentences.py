from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.analysis.sentences import split_sentences


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


@pytest.mark.parametrize(
    "text",
    [
        # "|" marks the borders that are to be found.
        "他说：“明天见。”|然后走了！|真的？！|是的……|好；|行。",
        "（见附件。）|第1.2节规定，报销标准为3.5万元。|请参照v2.3.1。",
        "See e.g. the v2.3.1 notes.| Dr. Smith paid $3.5 million.| He left!| Really?| Yes.",
        'He said "Stop."| Then (later.)| Nobody moved.',
        "J. R. Smith came at 5 p.m. on Jan. 3.| The U.S. Army left.",
        "See fig. 3 and no. 5.| The answer is no.| Next one.",
        "1. First item.| More.|\n2. Second|\n- third|\n\n* fourth",
        "标题|\n正文第一句。|第二句|\r\n第三句",
        "Use Node.js at example.com/a.html now.| 中文句子。|Mixed ok!| 好的",
        "版本 3.5.2 已发布.| 请升级.",
        "Wait... what?| OK.",
        "Mail a.b@example.com, 192.168.0.1.| Done",
        "同意。|(1)另行通知。",
        "no end",
        "e.g.",
    ],
)
def test_borders(text: str) -> None:
    assert sentences(text.replace("|", "")) == [part.strip() for part in text.split("|")]


@pytest.mark.parametrize("text", ["", " ", "\n\n\t", "\u3000\u2029"])
def test_blank_text_has_none(text: str) -> None:
    assert split_sentences(text) == []


@settings(deadline=None)
@given(
    st.one_of(
        st.text(st.characters()),
        st.text(st.sampled_from("aB1 .。！?!…”」)\n\r\u2028\u3000中文"), max_size=60),
    )
)
def test_they_cover_the_text_in_order_without_overlap(text: str) -> None:
    spans = split_sentences(text)
    place = 0
    for start, end in spans:
        assert place <= start < end
        assert not text[place:start].strip()
        assert text[start:end] == text[start:end].strip()
        place = end
    assert not text[place:].strip()


@pytest.mark.parametrize(
    "unit", [".", "a. ", "e.g. ", "1.", ".)", "。", "A. ", " ", "…”", "?!x", "p. "]
)
def test_time_grows_with_length(unit: str) -> None:
    text = unit * (100_000 // len(unit)) + "a"
    started = process_time()
    split_sentences(text)
    assert process_time() - started < 3
