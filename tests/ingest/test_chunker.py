"""Chunks keep to structure and size, and lose nothing."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.analysis.sentences import split_sentences
from server.documents import Chunk, Document, heading_path, passage_text
from server.ingest.blocks import read_blocks
from server.ingest.chunker import CHUNKER_VERSION, Chunker, chunker_for, estimate_tokens
from tests.fakes import FakeEmbedder, count_tokens

SIZE = 64


def chunk(text: str, *, title: str = "", size: int = SIZE) -> tuple[Chunk, ...]:
    return Chunker(count_tokens, size).chunk(Document(id="d", text=text, title=title))


def sentence(number: int) -> str:
    return f"这是第{number}句话，它不算很长。"


PIECES = st.sampled_from(
    [
        "# 标题一\n", "## Part two\n", "###### deep\n", "第三章 劳动合同\n", "第十二条 员工应当守时。\n",
        "一、总则\n", "（二）范围\n", "1.2.3 Scope\n", "\n", "\n\n", "\r\n", "  ", "\t", "\u3000",
        "- item one\n", "1. first\n", "| a | b |\n|---|---|\n", "| 单元 | 格 |\n", "```\n", "~~~~\n",
        "code = [1, 2]\n", "Title\n=====\n", "小标题\n---\n", "普通的一句话。", "A sentence. Another one! ",
        "没有句号的长文字" * 12, "verylongword" * 30, "包括：\n", "e.g. this, that; those",
        "👩‍👩‍👧" * 5, "é" * 9,
        "\f", "\u200b", "x", "。", "|", "#",
    ]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=8), max_size=60).map("".join)
COUNTERS: list[Callable[[str], int]] = [
    count_tokens,
    estimate_tokens,
    len,
    lambda text: len(text.encode()),
    lambda text: len(text.split()),
    lambda text: (len(text) + 3) // 4 + 1,  # a token for each text: sums are too high
    lambda text: max(0, len(text) - 1),  # sums are too low
]


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, counter=st.sampled_from(COUNTERS), title=st.sampled_from(["", "差旅报销"]))
def test_every_character_is_in_one_chunk_and_every_chunk_fits(
    text: str, counter: Callable[[str], int], title: str
) -> None:
    document = Document(id="d", text=text, title=title)
    chunker = Chunker(counter, SIZE)
    chunks = chunker.chunk(document)
    covered = [0] * len(text)
    for position, found in enumerate(chunks):
        assert found.position == position
        assert found.document_id == "d"
        assert found.text == text[found.start : found.end]
        assert found.text == found.text.strip()
        assert counter(found.text) <= SIZE or len(found.text) == 1
        for at in range(found.start, found.end):
            covered[at] += 1
    assert all(n <= 1 and (n or c.isspace()) for n, c in zip(covered, text, strict=True))
    assert [c.start for c in chunks] == sorted(c.start for c in chunks)
    assert chunker.chunk(document) == chunks
    if text.strip():
        assert all(found.text for found in chunks)
    else:
        assert [found.text for found in chunks] == ([""] if title else [])


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_no_short_sentence_row_or_code_is_cut(text: str) -> None:
    ends = {found.end for found in chunk(text)} - {len(text.rstrip())}
    for block in read_blocks(text):
        inside = text[block.start : block.end]
        if block.kind in {"code", "table"}:
            start = block.start
            for line in inside.split("\n"):
                if count_tokens(line) <= SIZE // 4:
                    assert not any(start < end < start + len(line.rstrip()) for end in ends)
                start += len(line) + 1
        else:
            for start, end in split_sentences(inside.replace("\n", " ").replace("\r", " ")):
                if count_tokens(inside[start:end]) <= SIZE // 4:
                    assert not any(block.start + start < cut < block.start + end for cut in ends), (
                        text
                    )


def test_a_short_document_is_one_chunk() -> None:
    text = "# 请假\n\n员工请假须提前三天。\n\n## 病假\n\n附医院证明。\n"
    (only,) = chunk(text)
    assert (only.text, only.headings) == (text.strip(), ("请假",))


def test_a_document_without_text_is_found_by_its_title() -> None:
    assert [(c.text, c.start, c.end) for c in chunk(" \n", title="差旅")] == [("", 0, 0)]
    assert chunk("") == ()


def test_sections_stand_apart_when_they_fill_a_chunk() -> None:
    def section(name: str) -> str:
        return f"## {name}\n\n" + "".join(sentence(n) for n in range(3)) + "\n\n"

    text = "# 手册\n\n" + section("请假") + section("报销") + section("加班")
    assert [found.headings for found in chunk(text)] == [
        ("手册", "请假"),
        ("手册", "报销"),
        ("手册", "加班"),
    ]
    assert chunk(text)[0].text.startswith("# 手册\n\n## 请假")


def test_small_sections_under_one_heading_share_a_chunk() -> None:
    text = "# 手册\n\n" + "".join(f"## 第{n}项\n\n短。\n\n" for n in "甲乙丙丁戊己庚辛壬癸")
    chunks = chunk(text)
    assert 1 < len(chunks) < 6
    assert {found.headings for found in chunks} == {("手册",)}


def test_long_sections_are_cut_between_sentences_into_even_chunks() -> None:
    text = "".join(sentence(n) for n in range(20))
    chunks = chunk(text)
    sizes = [count_tokens(found.text) for found in chunks]
    assert all(found.text.endswith("。") for found in chunks)
    assert max(sizes) <= SIZE
    assert min(sizes) > SIZE // 2


def test_a_heading_is_never_left_alone_at_an_end() -> None:
    for length in range(1, 12):
        text = "# 甲\n\n" + "".join(sentence(n) for n in range(length))
        text += "\n\n## 乙\n\n" + "".join(sentence(n) for n in range(8))
        for found in chunk(text):
            assert not found.text.splitlines()[-1].startswith("#")


def test_a_sentence_longer_than_a_chunk_is_cut_at_clauses() -> None:
    text = "，".join(["每个分句都有十一个字长"] * 20) + "。"
    chunks = chunk(text)
    assert len(chunks) > 1
    assert all(found.text[-1] in "，。" for found in chunks)


def test_words_are_not_cut() -> None:
    text = " ".join(f"word{n}" for n in range(400))
    assert " ".join(found.text for found in chunk(text)) == text


def test_characters_that_belong_together_are_not_cut() -> None:
    for found in chunk("e\u0301" * 500):
        assert found.text.startswith("e")


def test_rows_of_a_table_stay_whole() -> None:
    rows = [f"| 城市{n} | 标准 {n}00 元 |" for n in range(30)]
    text = "住宿标准：\n\n| 城市 | 标准 |\n| --- | --- |\n" + "\n".join(rows)
    chunks = chunk(text)
    assert len(chunks) > 1
    assert all(row in "\n".join(found.text for found in chunks).split("\n") for row in rows)
    assert chunks[0].text.startswith("住宿标准：\n\n| 城市 | 标准 |")


def test_code_stays_whole_where_it_fits() -> None:
    code = "```\n" + "\n".join(f"x{n} = {n}" for n in range(9)) + "\n```"
    text = "".join(sentence(n) for n in range(6)) + "\n\n" + code + "\n\n" + sentence(7) * 3
    assert any(code in found.text for found in chunk(text))


def test_title_and_headings_leave_room_for_themselves() -> None:
    title, heading = "公司差旅与报销管理制度", "第三章 国内差旅住宿标准"
    text = f"{heading}\n" + "".join(sentence(n) for n in range(30))
    for found in chunk(text, title=title):
        assert found.headings == (heading,)
        assert count_tokens(passage_text(title, found.headings, found.text)) <= SIZE


def test_a_long_title_never_crowds_out_the_text() -> None:
    title = "很长的标题" * 200
    for found in chunk("".join(sentence(n) for n in range(30)), title=title, size=400):
        assert SIZE < count_tokens(found.text) <= 400
        assert count_tokens(passage_text(title, found.headings, found.text)) <= 410


def test_no_character_is_counted_more_than_about_three_times() -> None:
    counted = 0

    def counter(text: str) -> int:
        nonlocal counted
        counted += len(text)
        return count_tokens(text)

    text = "\n\n".join("".join(sentence(n) for n in range(40)) for _ in range(50))
    Chunker(counter, 400).chunk(Document(id="d", text=text))
    assert counted < 3.1 * len(text)


def test_the_chunker_follows_the_embedder() -> None:
    embedder = FakeEmbedder()
    assert chunker_for(embedder).fingerprint == f"chunker-{CHUNKER_VERSION}/400"
    embedder.max_tokens = 128
    assert chunker_for(embedder).max_tokens == 96
    assert chunker_for(None).max_tokens == 400
    with pytest.raises(ValueError, match="at least 32"):
        Chunker(len, 8)


def test_heading_path_says_nothing_twice() -> None:
    assert heading_path("请假", ("请假", "病假")) == "请假 > 病假"
    assert heading_path("", ()) == ""


@pytest.mark.parametrize(
    "text",
    [
        "字" * 1_000_000,
        "word " * 200_000,
        "字，" * 500_000,
        "".join(sentence(n) for n in range(60_000)),
        "\n\n".join("# " * (n % 6 + 1) + sentence(n) for n in range(20_000)),
        "".join(f"{'#' * (n % 6 + 1)} h{n}\n" for n in range(40_000)),
        "```\n" * 100_001,
        "```\n" + "code line\n" * 80_000 + "```",
        "| a | b |\n" * 60_000,
        "| " + "单元 | " * 200_000,
        "包括：\n- 一\n" * 50_000,
        "x:\n" * 150_000,
        "a" + "\n" * 1_000_000 + "b",
        "a\u0301" * 300_000,
    ],
    ids=lambda text: repr(text[:10]),
)
def test_time_is_linear(text: str) -> None:
    began = time.process_time()
    chunks = chunk(text, size=400)
    assert time.process_time() - began < 15
    assert chunks
    assert max(count_tokens(found.text) for found in chunks) <= 400
