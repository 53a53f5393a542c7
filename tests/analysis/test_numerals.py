"""Numbers in figures and in characters, each found by the other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.analysis.normalize import Normalizer
from server.analysis.numerals import MAX_NUMBERS, MAX_WRITINGS, expand, in_characters, in_figures

NORMALIZER = Normalizer()


def writings(query: str) -> dict[str, tuple[str, ...]]:
    return {each.phrase: each.added for each in expand(NORMALIZER.normalize(query).text)}


@pytest.mark.parametrize(
    ("query", "phrase", "added"),
    [
        ("连续工作满10年", "10年", ("十年",)),
        ("连续工作满 10 年", "10 年", ("十年",)),
        ("连续工作满１０年", "10年", ("十年",)),
        ("连续工作满十年", "十年", ("10年",)),
        ("15天内提交", "15天", ("十五天", "15日", "十五日")),
        ("十五天内提交", "十五天", ("15天", "十五日", "15日")),
        ("2天内", "2天", ("二天", "两天", "2日", "二日", "两日")),
        ("應當在十五日內提交", "十五日", ("15日",)),
        ("第30条怎么说", "第30条", ("第三十条",)),
        ("第三十条怎么说", "第三十条", ("第30条",)),
        ("第二章第三条", "第二章第三条", ("第2章第3条",)),
        ("折扣低于50%", "50%", ("百分之五十",)),
        ("折扣低于百分之五十", "百分之五十", ("50%",)),
        ("罚款50,000元", "50,000元", ("五万元", "5万元")),
        ("罚款5万元", "5万元", ("五万元", "50000元")),
        ("罚款五万元", "五万元", ("50000元", "5万元")),
        ("3个工作日内", "3个工作日", ("三个工作日",)),
        ("两年内", "两年", ("2年",)),
        ("2年内", "2年", ("二年", "两年")),
        ("2月的工资", "2月", ("二月",)),
        ("一个月", "一个月", ("1个月",)),
        ("2008年", "2008年", ("二〇〇八年", "二零零八年")),
        ("二零二五年", "二零二五年", ("2025年",)),
        ("二〇二五年三月五日发布", "二〇二五年三月五日", ("2025年3月5日",)),
        ("2025年3月5日", "2025年3月5日", ("二〇二五年三月五日", "二零二五年三月五日")),
        ("一百零五人", "一百零五人", ("105人",)),
    ],
)
def test_a_number_is_also_looked_for_as_it_is_written_otherwise(
    query: str, phrase: str, added: tuple[str, ...]
) -> None:
    assert writings(query) == {phrase: added}


@pytest.mark.parametrize(
    "query",
    [
        "一般情况",
        "一个人",
        "十分重要",
        "千万不要",
        "以防万一",
        "三角形",
        "统一年度预算",
        "周三天气",
        "120",
        "GB/T 5972-2023",
        "v2.0年度版",
        "ISO9001年检",
        "LPR4倍",
        "1,234,567,890,123%",
        "1234567890123年",
        "3.5倍",
        "2025-03-05",
        "一二三年",
        "十百千年",
        "",
    ],
)
def test_words_and_codes_are_no_numbers(query: str) -> None:
    assert writings(query) == {}


@given(st.integers(0, 10**12 - 1))
def test_what_is_read_is_the_number(number: int) -> None:
    assert in_figures(in_characters(number)) == number


@pytest.mark.parametrize(
    ("number", "characters"),
    [
        (0, "零"),
        (10, "十"),
        (15, "十五"),
        (105, "一百零五"),
        (110, "一百一十"),
        (1010, "一千零一十"),
        (10500, "一万零五百"),
        (100_010_001, "一亿零一万零一"),
    ],
)
def test_numbers_are_read_as_people_read_them(number: int, characters: str) -> None:
    assert in_characters(number) == characters


@pytest.mark.parametrize("number", [-1, 10**12])
def test_numbers_without_a_writing_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match="no writing"):
        in_characters(number)


@given(st.text("0123456789,.%零一二三十百千万亿两〇第年月日个条元 章之分百a-/", max_size=60))
def test_whatever_is_asked_the_phrases_stand_in_it_and_apart(query: str) -> None:
    text = NORMALIZER.normalize(query).text
    found = expand(text)
    assert len(found) <= MAX_NUMBERS
    end = 0
    for each in found:
        assert text[each.start : each.end] == each.phrase
        assert each.start >= end
        end = each.end
        assert 1 <= len(each.added) <= MAX_WRITINGS
        assert each.phrase not in each.added


@given(st.integers(1, 10**8), st.sampled_from(["年", "日", "元", "条", "个月", "人"]))
def test_either_writing_leads_to_the_other(number: int, measure: str) -> None:
    figures, characters = f"第{number}{measure}", f"第{in_characters(number)}{measure}"
    assert characters in writings(figures)[figures]
    assert figures in writings(characters)[characters]
