from server.analysis.analyzer import JiebaAnalyzer
from server.answering.extract import MAX_CHARS, MAX_SENTENCES, extract
from tests.answering.test_prompt import hit

ANALYZER = JiebaAnalyzer()


def test_sentences_that_share_the_question_s_words_are_quoted_with_their_source():
    sources = [
        hit(1, "## 住宿标准\n- 一类城市住宿每晚上限 600 元。\n- 出租车凭票报销。"),
        hit(2, "食堂七点开门。住宿登记在前台办理。"),
    ]

    text = extract("住宿上限是多少", sources, ANALYZER)

    assert text.splitlines() == ["一类城市住宿每晚上限 600 元。 [1]", "住宿登记在前台办理。 [2]"]


def test_without_a_shared_word_the_best_source_speaks_for_itself():
    assert extract("vacation", [hit(1, "年休假为五天。")], ANALYZER) == "年休假为五天。 [1]"


def test_an_extract_is_short():
    sources = [hit(n, "".join(f"住宿第{i}条。" for i in range(9)) + "住宿" * 900) for n in (1, 2)]

    lines = extract("住宿", sources, ANALYZER).splitlines()

    assert len(lines) <= MAX_SENTENCES
    assert all(len(line) < MAX_CHARS + 10 for line in lines)


def test_a_table_gives_its_rows_without_the_head():
    table = "| 城市 | 住宿上限 |\n|---|---|\n| 北京住宿 | 600 |\n| 成都 | 450 |"

    assert extract("北京住宿上限", [hit(1, table)], ANALYZER) == "北京住宿 · 600 [1]"


def test_no_sources_give_nothing():
    assert extract("住宿", [], ANALYZER) == ""
