"""Phrases and codes that a query wants as it writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.analysis.analyzer import JiebaAnalyzer
from server.analysis.normalize import Normalizer
from server.retrieval.exact import ExactPhrases, first

ANALYZER = JiebaAnalyzer()
NORMALIZER = Normalizer()


def exact(query):
    return ExactPhrases.of(query, ANALYZER, NORMALIZER)


@pytest.mark.parametrize(
    "query",
    [
        '"年假结转"',
        "“年假结转” 规定",
        "规定 「年假结转」",
        "『年假结转』",
        "＂年假结转＂",
        '"年假 结转" a',
    ],
)
def test_quotation_marks_between_blanks_ask_for_a_phrase(query):
    wanted = exact(query)

    assert wanted.quoted
    assert wanted.held_by(ANALYZER.analyze("未休的年假結轉到下一年。")) == ("年假 结" not in query)
    assert not wanted.held_by(ANALYZER.analyze("年假不结转。"))
    assert not wanted.held_by(ANALYZER.analyze("结转年假。"))


@pytest.mark.parametrize(
    "query",
    [
        "名为“合伙”实为借贷",
        '什么是"年假"？',
        "年假",
        '""',
        '"',
        "“”",
        '"。"',
        "2024 年",
        "3.5%",
        "a1",
        "第3条",
        "in 2015",
        "August 15th",
        "5000Hz",
        "101s",
        "2-point",
        "¥3,000",
    ],
)
def test_other_queries_ask_for_none(query):
    assert not exact(query)


@pytest.mark.parametrize(
    ("query", "holds", "lacks"),
    [
        ("ERR-4012", "见 err-4012。", "见 ERR-4013。"),
        ("报错 ERR-4012 怎么办", "ＥＲＲ－４０１２ 表示超时", "4012 与 ERR"),
        ("GB/T 19001-2016", "按 GB/T19001-2016 执行", "GB/T 19001-2008"),
        ("订单 20240501123", "订单号 20240501123", "订单号 20240501124"),
        ("KB5021233 和 KB5021234", "KB5021234、KB5021233", "KB5021233"),
    ],
)
def test_codes_are_wanted_as_they_are(query, holds, lacks):
    wanted = exact(query)

    assert not wanted.quoted
    assert wanted.held_by(ANALYZER.analyze(holds))
    assert not wanted.held_by(ANALYZER.analyze(lacks))


def test_every_quoted_phrase_must_be_held():
    wanted = exact('"年假结转" "总经理"')

    assert wanted.held_by(ANALYZER.analyze("年假结转由总经理批准。"))
    assert not wanted.held_by(ANALYZER.analyze("年假结转由经理批准。"))
    assert set(exact('"年假结转"').terms) < set(wanted.terms)


@given(st.text(max_size=80), st.text(max_size=40))
def test_a_text_holds_what_is_quoted_from_it(text, around):
    inner = text.replace('"', "")
    wanted = exact(f'{around.replace(chr(34), "")} "{inner}"')

    if wanted.quoted:
        assert wanted.held_by(ANALYZER.analyze(inner))


@given(st.lists(st.text("abc", max_size=2), unique=True), st.sets(st.text("abc", max_size=2)))
def test_those_that_are_held_come_first_and_each_part_keeps_its_order(order, held):
    found = first(order, held)

    assert sorted(found) == sorted(order)
    assert [each in held for each in found] == sorted(
        (each in held for each in found), reverse=True
    )
    for part in (True, False):
        assert [e for e in found if (e in held) is part] == [
            e for e in order if (e in held) is part
        ]
