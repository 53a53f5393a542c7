"""The answerer on the real pipeline; the generator is a fake where it must fail on demand."""

import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.answering.answerer import Answerer, Question
from server.answering.events import Citations, Done, Failed, Sources, Token
from server.documents import Document
from server.errors import (
    CollectionNotFound,
    GeneratorInterrupted,
    GeneratorUnavailable,
    InvalidInput,
)
from server.ingest.indexer import Indexer
from server.models.contract import Generated, Message
from server.retrieval.searcher import Searcher
from server.stores.embedded.store import EmbeddedStore
from tests.fakes import live_collections

DOCUMENTS = [
    Document.create(id="travel", title="差旅标准", text="一类城市住宿每晚上限六百元。"),
    Document.create(id="meals", title="餐补", text="住宿之外，伙食补贴每天一百二十元。"),
]


class ScriptedGenerator:
    """Says the pieces it was given, then fails or ends; records prompts and whether it was closed."""

    name = "scripted"
    context_tokens = 4096
    message_overhead = 10

    def __init__(self, *pieces, fails=None, reason="stop"):
        self.pieces, self.fails, self.reason = pieces, fails, reason
        self.prompts = []
        self.closed = False

    def count_tokens(self, text):
        return len(text)

    def check(self):
        return "scripted"

    def stream(self, messages, *, max_tokens):
        self.prompts.append(messages)
        try:
            yield from self.pieces
            if self.fails:
                raise self.fails
            yield Generated(reason=self.reason)
        finally:
            self.closed = True


@pytest.fixture(scope="module")
def analyzer():
    return JiebaAnalyzer()


@pytest.fixture(scope="module")
def searcher(analyzer, tmp_path_factory):
    store = EmbeddedStore(tmp_path_factory.mktemp("store"))
    live = live_collections(store, analyzer)
    indexer = Indexer(store, live)
    indexer.ensure_collection("default")
    indexer.put("default", DOCUMENTS, refresh=True)
    yield Searcher(store=store, live=live, reranker=None)
    store.close()


@pytest.fixture
def make_answerer(searcher, analyzer):
    def make(generator, **options):
        return Answerer(searcher=searcher, analyzer=analyzer, generator=generator, **options)

    return make


ASKED = Question(question="住宿上限是多少？")


def test_sources_come_first_then_tokens_then_citations(make_answerer):
    generator = ScriptedGenerator("上限为", "六百元[1]。", "另有伙食补贴。")

    events = list(make_answerer(generator).stream(ASKED, groups=None))

    assert [type(event) for event in events] == [Sources, Token, Token, Token, Citations, Done]
    answer = events[-1].answer
    assert answer.answer == "上限为六百元[1]。另有伙食补贴。"
    assert answer.status == "answered"
    assert answer.model == "scripted"
    (citation,) = answer.citations
    assert citation.chunk_id == answer.sources[0].chunk_id == "travel:0"
    assert [sentence.citations for sentence in answer.sentences] == [(1,), ()]
    assert set(answer.context.used) == {"travel:0", "meals:0"}
    assert generator.closed


def test_the_prompt_separates_instructions_from_passages(make_answerer):
    generator = ScriptedGenerator("好。")

    make_answerer(generator).answer(ASKED, groups=None)

    (messages,) = generator.prompts
    assert [message.role for message in messages] == ["system", "user"]
    assert '<source number="1" title="差旅标准">\n一类城市住宿每晚上限六百元。\n</source>' in (
        messages[1].content
    )
    assert "一类城市" not in messages[0].content


def test_a_reader_who_leaves_stops_the_generator(make_answerer):
    generator = ScriptedGenerator("一", "二", "三")
    stream = make_answerer(generator).stream(ASKED, groups=None)
    while not isinstance(next(stream), Token):
        pass

    stream.close()

    assert generator.closed


def test_a_generator_that_breaks_off_gives_a_typed_failure_with_what_came(make_answerer):
    generator = ScriptedGenerator("上限为[1]", fails=GeneratorInterrupted("Ollama stopped."))
    answerer = make_answerer(generator)

    last = list(answerer.stream(ASKED, groups=None))[-1]

    assert isinstance(last, Failed)
    assert last.error.code == "generator_interrupted"
    assert last.answer.status == "partial"
    assert last.answer.citations[0].number == 1
    assert answerer.answer(ASKED, groups=None).reason == "Ollama stopped."


def test_an_answer_cut_at_its_length_says_so(make_answerer):
    answer = make_answerer(ScriptedGenerator("很长", reason="length")).answer(ASKED, groups=None)

    assert answer.status == "partial"
    assert "cut off" in answer.reason


@pytest.mark.parametrize(
    "generator", [None, ScriptedGenerator(fails=GeneratorUnavailable("Ollama is down."))]
)
def test_without_a_generator_the_answer_is_an_extract_and_says_why(make_answerer, generator):
    answerer = make_answerer(generator, missing={"generator": "Ollama is down."})

    events = list(answerer.stream(ASKED, groups=None))

    answer = events[-1].answer
    assert answer.status == "extract"
    assert answer.reason == "Ollama is down."
    assert answer.model is None
    assert "一类城市住宿每晚上限六百元。 [1]" in answer.answer
    assert answer.citations[0].document_id == "travel"
    assert "generator" in [degraded.stage for degraded in answer.degraded]
    assert [type(event) for event in events] == [Sources, Token, Citations, Done]


def test_nothing_found_is_refused_without_asking_the_generator(make_answerer):
    generator = ScriptedGenerator("编造。")

    answer = make_answerer(generator).answer(Question(question="qwertyuiop"), groups=None)

    assert answer.status == "refused"
    assert answer.answer == ""
    assert generator.prompts == []


def test_a_follow_up_is_searched_with_the_question_before_it(make_answerer):
    history = (Message("user", "住宿上限是多少？"), Message("assistant", "六百元。"))
    generator = ScriptedGenerator("同上。")

    answer = make_answerer(generator).answer(
        Question(question="那补贴呢？", history=history), groups=None
    )

    assert answer.standalone_question == "住宿上限是多少？\n那补贴呢？"
    assert [message.content for message in generator.prompts[0][1:3]] == [
        "住宿上限是多少？",
        "六百元。",
    ]


def test_a_question_too_long_for_the_context_is_refused_by_name(make_answerer):
    generator = ScriptedGenerator("好。")
    generator.context_tokens = 2000
    asked = Question(question="住宿" * 900)

    with pytest.raises(InvalidInput, match="shorten"):
        make_answerer(generator).answer(asked, groups=None)
    assert isinstance(list(make_answerer(generator).stream(asked, groups=None))[-1], Failed)


def test_what_the_search_raises_comes_before_any_event(make_answerer):
    stream = make_answerer(None).stream(Question(question="问", collection="none"), groups=None)

    with pytest.raises(CollectionNotFound):
        next(stream)


@pytest.mark.parametrize(
    "wrong",
    [
        {"question": ""},
        {"question": "x" * 3000},
        {"question": "a\x00"},
        {"history": (Message("user", "x"),) * 51},
        {"history": (Message("user", "x" * 20_001),)},
    ],
)
def test_wrong_questions_are_refused(wrong):
    with pytest.raises(InvalidInput):
        Question(**{"question": "问", **wrong})
