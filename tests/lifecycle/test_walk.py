"""The walk over a store whose every look is written down: when a finding counts, and what is reported."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Document
from server.errors import EmbedderUnavailable
from server.lifecycle.findings import Kind
from server.lifecycle.suspects import Patience
from server.lifecycle.verify import MAX_LISTED, Report, Seen, verify
from server.stores.audit import Audited, Drift
from server.stores.contract import Store
from server.stores.generations import Generation
from tests.fakes import FakeEmbedder, live_collections
from tests.lifecycle.audited import sound

ANALYZER = JiebaAnalyzer()
EMBEDDER = FakeEmbedder(dimensions=4)
QUICK = Patience(looks=3, seconds=0.1, unfinished=0.4, busy=0.3)


@dataclass
class WrittenDown:
    """A store, as far as a walk asks it. ``looks``: by id, what each look finds; the last one stays.

    ``promotions``: how many walks another generation is promoted during.
    """

    looks: dict[str, Sequence[Audited]]
    drifts: list[Drift] = field(default_factory=list)
    promotions: int = 0
    asked: dict[str, int] = field(default_factory=dict)
    number: int = 1

    @property
    def audits(self) -> "WrittenDown":
        return self

    @property
    def notes(self) -> "WrittenDown":
        return self

    def get(self, collection: str, key: str) -> None:
        """There are no notes."""

    def live(self, name: str, *, fresh: bool = False) -> Generation:
        recipe = live_collections(cast("Store", self), ANALYZER, EMBEDDER).own
        return Generation(
            id=f"{self.number:06}", edition=1, recipe=recipe, state="live", created_at=""
        )

    def refresh(self, collection: str) -> None:
        pass

    def every(self, collection: str) -> Iterator[Audited]:
        for document_id in self.looks:
            yield self.one(collection, document_id)
        if self.promotions:
            self.promotions -= 1
            self.number += 1

    def one(self, collection: str, document_id: str) -> Audited:
        at = self.asked.get(document_id, 0)
        self.asked[document_id] = at + 1
        looks = self.looks[document_id]
        return looks[min(at, len(looks) - 1)]

    def drift(self, collection: str) -> list[Drift]:
        return self.drifts


def whole(name: str = "a", revision: int = 1) -> Audited:
    return sound(Document.create(id=name, text="员工请假。", title="请假"), revision=revision)


def bare(name: str = "a", revision: int = 1) -> Audited:
    """One that has lost its chunks."""
    return replace(whole(name, revision), chunks=())


def unfinished(revision: int = 1) -> Audited:
    return replace(whole("a", revision), complete=False)


def walk(store: WrittenDown, **options: Any) -> Report:
    live = live_collections(cast("Store", store), ANALYZER, EMBEDDER)
    return verify(cast("Store", store), live, "c", **{"patience": QUICK, **options})


def test_a_sound_collection() -> None:
    store = WrittenDown({"a": [whole()], "b": [whole("b")]})
    report = walk(store)
    assert (report.documents, report.chunks, report.found, report.left) == (2, 2, {}, 0)
    assert (report.generation, report.unserved, report.busy) == ("000001", (), 0)
    assert store.asked == {"a": 1, "b": 1}


def test_what_stands_is_found() -> None:
    store = WrittenDown({"a": [bare()], "b": [whole("b")]})
    report = walk(store)
    assert report.found == {Kind.DOCUMENT_WITHOUT_CHUNKS: 1}
    assert [(each.finding.document_id, each.outcome) for each in report.listed] == [("a", "found")]
    assert report.left == 1
    assert store.asked["a"] >= 3
    assert report.seconds >= 0.1


def test_half_of_a_change_is_no_finding() -> None:
    for looks in (
        [bare(), whole()],
        [bare(), bare(), whole(revision=2)],
        [bare(), bare(revision=2), bare(revision=3), whole(revision=4)],
        [bare(), unfinished(2), unfinished(2), unfinished(2), whole(revision=2)],
    ):
        report = walk(WrittenDown({"a": looks}))
        assert (report.found, report.busy) == ({}, 0), looks


def test_a_write_is_cut_off_when_it_stands_still_for_longer_than_a_request_lives() -> None:
    report = walk(WrittenDown({"a": [unfinished()]}))
    assert report.found == {Kind.INCOMPLETE_WRITE: 1}
    assert report.seconds >= QUICK.unfinished


def test_a_document_that_is_written_all_the_time_is_left_out() -> None:
    store = WrittenDown({"a": [bare(revision=n) for n in range(1, 1000)]})
    report = walk(store)
    assert (report.found, report.busy) == ({}, 1)


def test_all_are_counted_and_some_are_listed_the_worst_first() -> None:
    labels = ("acl", "acl\x1fsothers", "document_id", "document_id\x1fsz")
    shown = replace(whole("z").chunks[0], labels=labels)
    looks = {f"d{number:03}": [bare(f"d{number:03}")] for number in range(150)}
    report = walk(WrittenDown({**looks, "z": [replace(whole("z"), chunks=(shown,))]}))
    assert report.found[Kind.DOCUMENT_WITHOUT_CHUNKS] == 150
    assert len(report.listed) == MAX_LISTED + 1
    assert report.listed[0].finding.kind is Kind.WRONG_ACL
    printed = json.loads(json.dumps(report.as_json()))
    assert printed["found"] == {"wrong_acl": 1, "document_without_chunks": 150}
    assert printed["findings"][0]["outcome"] == "found"


def test_suspects_are_settled_before_they_are_too_many() -> None:
    looks = {f"d{number}": [bare(f"d{number}")] for number in range(25_000)}
    waiting = []

    def note(seen: Seen) -> None:
        waiting.append(seen.waiting)

    quick = Patience(looks=1, seconds=0.0)
    report = walk(WrittenDown(looks), patience=quick, progress=note)
    assert report.found == {Kind.DOCUMENT_WITHOUT_CHUNKS: 25_000}
    assert max(waiting) == 10_000


def test_it_can_be_stopped() -> None:
    store = WrittenDown({name: [whole(name)] for name in "abcd"})
    report = walk(store, stop=lambda: "enough" if len(store.asked) == 2 else "")
    assert (report.stopped, report.documents) == ("enough", 1)
    waiting = WrittenDown({"a": [bare()]})
    patient = replace(QUICK, seconds=60.0)
    stopped = walk(waiting, patience=patient, stop=lambda: "enough" if waiting.asked else "")
    assert (stopped.stopped, stopped.found) == ("enough", {})


def test_the_stores_own_findings_are_reported() -> None:
    drift = Drift("text index", "missing", "a:0", "The index lacks it.")
    report = walk(WrittenDown({"a": [whole()]}, drifts=[drift]))
    assert report.found == {Kind.STORE_DRIFT: 1}
    assert report.listed[0].finding.detail == "text index, missing: The index lacks it."


def test_what_is_promoted_meanwhile_is_walked_anew() -> None:
    store = WrittenDown({"a": [whole()]}, promotions=1)
    report = walk(store)
    assert (report.generation, report.documents, store.asked) == ("000002", 1, {"a": 2})
    assert walk(WrittenDown({"a": [whole()]}, promotions=99)).documents == 1


def test_why_this_process_could_not_serve_it() -> None:
    store = WrittenDown({"a": [whole()]})
    live = live_collections(cast("Store", store), ANALYZER, None)
    report = verify(cast("Store", store), live, "c", patience=QUICK)
    assert [type(error) for error in report.unserved] == [EmbedderUnavailable]
    assert report.left == 0
