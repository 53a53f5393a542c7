"""A change of the dictionary touches only texts with a changed word, and their terms name them."""

from itertools import permutations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.analysis.analyzer import JiebaAnalyzer
from server.analysis.dictionary import UserDictionary
from server.analysis.normalize import Normalizer
from server.analysis.word_changes import WordChange, shifts_all, terms_with, word_changes

DICTIONARIES = (
    [],
    ["云梯平台", "灰度发布 3", "5G核心网", "T恤", "的"],
    ["云梯", "云梯平台 50", "C919", "卡拉OK", "梯", "カラオケ店", "발표회"],
    ["平台灰度", "5G核心网元", "node.js", "核心网", "发布a", "年假", "A4纸"],
)
ANALYZERS = [JiebaAnalyzer(UserDictionary.parse(lines)) for lines in DICTIONARIES]
PIECES = [
    *("云梯", "云", "梯", "平台", "灰度", "发布", "核心网", "核心", "网", "元", "的", "年", "假"),
    *("5G", "5", "G", "1", "T恤", "恤", "t", "C919", "9", "卡拉OK", "OK", "Node", ".js", "a", "b4"),
    *(
        "カラ",
        "オケ",
        "ー",
        "店",
        "발표",
        "회",
        " ",
        "，",
        "-",
        ".",
        "'",
        "é",
        "雲",
        "5Ｇ",
        "A4",
        "纸",
    ),
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


def changed(*words: str) -> tuple[WordChange, ...]:
    return word_changes(JiebaAnalyzer(), JiebaAnalyzer(UserDictionary.parse(words)))


@given(text=TEXTS, pair=st.sampled_from(list(permutations(ANALYZERS, 2))))
@example(
    text="云云云云梯云梯云梯", pair=(ANALYZERS[0], ANALYZERS[1])
)  # 云|云云 and 云云|云 are a tie
@settings(max_examples=2_000)
def test_where_terms_differ_the_terms_of_a_changed_word_stand(
    text: str, pair: tuple[JiebaAnalyzer, JiebaAnalyzer]
) -> None:
    before, after = pair
    if before.analyze(text) == after.analyze(text):
        return
    normalized = Normalizer().normalize(text).text
    bigrams = {token.term for token in before.analyze(text).bigrams}
    changes = word_changes(before, after)
    there = [change.word for change in changes if change.word in normalized]
    if not there:  # what is as likely either way, the sum of all frequencies decides
        ways = [sorted(token.term for token in each.analyze(text).words) for each in pair]
        assert shifts_all(changes) or ways[0] == ways[1]
    for word in there:
        assert set(terms_with(word)) <= bigrams


def test_words_that_differ_are_named_with_their_frequencies() -> None:
    before = JiebaAnalyzer(UserDictionary.parse(["云梯平台 7", "灰度发布 3", "产研"]))
    after = JiebaAnalyzer(UserDictionary.parse(["灰度发布 4", "产研", "蓝绿部署 2"]))
    assert word_changes(before, after) == (
        WordChange("云梯平台", 7, None),
        WordChange("灰度发布", 3, 4),
        WordChange("蓝绿部署", None, 2),
    )
    assert word_changes(before, before) == ()


def test_a_guessed_frequency_that_another_word_changes_counts() -> None:
    lines = ["南京市长江大桥附近"]
    plain, other = (
        JiebaAnalyzer(UserDictionary.parse([*more, *lines]))
        for more in ([], ["南京市长 9000", "江大桥附近 900000"])
    )
    assert plain.frequencies[lines[0]] != other.frequencies[lines[0]]
    assert lines[0] in {change.word for change in word_changes(plain, other)}


@pytest.mark.parametrize(
    ("word", "terms"),
    [
        ("云梯平台", ("云梯", "梯平", "平台")),
        ("梯", ("梯",)),
        ("5g核心网", ("核心", "心网")),
        ("t恤", ("恤",)),
        ("a4纸b", ("纸",)),
        ("カラオケ", ("カラ", "ラオ", "オケ")),
        ("発カ", ("発",)),
        ("node.js", ()),
        ("c919", ()),
    ],
)
def test_terms_that_stand_wherever_a_word_does(word: str, terms: tuple[str, ...]) -> None:
    assert terms_with(word) == terms


def test_large_frequencies_shift_everything() -> None:
    assert not shifts_all(changed("云梯平台", "灰度发布 1000"))
    assert shifts_all(changed("南京市长 100000"))
    assert shifts_all(
        word_changes(
            *(JiebaAnalyzer(UserDictionary.parse(lines)) for lines in (["云 2147483647"], []))
        )
    )
    assert not shifts_all(())
