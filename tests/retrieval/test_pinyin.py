"""Pinyin: how texts are read, and what people type of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.analysis.normalize import Normalizer
from server.retrieval.pinyin import MAX_READINGS, blurred, letters, readings

NORMALIZER = Normalizer()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("差旅", "chai lv"),
        ("差旅费用报销标准", "chai lv fei yong bao xiao biao zhun"),
        ("增长率", "zeng zhang lv"),
        ("长期", "chang qi"),
        ("银行", "yin hang"),
        ("重庆", "chong qing"),
        ("erp系统2.0", "e r p xi tong 2 . 0"),
        ("", ""),
    ],
)
def test_words_are_read_as_words(text: str, expected: str) -> None:
    assert tuple(expected.split()) in readings(text)


def test_rare_readings_of_a_character_are_left_out() -> None:
    assert {read[0] for read in readings("差旅")} == {"cha", "chai"}


@pytest.mark.parametrize(
    "typed",
    [
        "chailv",
        "ChaiLv",
        "chai lv",
        "chāi lǚ",
        "chai1lv3",
        "chai1 lv3",
        "chai'lü",
        "ＣＨＡＩＬＶ",
        "chai-lyu",
    ],
)
def test_pinyin_is_one_however_it_is_typed(typed: str) -> None:
    assert letters(NORMALIZER.normalize(typed).text) == "chailv"


def test_numbers_that_are_no_tones_stay() -> None:
    assert letters("pp30") == "pp30"
    assert letters("差旅2025") == "差旅2025"


@given(st.text(max_size=20))
def test_any_text_is_read_character_by_character(text: str) -> None:
    read = readings(text)
    assert 1 <= len(read) <= MAX_READINGS
    assert all(len(each) == len(text) for each in read)
    assert all(syllable for each in read for syllable in each)
    assert letters(letters(text)) == letters(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [("zhang", "zan"), ("shi", "si"), ("nan", "lan"), ("ling", "lin"), ("cheng", "cen")],
)
def test_what_many_speakers_do_not_tell_apart_is_blurred(one: str, other: str) -> None:
    assert blurred(one) == blurred(other)


def test_what_they_tell_apart_is_not() -> None:
    assert len({blurred(each) for each in ("ma", "fa", "ba", "guan", "gun", "n", "ji")}) == 7
