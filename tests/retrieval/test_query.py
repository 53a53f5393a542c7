"""What of a query goes to the BM25 retriever: its terms, those that synonyms and other writings of numbers
add, without stop words."""

from collections.abc import Iterator

import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.analysis.normalize import Normalizer
from server.analysis.stopwords import StopWords
from server.analysis.synonyms import Synonyms
from server.documents import Chunk, Document, IndexedChunk
from server.recipes import Recipe
from server.retrieval.highlight import highlight
from server.retrieval.profile import Profile
from server.retrieval.query import (
    ADDED_WEIGHT,
    additions,
    text_clauses,
    with_additions,
)
from server.stores.contract import LegsRequest, TextClause, Write
from server.stores.embedded.store import EmbeddedStore

ANALYZER = JiebaAnalyzer()
NORMALIZER = Normalizer()
PROFILE = Profile(field_weights={"words": 1.0, "bigrams": 0.5, "title_words": 0.2})


def clauses(query: str, *lines: str, stop_words: tuple[str, ...] = ()) -> tuple[TextClause, ...]:
    return text_clauses(
        ANALYZER.analyze(query),
        Profile(),
        added=additions(query, ANALYZER, NORMALIZER, Synonyms.parse(lines)),
        stop_words=StopWords.parse(stop_words),
    )


def test_without_synonyms_there_is_one_clause_a_field() -> None:
    analysis = ANALYZER.analyze("报销")
    assert text_clauses(analysis, PROFILE) == (
        TextClause(field="words", terms=("报销",), weight=1.0),
        TextClause(field="bigrams", terms=("报销",), weight=0.5),
        TextClause(field="title_words", terms=("报销",), weight=0.2),
    )
    assert text_clauses(ANALYZER.analyze("，"), PROFILE) == ()


def test_single_characters_have_a_weight_of_their_own_in_the_field_of_bigrams() -> None:
    profile = Profile(field_weights={"bigrams": 0.5, "characters": 2.0, "title_bigrams": 0.1})
    assert text_clauses(ANALYZER.analyze("报销vpn"), profile) == (
        TextClause(field="bigrams", terms=("报销", "vpn"), weight=0.5),
        TextClause(field="bigrams", terms=("报", "销"), weight=2.0),
        TextClause(field="title_bigrams", terms=("报销", "vpn"), weight=0.1),
        TextClause(field="title_bigrams", terms=("报", "销"), weight=0.1),
    )


def test_a_synonym_weighs_half_of_the_phrase_that_it_stands_for() -> None:
    found = text_clauses(
        ANALYZER.analyze("笔记本"),
        PROFILE,
        added=additions("笔记本", ANALYZER, NORMALIZER, Synonyms.parse(["笔记本, laptop"])),
    )
    assert TextClause(field="words", terms=("laptop",), weight=0.5) in found
    assert TextClause(field="bigrams", terms=("laptop",), weight=0.25) in found
    assert TextClause(field="title_words", terms=("laptop",), weight=0.1) in found


def test_a_long_synonym_weighs_no_more_than_a_short_one() -> None:
    found = clauses("vpn", "vpn, 虚拟专用网络")
    for name in ("words", "bigrams"):
        total = sum(
            clause.weight * len(clause.terms)
            for clause in found
            if clause.field == name and "vpn" not in clause.terms
        )
        assert total == pytest.approx(ADDED_WEIGHT * Profile().field_weights[name])


def test_terms_of_the_query_are_not_added_again() -> None:
    found = clauses("报销流程", "报销流程, 报销步骤")
    for name in ("words", "bigrams"):
        terms = [term for clause in found if clause.field == name for term in clause.terms]
        assert len(terms) == len(set(terms))
    assert "步骤" in {term for clause in found for term in clause.terms}


def test_stop_words_are_left_out_of_every_field() -> None:
    terms = {term for each in clauses("关于报销", stop_words=("关于",)) for term in each.terms}
    assert "报销" in terms
    assert not {"关于", "关", "于"} & terms


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    opened = EmbeddedStore(tmp_path_factory.mktemp("store"))
    recipe = Recipe(embedder="", dimensions=0, analyzer=ANALYZER.fingerprint, chunker="whole")
    opened.create_collection("c", recipe=recipe)
    texts = {
        "exact": "员工的宽带连接说明",
        "synonym": "员工的光缆连接说明",
        "long": "员工的虚拟专用网络连接说明",
        "other": "员工的食堂菜单说明",
        "figures": "离职须提前15日提出",
        "characters": "离职须提前十五日提出",
        "article": "第三十条 加班须经批准",
    }
    opened.write("c", [_write(name, text) for name, text in texts.items()], refresh=True)
    yield opened
    opened.close()


def _write(name: str, text: str) -> Write:
    analysis = ANALYZER.analyze(text)
    terms = {
        "words": tuple(token.term for token in analysis.words),
        "bigrams": tuple(token.term for token in analysis.bigrams),
        "title_words": (),
        "title_bigrams": (),
    }
    chunk = Chunk(document_id=name, position=0, text=text, start=0, end=len(text))
    indexed = IndexedChunk(chunk=chunk, terms=terms, vector=None)
    return Write(document=Document.create(id=name, text=text), chunks=(indexed,))


def ranked(store: EmbeddedStore, query: str, *lines: str) -> list[str]:
    leg = store.search("c", LegsRequest(text=clauses(query, *lines))).bm25
    assert leg is not None
    return [chunk_id.removesuffix(":0") for chunk_id, _ in leg.hits]


def test_the_exact_word_ranks_above_its_synonyms(store: EmbeddedStore) -> None:
    assert ranked(store, "宽带") == ["exact"]
    found = ranked(store, "宽带", "宽带, 光缆, 虚拟专用网络")
    assert found[0] == "exact"
    assert set(found[1:]) == {"synonym", "long"}


def test_a_one_way_rule_does_not_find_backwards(store: EmbeddedStore) -> None:
    assert ranked(store, "宽带", "宽带 => 光缆") == ["exact", "synonym"]
    assert ranked(store, "光缆", "宽带 => 光缆") == ["synonym"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("15日", ["figures", "characters"]),
        ("十五日", ["characters", "figures"]),
        ("15天内", ["figures", "characters"]),
        ("第30条", ["article"]),
    ],
)
def test_a_number_finds_its_other_writing_after_its_own(
    store: EmbeddedStore, query: str, expected: list[str]
) -> None:
    assert ranked(store, query)[: len(expected)] == expected


def test_highlights_show_synonyms_too() -> None:
    found = additions("宽带", ANALYZER, NORMALIZER, Synonyms.parse(["宽带 => 光缆"]))
    assert [addition.phrase for addition in found] == ["光缆"]
    terms = with_additions(ANALYZER.analyze("宽带"), found)
    text = "光缆和宽带"
    spans = highlight(text, terms, ANALYZER)
    assert [text[span.start : span.end] for span in spans] == ["光缆", "宽带"]
