"""Suggestions and did-you-mean on the real analyzer and both real stores."""

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Document
from server.errors import CollectionNotFound
from server.ingest.indexer import Indexer
from server.retrieval.lexicons import Lexicons
from server.retrieval.query_log import QueryLog
from server.retrieval.suggest import Suggester
from server.stores.contract import Store
from server.stores.embedded.store import EmbeddedStore
from tests.fakes import live_collections, make_indexer

ANALYZER = JiebaAnalyzer()
EVERYONE: frozenset[str] = frozenset()
HR = frozenset({"hr"})
ADMIN = None
C = "handbook"
DOCUMENTS = [
    ("travel", "差旅费用报销标准", "员工差旅报销须在十五日内提交。GB/T 5972 钢丝绳。", ["public"]),
    (
        "process",
        "报销流程",
        "差旅报销由财务审批。\n\n# 二、发票要求\n\n发票须真实有效。",
        ["public"],
    ),
    ("english", "Travel Policy", "Reimbursement of travel expenses needs a receipt.", ["public"]),
    ("more", "Terms of Service", "Our terms of service and the travel policy.", ["public"]),
    ("more2", "Notes", "The terms of service were changed. Reimbursement is quick.", ["public"]),
    ("pay", "薪酬调整方案", "极光计划与裁员名单由人事保管。Zephyrus merger.", ["hr"]),
    ("pay2", "极光计划说明", "极光计划涉及裁员名单。薪酬保密。Zephyrus merger.", ["hr"]),
    ("nobody", "董事会纪要", "董事会讨论收购玄武。", []),
]


class Desk:
    """A store with the documents, and what suggests from it."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.log = QueryLog(folder / f"{uuid.uuid4().hex}.sqlite")
        self.live = live_collections(store, ANALYZER)
        self.lexicons = Lexicons(store, self.live, self.log)
        self.suggester = Suggester(store=store, live=self.live, lexicons=self.lexicons)
        self.indexer: Indexer = make_indexer(store, ANALYZER)

    def put(self, document_id: str, title: str, text: str, acl: list[str]) -> None:
        self.indexer.ensure_collection(C)
        document = Document.create(id=document_id, title=title, text=text, acl=acl)
        self.indexer.put(C, [document], refresh=True)

    def texts(
        self, typed: str, groups: frozenset[str] | None = EVERYONE, size: int = 8
    ) -> list[str]:
        found = self.suggester.suggest(typed, C, groups=groups, size=size)
        assert found.degraded == ()
        assert len(found.suggestions) <= size
        return [each.text for each in found.suggestions]

    def meant(self, query: str, groups: frozenset[str] | None = EVERYONE) -> tuple[str, str] | None:
        found = self.suggester.did_you_mean(query, C, groups=groups)
        return (found.query, found.reason) if found else None


@pytest.fixture(scope="module")
def desk(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Read only; tests that write have one of their own."""
    made = Desk(store, tmp_path_factory.mktemp("log"))
    for document in DOCUMENTS:
        made.put(*document)
    for query in ("报销要多久", "报销要多久", "极光计划进展", "极光计划进展", "报销只问一次"):
        made.log.note(C, query, total=3)
    made.log.note(C, "报销没有结果", total=0)
    made.log.note(C, "报销没有结果", total=0)
    made.suggester.prepare(C)
    yield made
    made.suggester.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Desk]:
    store = EmbeddedStore(tmp_path / "store")
    made = Desk(store, tmp_path)
    yield made
    made.suggester.close()
    store.close()


# What is found -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "typed",
    [
        "差旅",
        "差 旅",
        "差旅费",
        "chai",
        "chailv",
        "ChaiLv",
        "ＣＨＡＩＬ",
        "chāi lǚ",
        "chai lv",
        "clf",
        "差lv",
        "clfy",
    ],
)
def test_a_title_is_found_by_how_it_begins_is_read_and_is_abbreviated(
    desk: Desk, typed: str
) -> None:
    assert "差旅费用报销标准" in desk.texts(typed)


@pytest.mark.parametrize(
    "typed", ["差旅bao", "差旅baoxiao", "clbx", "chailvbao", "差旅報", "差率报"]
)
def test_words_that_stand_together_are_suggested(desk: Desk, typed: str) -> None:
    found = desk.texts(typed)
    assert any(text.startswith("差旅") and "报销" in text for text in found), found


def test_initials_may_leave_words_out(desk: Desk) -> None:
    assert "差旅费用报销标准" in desk.texts("clbz")


def test_english_is_completed_in_words_as_they_are_written(desk: Desk) -> None:
    assert desk.texts("reimb") == ["Reimbursement"]
    assert "Travel Policy" in desk.texts("TRAVEL p")
    assert "terms of service" in [text.lower() for text in desk.texts("terms o")]
    assert "GB/T 5972" in desk.texts("gb")


def test_titles_and_headings_say_what_they_are(desk: Desk) -> None:
    found = desk.suggester.suggest("发票要", C, groups=EVERYONE, size=5).suggestions
    assert [(each.text, each.kind) for each in found] == [("发票要求", "heading")]
    found = desk.suggester.suggest("报销流", C, groups=EVERYONE, size=5).suggestions
    assert (found[0].text, found[0].kind) == ("报销流程", "title")


