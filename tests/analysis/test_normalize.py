import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.analysis.normalize import Normalizer

NORMALIZER = Normalizer()

TRICKY = st.text(
    st.sampled_from(
        "aé\u0301\u0323ßﬁ㈱㎏ｶﾞﾊﾟ가각각ﾡￂＡ１，。繁體發髮乾隆麼😀👨\u200d👩\u00ad\u0345ΑΣİ\ufdfa𠮷\u0fb3 \n"
    )
)


def test_the_same_text_in_other_writing_is_the_same() -> None:
    def normal(text: str) -> str:
        return NORMALIZER.normalize(text).text

    assert normal("ＧＢ／Ｔ　５９７２") == "gb/t 5972"
    assert normal("ﬁle ㎏ ｶﾞｽ STRASSE Straße") == "file kg ガス strasse strasse"
    assert normal("差\u200b旅\ufeff費\u00ad") == "差旅费"
    assert normal("乾隆年間，乾燥") == "乾隆年间,干燥"  # a phrase and a character of OpenCC
    assert normal("cafe\u0301") == normal("CAFÉ") == "café"
    assert normal("a\ud800b\x00c\u2028d\x1ce\u3000f\x85g") == "a b c d e f g"


@pytest.mark.parametrize(
    ("text", "part", "source"),
    [
        ("的ﬁle", "file", "ﬁle"),
        ("重5㎏。", "kg", "㎏"),
        ("㈱日立", "株", "㈱"),
        ("ｶﾞｽ管", "ガ", "ｶﾞ"),
        ("ｶﾞｽ管", "管", "管"),
        ("cafe\u0301 x", "é", "e\u0301"),
        ("👨\u200d👩差旅費", "差旅费", "差旅費"),
        ("差\u200b旅", "差旅", "差\u200b旅"),
        ("𠮷㎏體", "体", "體"),
        ("각각", "각", "각"),
    ],
)
def test_offsets_lead_to_the_source(text: str, part: str, source: str) -> None:
    normalized = NORMALIZER.normalize(text)
    place = normalized.text.index(part)
    start, end = normalized.span(place, place + len(part))
    assert text[start:end] == source


@settings(deadline=None)
@given(st.one_of(st.text(st.characters()), TRICKY))
@example("\ud800\u0301")
def test_every_code_point_has_a_place_and_order_is_kept(text: str) -> None:
    normalized = NORMALIZER.normalize(text)
    spans = [normalized.span(place, place + 1) for place in range(len(normalized.text))]
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert spans == sorted(spans)
    assert not [char for char in normalized.text if char.isspace() and char != " "]


@settings(deadline=None)
@given(st.one_of(st.text(), TRICKY))
def test_normalising_by_clusters_is_normalising_the_whole(text: str) -> None:
    kept = "".join(char for char in text if NORMALIZER.normalize(char).text)  # none ignorable
    whole = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", kept).casefold())
    assert NORMALIZER.normalize(kept).text == NORMALIZER.normalize(whole).text


@settings(deadline=None)
@given(TRICKY, TRICKY)
def test_a_text_is_normalised_alike_whatever_stands_beside_it(first: str, second: str) -> None:
    def normal(text: str) -> str:
        return NORMALIZER.normalize(text).text

    assert normal(f"{first}\n{second}") == f"{normal(first)} {normal(second)}"
