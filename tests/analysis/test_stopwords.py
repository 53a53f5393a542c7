"""Stop words: what lines may say, and what they leave of a query."""

import time

import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.analysis.stopwords import StopWords
from server.errors import InvalidInput


@pytest.fixture(scope="module")
def analyzer() -> JiebaAnalyzer:
    return JiebaAnalyzer()


def left(analyzer: JiebaAnalyzer, words: list[str], query: str) -> tuple[list[str], list[str]]:
    kept = StopWords.parse(words).without(analyzer.analyze(query))
    return [token.term for token in kept.words], [token.term for token in kept.bigrams]


def test_words_are_normalised_and_stand_once() -> None:
    assert StopWords.parse(["# note", "", "關於", "Policies", "关于"]).words == ("关于", "policies")


@pytest.mark.parametrize(
    ("line", "rule"),
    [("关于 的", "no white space"), ("——", "letter or digit"), ("词" * 101, "at most 100")],
)
def test_a_wrong_line_is_refused_by_its_number(line: str, rule: str) -> None:
    with pytest.raises(InvalidInput, match="line 2") as caught:
        StopWords.parse(["关于", line])
    assert rule in caught.value.message
    assert caught.value.field == "stop_words"


def test_there_are_at_most_10_000_words() -> None:
    with pytest.raises(InvalidInput, match="line 10001"):
        StopWords.parse([f"w{n}" for n in range(10_001)])


def test_they_go_with_their_characters(analyzer: JiebaAnalyzer) -> None:
    words, bigrams = left(analyzer, ["关于", "policies"], "关于报销 policy")
    assert words == ["报销"]
    assert bigrams == ["于报", "报销", "报", "销"]


def test_one_within_a_longer_word_stays(analyzer: JiebaAnalyzer) -> None:
    plain = left(analyzer, [], "公司法的规定")
    assert "公司" in plain[0]
    assert left(analyzer, ["公司"], "公司法的规定") == plain


def test_a_query_of_stop_words_keeps_them(analyzer: JiebaAnalyzer) -> None:
    assert left(analyzer, ["关于", "的"], "关于的") == left(analyzer, [], "关于的")
    assert left(analyzer, ["hello"], "hello") == left(analyzer, [], "hello")


def test_bigrams_between_stop_words_go_too(analyzer: JiebaAnalyzer) -> None:
    words, bigrams = left(analyzer, ["关于", "的"], "关于的报销")
    assert words == ["报销"]
    assert bigrams == ["的报", "报销", "报", "销"]


def test_a_long_query_of_stop_words_takes_milliseconds(analyzer: JiebaAnalyzer) -> None:
    stop_words = StopWords.parse(["关于", "的", "the"])
    analysis = analyzer.analyze("关于的报销the " * 150)
    began = time.perf_counter()
    stop_words.without(analysis)
    assert time.perf_counter() - began < 0.1