@pytest.mark.parametrize(
    "typed", ["。", "   ", "😀", "x" * 61, "差" * 2_000, "\u200b", "%", "'\"", "zzzzqq"]
)
def test_what_nothing_begins_with_completes_to_nothing(desk: Desk, typed: str) -> None:
    assert desk.texts(typed) == []


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(typed=st.text(st.sampled_from("差旅报销极光薪chailvbxjg 'ü1-"), max_size=12))
def test_nothing_typed_shows_what_a_caller_may_not_see(desk: Desk, typed: str) -> None:
    shown = " ".join(desk.texts(typed))
    meant = desk.meant(typed) or ("", "")
    for text in (shown, meant[0].replace(typed, "")):
        assert not any(word in text for word in ("极光", "薪酬", "裁员", "玄武", "董事"))


# Who may see it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", ["极光", "jiguang", "jgjh", "薪酬", "xinchou", "裁员", "zephy"])
def test_only_who_may_see_a_document_is_told_its_words(desk: Desk, typed: str) -> None:
    assert desk.texts(typed) == []
    assert desk.texts(typed, frozenset({"it", "sales"})) == []
    assert desk.texts(typed, HR)
    assert desk.texts(typed, ADMIN)


def test_what_nobody_may_see_only_an_admin_is_told(desk: Desk) -> None:
    assert desk.texts("董事会", HR) == []
    assert "董事会纪要" in desk.texts("董事会", ADMIN)


@pytest.mark.parametrize("query", ["zephirus", "即光计划", "jiguangjihua"])
def test_corrections_are_kept_from_others_too(desk: Desk, query: str) -> None:
    assert desk.meant(query) is None
    assert desk.texts(query) == []
    assert desk.meant(query, HR) is not None


def test_a_document_that_is_taken_away_takes_its_words_along_at_once(own: Desk) -> None:
    for document in DOCUMENTS:
        own.put(*document)
    own.suggester.prepare(C)
    assert own.texts("极光", HR)
    for name in ("pay", "pay2"):
        own.put(name, "x", "y", ["hr"])
    assert own.texts("极光", HR) == []
    assert "差旅费用报销标准" in own.texts("chailvf")
    own.put("travel", "差旅费用报销标准", "员工差旅报销。", ["finance"])
    assert "差旅费用报销标准" not in own.texts("chailvf")


def test_earlier_queries_are_offered_where_their_words_may_be_seen(desk: Desk) -> None:
    for query in ("报销流程审批", "报销流程审批", "极光计划裁员", "极光计划裁员"):
        desk.log.note(C, query, total=2)
    desk.suggester.prepare(C)
    assert "报销流程审批" in desk.texts("报销流程审")
    assert desk.texts("极光计划裁") == []
    assert "极光计划裁员" in desk.texts("极光计划裁", HR)


def test_a_query_asked_once_or_in_vain_is_not_offered(desk: Desk) -> None:
    assert desk.texts("报销只问") == []
    assert desk.texts("报销没有") == []


# What was meant ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("差率报销", ("差旅报销", "pinyin")),
        ("差率报销流程", ("差旅报销流程", "pinyin")),
        ("chailv", ("差旅", "pinyin")),
        ("chailv baoxiao", ("差旅报销", "pinyin")),
        ("chailvbaoxiao", ("差旅报销", "pinyin")),
        ("差旅baoxiao", ("差旅报销", "pinyin")),
        ("reimbursemnt", ("reimbursement", "spelling")),
        ("Travle policy", ("Travel policy", "spelling")),
        ("rtavel receipt", ("travel receipt", "spelling")),
    ],
)
def test_slips_are_mended(desk: Desk, query: str, expected: tuple[str, str]) -> None:
    assert desk.meant(query) == expected


@pytest.mark.parametrize(
    "query",
    [
        "差旅报销",
        "差旅費用",
        "travel policy",
        "reimbursements",
        "Terms of Service",
        "发票",
        "GB/T 5972",
        "天气预报",
        "5972",
        "。",
        "x" * 2_000,
        "差" * 2_000,
    ],
)
def test_what_is_right_or_unknown_stays(desk: Desk, query: str) -> None:
    assert desk.meant(query) is None


# How it keeps up -----------------------------------------------------------------------------------


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_request_never_waits_for_the_phrases_to_be_made(own: Desk) -> None:
    own.put(*DOCUMENTS[0])
    first = own.suggester.suggest("差旅", C, groups=EVERYONE, size=5)
    assert first.suggestions == ()
    assert [each.stage for each in first.degraded] == ["suggest"]

    def ready() -> bool:
        return not own.suggester.suggest("差旅", C, groups=EVERYONE, size=5).degraded

    until(ready)
    assert own.texts("差旅") == ["差旅费用报销标准", "差旅费"]


def test_nothing_is_meant_before_the_phrases_are_made(own: Desk) -> None:
    own.put(*DOCUMENTS[0])
    assert own.suggester.did_you_mean("差率", C, groups=EVERYONE) is None


def test_new_documents_are_followed(own: Desk) -> None:
    own.put(*DOCUMENTS[0])
    own.suggester.prepare(C)
    assert own.texts("报销流") == []
    own.put(*DOCUMENTS[1])
    until(lambda: own.texts("报销流") == ["报销流程"])


def test_another_collection_of_the_name_starts_over(own: Desk) -> None:
    own.put(*DOCUMENTS[0])
    own.suggester.prepare(C)
    own.store.delete_collection(C)
    with pytest.raises(CollectionNotFound):
        own.suggester.suggest("差旅", C, groups=EVERYONE, size=5)
    own.put(*DOCUMENTS[2])
    assert own.texts("差旅") == []
    until(lambda: own.texts("tra"))


def test_a_closed_one_starts_nothing(own: Desk) -> None:
    own.put(*DOCUMENTS[0])
    own.suggester.close()
    own.suggester.close()
    assert own.suggester.suggest("差旅", C, groups=EVERYONE, size=5).degraded
