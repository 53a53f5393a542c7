"""The Rust segmenter gives jieba's own words, with and without a user dictionary."""

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.analysis.dictionary import UserDictionary
from tests.analysis.chinese import sentences

USER_WORDS = """\
产研中心
差旅费报销标准
欧阳雪琴 50 nr
灰度发布
碳中和路线图 3
云服务器 200 n
台中 1
石墨烯散热膜
长江大桥附近
南京市长 100000
双因素认证
三分之二来
工信处
"""


@pytest.fixture
def jieba(tmp_path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its source has invalid escapes
        import jieba
    logging.getLogger("jieba").setLevel(logging.CRITICAL)
    tokenizer = jieba.Tokenizer()
    tokenizer.tmp_dir = str(tmp_path)
    tokenizer.initialize()
    return tokenizer


def words(analyzer: JiebaAnalyzer, text: str) -> list[tuple[str, int, int]]:
    return [tuple(token) for token in analyzer.analyze(text).words]


def search_words(jieba: Any, text: str) -> list[tuple[str, int, int]]:
    return [
        (word, run.start() + start, run.start() + end)
        for run in re.finditer("[\u4e00-\u9fd5]+", text)
        for word, start, end in jieba.tokenize(run.group(), mode="search")
    ]


def test_words_are_those_of_jieba(jieba: Any) -> None:
    analyzer = JiebaAnalyzer()
    text = "，".join(sentences())
    assert len(set(sentences())) > 300
    assert words(analyzer, text) == search_words(jieba, text)


def test_words_are_those_of_jieba_with_a_user_dictionary(jieba: Any, tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text(USER_WORDS, "utf-8")
    with path.open("rb") as lines:
        jieba.load_userdict(lines)
    analyzer = JiebaAnalyzer(path)
    text = "。".join([*sentences(), "台中正确应该不会被切开", "在台中开会"])
    found = words(analyzer, text)
    assert found == search_words(jieba, text)
    assert "产研中心" in {word for word, _, _ in found}
    assert found != words(JiebaAnalyzer(), text)


def test_analyzers_with_different_dictionaries_do_not_mix() -> None:
    text = "产研中心发布"
    plain = JiebaAnalyzer()
    before = words(plain, text)
    own = JiebaAnalyzer(UserDictionary.parse(["产研中心"]))
    assert "产研中心" in {word for word, _, _ in words(own, text)}
    assert words(plain, text) == words(JiebaAnalyzer(), text) == before
    assert "产研中心" not in {word for word, _, _ in before}
    assert own.fingerprint != plain.fingerprint
