import re
from concurrent.futures import ThreadPoolExecutor
from time import process_time

import opencc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.analysis.analyzer import MAX_TERM_CHARS, JiebaAnalyzer
from server.analysis.contract import Analysis, Analyzer
from server.analysis.normalize import Normalizer
from tests.analysis.chinese import sentences

ANALYZER = JiebaAnalyzer()
NORMALIZER = Normalizer()
TO_TRADITIONAL = opencc.OpenCC("s2t")
TO_SIMPLIFIED = opencc.OpenCC("t2s")
# White space by Unicode or by Java, on one of which each index engine splits.
WHITE = re.compile(
    "[\\s\x1c-\x1f\x85\xa0\u1680\u180e\u2000-\u200b\u2028\u2029\u202f\u205f\u3000\ufeff]"
)

CODES = st.text(
    st.sampled_from("aBz029.,-/_@:&+#%' \u2019５ＧGB/T年月日费\u00e9\u0301"), max_size=40
)
MIXED = st.one_of(
    st.text(st.characters()),
    CODES,
    st.lists(st.sampled_from([*sentences(60), "GB/T 5972", "ﬁle", "㎏", "ｶﾞ", "가나", "\n"])).map(
        "".join
    ),
)


def words(text: str) -> list[str]:
    return [token.term for token in ANALYZER.analyze(text).words]


def bigrams(text: str) -> list[str]:
    return [token.term for token in ANALYZER.analyze(text).bigrams]


def terms(text: str) -> tuple[list[str], list[str]]:
    return words(text), bigrams(text)


def sources(text: str, term: str) -> list[str]:
    return [text[t.start : t.end] for t in ANALYZER.analyze(text).words if t.term == term]


def test_it_keeps_the_contract() -> None:
    analyzer: Analyzer = ANALYZER
    assert analyzer.fingerprint == JiebaAnalyzer().fingerprint
    assert "rjieba" in analyzer.fingerprint
    assert analyzer.analyze("") == Analysis((), ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("差旅报销标准", "差旅 报销 标准"),
        ("按GB/T5972-2016执行", "gb/t5972-2016 gbt59722016 gb t5972 5972 2016"),
        ("v2.3.1", "v2.3.1 2.3.1 v2 2 3 1"),
        ("2024-06-01", "2024-06-01 2024-06 2024 06 01"),
        ("node_modules", "node_modules nodemodules node modul"),
        ("user@example.com", "user@example.com user exampl com"),
        ("192.168.0.1", "192.168.0.1 192 168 0 1"),
        ("ISO-9001", "iso-9001 iso9001 iso 9001"),
        ("A4纸", "a4 4 纸"),
        ("3.5%", "3.5% 3.5 3 5"),
        ("￥1,200.50", "1200.50 1200 50"),
        ("C++ C# .NET 5G", "c++ c# c .net net 5g 5"),
        ("R&D x-ray", "r&d rd x-ray xray ray"),
        ("the employee's running shoes", "employe run shoe"),
        ("the well-known and/or", "well known and/or"),
        ("don\u2019t stop", "stop"),
        ("CAFÉ naïve", "cafe naiv"),
        ("हिन्दी Москва", "हिन्दी москва"),
        ("가나다 ｶﾞｽ 日本語", "가나다 ガス 日本 日本语"),
        ("to-do", "to-do"),
    ],
)
def test_words_whole_and_in_parts(text: str, expected: str) -> None:
    missing = set(expected.split()) - set(words(text))
    assert not missing, words(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("GB/T 5972", "GB/T5972"),
        ("GB/T5972", "ＧＢ／Ｔ　５９７２"),
        ("gb/t5972", "GB/T 5972"),
        ("ISO 9001", "iso9001"),
        ("1,200.50", "1200.50"),
        ("繁體中文的報銷標準", "繁体中文的报销标准"),
        ("ﬁle㎏", "FILEkg"),
        ("差\u200b旅\ufeff费", "差旅费"),
        ("cafe\u0301", "café"),
        ("don't know", "don\u2019t know"),
    ],
)
def test_other_writing_gives_the_same_terms(one: str, other: str) -> None:
    assert terms(one) == terms(other)


@pytest.mark.parametrize(
    ("document", "query"),
    [
        ("GB-T5972", "gbt5972"),
        ("ISO-9001", "iso9001"),
        ("发布于2024年6月1日", "2024-06-01"),
        ("2024/6/1", "2024年06月01号"),
        ("2024-06-01", "2024年6月"),
        ("e-mail", "email"),
        ("版本v2.3.1", "2.3.1"),
        ("金额1,200.50元", "1200.50"),
    ],
)
def test_a_query_written_otherwise_meets_the_document(document: str, query: str) -> None:
    whole = words(query)
    assert len(max(set(words(document)) & set(whole), key=len, default="")) >= 5


