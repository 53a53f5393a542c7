import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.analysis.analyzer import JiebaAnalyzer
from server.retrieval.evidence import OtherWords, QueryTerms, phrase_terms, query_terms
from server.stores.contract import Frequencies

ANALYZER = JiebaAnalyzer()
texts = st.text(alphabet="差旅费报销标准审批流程ab c1。", max_size=30)


def terms_of(query, chunks=1000, of=None):
    analysis = ANALYZER.analyze(query)
    counts = {name: dict.fromkeys(terms, 10) for name, terms in query_terms(analysis).items()}
    for name, changed in (of or {}).items():
        counts[name] |= changed
    return QueryTerms.of(analysis, Frequencies(chunks=chunks, of=counts))


def test_a_passage_that_has_the_query_in_one_piece_has_all_of_it():
    terms = terms_of("差旅费报销标准")
    passage = ANALYZER.analyze("关于差旅费报销标准的通知")

    assert terms.coverage(passage) == pytest.approx(1)
    assert terms.longest_phrase(passage) == pytest.approx(1)


def test_words_apart_are_covered_and_no_phrase():
    terms = terms_of("差旅 审批")
    passage = ANALYZER.analyze("审批先于一切。这里说的是出差的差旅。")

    assert terms.coverage(passage) == pytest.approx(1)
    assert terms.longest_phrase(passage) == pytest.approx(0.5)


def test_rare_words_count_more():
    terms = terms_of("alpha beta", of={"words": {"alpha": 900, "beta": 1}})

    common, rare = ANALYZER.analyze("alpha"), ANALYZER.analyze("beta")

    assert terms.coverage(rare) > 0.9
    assert terms.coverage(common) < 0.1
    assert terms.coverage(rare) + terms.coverage(common) == pytest.approx(1)


def said(query, own, others, of):
    analysis = ANALYZER.analyze(query)
    otherwise = [OtherWords(frozenset(own), frozenset(each)) for each in others]
    counts = {name: dict.fromkeys(ts, 10) for name, ts in query_terms(analysis, otherwise).items()}
    counts["words"] |= of
    return QueryTerms.of(analysis, Frequencies(chunks=1000, of=counts), otherwise)


def test_what_is_said_in_other_words_is_covered():
    terms = said("alpha beta", {"alpha"}, [{"gamma", "delta"}, {"eta"}], {})

    assert terms.coverage(ANALYZER.analyze("alpha beta")) == pytest.approx(1)
    assert terms.coverage(ANALYZER.analyze("delta beta gamma")) == pytest.approx(1)
    assert terms.coverage(ANALYZER.analyze("eta beta")) == pytest.approx(1)
    assert terms.coverage(ANALYZER.analyze("gamma beta")) == pytest.approx(0.5)


def test_words_that_nobody_wrote_tell_no_more_than_those_in_their_place():
    there = said("alpha beta", {"alpha"}, [{"gamma"}], {"alpha": 10, "gamma": 900})
    lacking = said("alpha beta", {"alpha"}, [{"gamma"}], {"alpha": 0, "gamma": 10})
    common = said("alpha beta", {"alpha"}, [{"gamma"}, {"eta"}], {"alpha": 0, "eta": 900})

    assert there.words["alpha"] == pytest.approx(there.words["beta"])
    assert lacking.words["alpha"] == pytest.approx(lacking.words["beta"])
    assert common.words["alpha"] < 0.2


def test_english_phrases_are_words_side_by_side_in_order():
    terms = terms_of("product group health")

    assert terms.longest_phrase(ANALYZER.analyze("the Product Groups' health")) > 0.6
    assert terms.longest_phrase(ANALYZER.analyze("health of a group")) == pytest.approx(1 / 3)


def test_scripts_and_widths_are_one():
    terms = terms_of("差旅費報銷　ＶＰＮ")

    assert terms.longest_phrase(ANALYZER.analyze("差旅费报销 VPN")) == pytest.approx(1)


@given(texts, texts)
def test_shares_are_shares(query, passage):
    terms, read = terms_of(query), ANALYZER.analyze(passage)

    assert 0 <= terms.coverage(read) <= 1 + 1e-9
    assert 0 <= terms.longest_phrase(read) <= 1 + 1e-9


@given(texts)
def test_a_text_has_all_of_itself(text):
    terms, read = terms_of(text), ANALYZER.analyze(text)

    if terms.total:
        assert terms.coverage(read) == pytest.approx(1)
    if phrase_terms(read):
        assert terms.longest_phrase(read) == pytest.approx(1)


def test_a_query_without_terms_tells_nothing():
    terms = terms_of("！？")

    assert (terms.total, terms.coverage(ANALYZER.analyze("差旅"))) == (0, 0)
    assert terms.longest_phrase(ANALYZER.analyze("差旅")) == 0
