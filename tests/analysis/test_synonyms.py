"""Synonyms: what lines may say, and what a query is given for them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.analysis.synonyms import MAX_ADDED, Rule, Synonyms
from server.errors import InvalidInput


def added(lines: list[str], query: str) -> dict[str, tuple[str, ...]]:
    expansions = Synonyms.parse(lines).expand(query)
    return {expansion.phrase: expansion.added for expansion in expansions}


def test_rules_are_read_in_solrs_form_and_normalised() -> None:
    lines = [
        "\ufeff# a note",
        "",
        "差旅費, 出差费用，Travel  Expenses",
        "ＶＰＮ, 翻墙 => 虚拟专用网络",
        r"a\,b, c",
        "差旅费,出差费用,travel expenses",
    ]
    travel = ("差旅费", "出差费用", "travel expenses")
    assert Synonyms.parse(lines).rules == (
        Rule(travel, travel),
        Rule(("vpn", "翻墙"), ("虚拟专用网络",)),
        Rule(("a,b", "c"), ("a,b", "c")),
    )


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("差旅费", 'write "a, b"'),
        ("a => b => c", 'write "a, b"'),
        ("差旅费, ", "letter or digit"),
        ("=> a", "letter or digit"),
        ("a => a", "the same"),
        ("差旅费, 差旅費", 'write "a, b"'),
        ("a, " + "费" * 101, "at most 100"),
        (", ".join(f"w{n}" for n in range(21)), "at most 20"),
    ],
)
def test_a_wrong_line_is_refused_by_its_number(line: str, rule: str) -> None:
    with pytest.raises(InvalidInput, match="line 3") as caught:
        Synonyms.parse(["# a note", "a, b", line])
    assert rule in caught.value.message
    assert caught.value.field == "synonyms"


def test_there_are_at_most_10_000_rules() -> None:
    lines = [f"a{n}, b{n}" for n in range(10_000)]
    assert len(Synonyms.parse(lines).rules) == 10_000
    with pytest.raises(InvalidInput, match=r"line 10001.*at most 10,000"):
        Synonyms.parse([*lines, "a, b"])


def test_equivalent_phrases_stand_for_each_other() -> None:
    lines = ["差旅费, 出差费用, travel expenses"]
    assert added(lines, "差旅费怎么报") == {"差旅费": ("出差费用", "travel expenses")}
    assert added(lines, "Travel   expenses?") == {"travel expenses": ("差旅费", "出差费用")}
    assert added(lines, "差旅") == {}


def test_a_one_way_rule_does_not_work_backwards() -> None:
    lines = ["VPN => 虚拟专用网络"]
    assert added(lines, "连接vpn") == {"vpn": ("虚拟专用网络",)}
    assert added(lines, "虚拟专用网络") == {}
    assert added(["a => a, b"], "a") == {"a": ("b",)}


def test_rules_of_one_phrase_add_up_and_never_chain() -> None:
    lines = ["a, b", "b, c", "a => d", "a, b, c2"]
    assert added(lines, "a") == {"a": ("b", "d", "c2")}
    assert added(lines, "b") == {"b": ("a", "c", "c2")}


def test_latin_words_and_numbers_only_count_whole() -> None:
    lines = ["vpn, 网关", "5g, 第五代", "p5, 五级", "年假, 休假"]
    assert added(lines, "vpns 15g p50 xvpn") == {}
    assert set(added(lines, "用vpn连5G，P5。")) == {"vpn", "5g", "p5"}
    assert set(added(lines, "查年假天数")) == {"年假"}


def test_the_longest_phrase_wins_and_none_within_another_counts() -> None:
    lines = ["北京大学, 北大", "北京, 首都", "大学, 高校"]
    assert added(lines, "北京大学在北京") == {"北京大学": ("北大",), "北京": ("首都",)}
    (first, second) = Synonyms.parse(lines).expand("北京大学在北京")
    assert (first.start, first.end, second.start, second.end) == (0, 4, 5, 7)


def test_what_one_query_is_given_is_bounded() -> None:
    lines = [f"{sign}, " + ", ".join(f"{sign}{n}" for n in range(19)) for sign in "甲乙丙丁戊"]
    expansions = Synonyms.parse(lines).expand("甲乙丙丁戊")
    assert [len(each.added) for each in expansions] == [19, 19, 19, 7]
    assert sum(len(each.added) for each in expansions) == MAX_ADDED


def test_the_hash_follows_the_rules_and_not_the_notes() -> None:
    assert Synonyms.parse(["# x", "費用,開支"]).hash == Synonyms.parse(["费用, 开支"]).hash
    assert Synonyms.parse(["a => b"]).hash != Synonyms.parse(["a, b"]).hash
    assert Synonyms().hash == ""


def test_ten_thousand_rules_cost_a_query_next_to_nothing() -> None:
    rules = Synonyms.parse([f"w{n} x, 词{n}, y{n}" for n in range(10_000)])
    rules.expand("w1 x")  # the index is made once
    began = time.perf_counter()
    for _ in range(1_000):
        rules.expand("员工出差的住宿标准是多少")
    assert (time.perf_counter() - began) / 1_000 < 200e-6


PHRASE = st.text("年假休vp5 a", min_size=1, max_size=4)


@given(st.lists(st.lists(PHRASE, min_size=2, max_size=4), max_size=5), st.text("年假休vp5 a"))
def test_what_is_added_is_never_asked_for_by_itself(rules: list[list[str]], query: str) -> None:
    lines = []
    for phrases in rules:
        try:
            Synonyms.parse([", ".join(phrases)])
        except InvalidInput:
            continue
        lines.append(", ".join(phrases))
    end = 0
    for expansion in Synonyms.parse(lines).expand(query):
        assert expansion.start >= end
        assert expansion.phrase not in expansion.added
        assert len(set(expansion.added)) == len(expansion.added) > 0
        end = expansion.end