def test_offsets_give_the_source_as_it_was_written() -> None:
    text = "依ＧＢ／Ｔ ５９７２，差\u200b旅報銷1,200.50元，㎏與ﬁle；Running"
    assert sources(text, "gb/t5972") == ["ＧＢ／Ｔ ５９７２"]
    assert sources(text, "t5972") == ["Ｔ ５９７２"]
    assert sources(text, "差旅") == ["差\u200b旅"]
    assert sources(text, "报销") == ["報銷"]
    assert sources(text, "1200.50") == ["1,200.50"]
    assert sources(text, "kg") == ["㎏"]
    assert sources(text, "file") == ["ﬁle"]
    assert sources(text, "run") == ["Running"]


def test_bigrams_hold_pairs_characters_and_all_latin_words() -> None:
    assert bigrams("差旅费") == ["差旅", "旅费", "差", "旅", "费"]
    assert bigrams("费") == ["费"]
    assert bigrams("用Excel") == ["用", "excel"]
    assert "gb/t5972" in bigrams("见GB/T 5972")
    assert bigrams("가나다") == ["가나", "나다"]
    assert "2024-06-01" in bigrams("2024年6月1日")


def test_stop_words_go_unless_there_is_nothing_else() -> None:
    assert words("the report of the year") == ["report", "year"]
    assert words("The Who") == ["the", "who"]
    assert "it" in words("the IT department")  # a department's name, so no stop word here


@settings(deadline=None)
@given(MIXED)
@example("\ud800a\udfff")
@example("a" * 300 + "\u3000" + "１" * 300)
@example("x." * 200)
def test_terms_and_offsets_keep_the_contract(text: str) -> None:
    analysis = ANALYZER.analyze(text)
    assert analysis == ANALYZER.analyze(text)
    for token in (*analysis.words, *analysis.bigrams):
        assert 0 < len(token.term) <= MAX_TERM_CHARS
        assert not WHITE.search(token.term)
        assert 0 <= token.start < token.end <= len(text)
    assert bool(analysis.words) == bool(analysis.bigrams)


@settings(deadline=None)
@given(MIXED)
def test_the_source_of_a_han_term_is_that_term(text: str) -> None:
    analysis = ANALYZER.analyze(text)
    for token in (*analysis.words, *analysis.bigrams):
        if re.fullmatch("[\u4e00-\u9fff]+", token.term):
            assert token.term in NORMALIZER.normalize(text[token.start : token.end]).text


@settings(deadline=None)
@given(st.lists(st.sampled_from(sentences()), max_size=8).map("。".join))
def test_traditional_and_simplified_agree(text: str) -> None:
    traditional = TO_TRADITIONAL.convert(text)
    simplified = TO_SIMPLIFIED.convert(traditional)
    assert terms(traditional) == terms(simplified)


@settings(deadline=None)
@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E)))
def test_full_width_and_case_do_not_matter(text: str) -> None:
    wide = "".join(chr(ord(char) + 0xFEE0) for char in text)
    assert terms(wide) == terms(text) == terms(text.upper()) == terms(text.lower())


def test_eight_threads_get_what_one_gets() -> None:
    analyzer = JiebaAnalyzer()
    texts = [f"{text} employees{n} running v{n}.1 書{n}" for n, text in enumerate(sentences())]
    expected = [ANALYZER.analyze(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: [analyzer.analyze(text) for text in texts], range(8)):
            assert found == expected


NASTY = {
    "letters": "a",
    "digits": "1",
    "dotted digits": "1.",
    "thousands": ",000",
    "hyphens": "ab-",
    "marks": "\u0301",
    "stops": ".",
    "quotes": "a'",
    "underscores": "_",
    "names": "abc 12",
    "years": "2024年",
    "ligatures": "ﬁ",
    "one Han run": "差旅费",
    "Kana": "ｶﾞ",
    "joiners": "\u200d",
    "blanks": " ",
}


@pytest.mark.parametrize("unit", NASTY.values(), ids=NASTY.keys())
def test_time_grows_with_length(unit: str) -> None:
    text = "1" + unit * (60_000 // len(unit)) + "!"
    started = process_time()
    ANALYZER.analyze(text)
    assert process_time() - started < 3  # a quadratic step takes minutes


def test_a_long_text() -> None:
    text = "差旅报销标准是什么呢？请看制度。" * 20_000
    started = process_time()
    analysis = ANALYZER.analyze(text)
    assert process_time() - started < 20
    assert analysis.words[-1].end == len(text) - 1
