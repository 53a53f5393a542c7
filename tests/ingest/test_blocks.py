"""Which lines are headings, items, tables and code."""

import time

import pytest

from server.ingest.blocks import Block, read_blocks


def headings(text: str) -> list[tuple[str, ...]]:
    return [block.headings for block in read_blocks(text) if block.kind == "heading"]


def kinds(text: str) -> list[str]:
    return [block.kind for block in read_blocks(text)]


def strings(text: str) -> list[str]:
    return [text[block.start : block.end] for block in read_blocks(text)]


def test_markdown_headings_nest() -> None:
    text = "# A\ntext\n## B ##\n### C#\nmore\n## D\n\nE\n===\nF\n---\nend"
    assert headings(text) == [
        ("A",), ("A", "B"), ("A", "B", "C#"), ("A", "D"), ("E",), ("E", "F"),
    ]  # fmt: skip


def test_paragraphs_know_their_headings() -> None:
    text = "before\n\n# A\n\none\ntwo\n\n## B\n\nthree"
    assert [(b.headings, text[b.start : b.end]) for b in read_blocks(text)] == [
        ((), "before"),
        (("A",), "# A"),
        (("A",), "one\ntwo"),
        (("A", "B"), "## B"),
        (("A", "B"), "three"),
    ]


def test_chinese_law() -> None:
    text = (
        "第一编 总则\n第一章 基本规定\n第一条 为了保护民事主体的合法权益，制定本法。\n"
        "第二条 民法调整人身关系和财产关系。\n第二章　自然人\n第一节 民事权利能力\n"
        "第十三条 自然人从出生时起具有民事权利能力。\n第二编 物权\n内容。"
    )
    assert headings(text) == [
        ("第一编 总则",),
        ("第一编 总则", "第一章 基本规定"),
        ("第一编 总则", "第二章　自然人"),
        ("第一编 总则", "第二章　自然人", "第一节 民事权利能力"),
        ("第二编 物权",),
    ]
    assert kinds(text).count("item") == 3  # each article is a block of its own


def test_handbook_numbers() -> None:
    text = (
        "一、总则\n员工应当遵守本制度。\n（一）适用范围\n本制度适用于全体员工。\n"
        "（二）职责\n人事部负责。\n二、请假\n请假须审批。\n\n1.2 审批\n\n由经理审批。\n\n"
        "1.2.3 时限\n\n三天。"
    )
    assert headings(text) == [
        ("一、总则",),
        ("一、总则", "（一）适用范围"),
        ("一、总则", "（二）职责"),
        ("二、请假",),
        ("二、请假", "1.2 审批"),
        ("二、请假", "1.2 审批", "1.2.3 时限"),
    ]


def test_english_contract() -> None:
    text = "Article 1 Definitions\nIn this agreement, words mean things.\nSection 1.1 Scope\nAll."
    assert headings(text) == [
        ("Article 1 Definitions",),
        ("Section 1.1 Scope",),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "采购清单：\n一、苹果\n二、香蕉\n三、梨",
        "1. Open the lid\n2. Pour water\n3. Close",
        "第三章规定了员工的权利，见下文。\n正文",
        "先加入：\n1.5 升水\n再加热",
        "见\n第三章 总则\n的规定",
        "1. 先打开\n   再关上\n",
        "#hashtag\ntext",
        "2024-06-01 发布\n正文",
        "目录\n\n第一章 总则\n第二章 请假",
        "text\n----- ------",
        "他说完了。\n---\n他走了。",
        "#" + "x" * 10 + "\n" + "# " + "很长" * 100,
    ],
)
def test_no_headings(text: str) -> None:
    assert headings(text) == []


def test_code_is_one_block_whatever_it_holds() -> None:
    text = "a\n\n```python\n# no heading\n\n| no | table |\n~~~\n```\n\n# heading"
    assert kinds(text) == ["paragraph", "code", "heading"]


def test_longer_fences_hold_shorter_ones() -> None:
    assert kinds("````\n```\nx\n```\n````\nafter") == ["code", "paragraph"]


def test_an_unclosed_fence_is_no_code() -> None:
    assert kinds("```\n# heading\n\ntext") == ["paragraph", "heading", "paragraph"]


def test_tables() -> None:
    text = "before\n\n| a | b |\n|---|---|\n| 1 | 2 |\nafter\n\na | b\n--- | ---\n1 | 2\n\nend"
    assert kinds(text) == ["paragraph", "table", "paragraph", "table", "paragraph"]
    assert strings(text)[3] == "a | b\n--- | ---\n1 | 2"


def test_lists_are_a_block_an_item_with_its_lines() -> None:
    text = "intro:\n- one\n  more of one\n- two\n\n（1）三\n① 四"
    assert strings(text) == ["intro:", "- one\n  more of one", "- two", "（1）三", "① 四"]
    assert kinds(text) == ["paragraph", "item", "item", "item", "item"]


def test_a_line_that_ends_a_sentence_ends_the_paragraph() -> None:
    assert strings("第一段。\n第二段没有\n结束。\n第三段") == [
        "第一段。",
        "第二段没有\n结束。",
        "第三段",
    ]


def test_blank_texts_have_no_blocks() -> None:
    assert read_blocks("") == []
    assert read_blocks(" \n\u3000\n\t\f\n") == []


def test_deep_nesting_is_bounded() -> None:
    text = "".join(f"{'#' * (n % 6 + 1)} h{n}\n" for n in range(5000))
    assert max(len(block.headings) for block in read_blocks(text)) <= 6


@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000,
        " " * 1_000_000 + "x",
        "# " + "# " * 500_000,
        "```\n" * 200_001,
        "~~~~\n```\n" * 100_000,
        "|" * 1_000_000,
        "- " * 500_000,
        "a\n" * 300_000,
        "1." * 500_000,
        "\n" * 1_000_000,
    ],
    ids=lambda text: repr(text[:8]),
)
def test_time_is_linear(text: str) -> None:
    began = time.process_time()
    blocks: list[Block] = read_blocks(text)
    assert time.process_time() - began < 10
    assert blocks or text.isspace()
