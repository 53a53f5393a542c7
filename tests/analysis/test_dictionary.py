from pathlib import Path

import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.analysis.dictionary import UserDictionary, UserWord
from server.errors import ConfigurationError, InvalidInput


def test_entries_are_read_in_jieba_format_and_normalised() -> None:
    lines = [
        "\ufeff雲梯平台 100 nz",
        "",
        "# a note",
        "５Ｇ核心网",
        "Kubernetes n",
        "云梯平台 7\r\n",
    ]
    assert UserDictionary.parse(lines).words == (
        UserWord("云梯平台", 7),
        UserWord("5g核心网"),
        UserWord("kubernetes"),
    )


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("云梯 平台", 'write "word"'),
        ("云梯平台 1.5", 'write "word"'),
        ("云梯平台 -3", 'write "word"'),
        ("云梯平台 n 100", 'write "word"'),
        ("云梯平台 0", "from 1"),
        ("云梯平台 99999999999", "from 1"),
        ("——", "letter or digit"),
        ("云\u3000梯", "no white space"),
        ("梯" * 101, "at most 100"),
    ],
)
def test_a_wrong_line_is_refused_by_its_number(line: str, rule: str) -> None:
    with pytest.raises(InvalidInput, match="line 2") as caught:
        UserDictionary.parse(["云梯", line])
    assert rule in caught.value.message
    assert caught.value.field == "dictionary"


def test_a_file_that_is_missing_or_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.txt"):
        JiebaAnalyzer(tmp_path / "none.txt")
    (tmp_path / "gbk.txt").write_bytes("云梯平台".encode("gbk"))
    with pytest.raises(ConfigurationError, match=r"gbk\.txt.*UTF-8"):
        JiebaAnalyzer(tmp_path / "gbk.txt")
    (tmp_path / "bad.txt").write_text("好\n坏 0\n", "utf-8")
    with pytest.raises(ConfigurationError, match=r"bad\.txt: line 2"):
        JiebaAnalyzer(tmp_path / "bad.txt")


def test_the_hash_follows_the_words_and_not_the_notes() -> None:
    plain = UserDictionary.parse(["云梯 3", "产研"])
    assert plain.hash == UserDictionary.parse(["# words", "雲梯 3 n", "", "产研"]).hash
    assert plain.hash != UserDictionary.parse(["云梯 4", "产研"]).hash
    assert UserDictionary().hash == ""


def test_words_of_mixed_scripts_are_found_whole() -> None:
    analyzer = JiebaAnalyzer(
        UserDictionary.parse(["5G核心网", "5G核心网元", "C919", "卡拉OK", "T恤", "Node.js"])
    )

    def terms(text: str) -> set[str]:
        return {token.term for token in analyzer.analyze(text).words}

    assert "5g核心网" in terms("部署５Ｇ核心網。")
    assert "5g核心网元" in terms("5G核心网元")
    assert "5g核心网元" in {token.term for token in analyzer.analyze("5G核心网元").bigrams}
    assert "t恤" in terms("买T恤")
    assert "卡拉ok" in terms("去卡拉OK吧")
    assert "t恤" not in terms("start恤")
    assert "c919" not in terms("C9190")
    assert "5g核心网" not in terms("15G核心网")
    found = [token for token in analyzer.analyze("去卡拉OK吧").words if token.term == "卡拉ok"]
    assert [(token.start, token.end) for token in found] == [(1, 5)]
