"""Profiles as versions: kept with who and why, gone back to, followed by searches."""

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Document
from server.errors import InvalidInput, NoteConflict, StoreUnavailable, VersionNotFound
from server.recipes import Recipe
from server.retrieval.fusion import Fusion
from server.retrieval.profile import Profile
from server.retrieval.profiles import KEPT, KEY, MAX_REPORT_BYTES, Profiles, QueryProfiles
from server.retrieval.query import SearchQuery
from server.retrieval.searcher import Searcher
from server.stores.contract import Store
from server.stores.embedded.store import EmbeddedStore
from tests.fakes import FakeEmbedder, live_collections, make_indexer

C = "c"
STEEP = Profile(fusion=Fusion(vector=3.0))
WIDE = Profile(fusion=Fusion(window=400))


@pytest.fixture
def profiles(store: Store) -> Iterator[Profiles]:
    recipe = Recipe(embedder="", dimensions=0, analyzer="test", chunker="test")
    store.create_collection(C, recipe=recipe)
    yield Profiles(store.notes)
    store.delete_collection(C)


def save(profiles: Profiles, profile: Profile, **options: Any) -> None:
    assert profiles.save(C, profile, author="lin", **options) is not None


def test_every_change_is_a_version_with_who_when_and_why(profiles: Profiles) -> None:
    assert profiles.latest(C) == 0
    assert profiles.profile(C) == Profile()
    save(profiles, STEEP, comment="tuned", report={"gain": 0.02})
    assert profiles.save(C, WIDE, author="wang") is not None
    assert profiles.profile(C) == WIDE
    assert profiles.profile(C, 1) == STEEP
    latest, first = profiles.history(C)
    assert (latest.version, latest.author, latest.comment, latest.report) == (2, "wang", "", None)
    assert (first.version, first.author, first.comment) == (1, "lin", "tuned")
    assert first.values == {"fusion": {"vector": 3.0}}
    assert first.report == {"gain": 0.02}
    assert first.at <= latest.at


def test_what_is_in_force_already_makes_no_version(profiles: Profiles) -> None:
    assert profiles.save(C, Profile(), author="lin") is None
    save(profiles, STEEP)
    assert profiles.save(C, STEEP, author="lin") is None
    assert profiles.roll_back(C, 1, author="lin") is None
    assert profiles.latest(C) == 1


def test_a_way_back_to_any_version_and_to_the_defaults(profiles: Profiles) -> None:
    save(profiles, STEEP)
    save(profiles, WIDE)
    profiles.roll_back(C, 1, author="lin")
    assert (profiles.latest(C), profiles.profile(C)) == (3, STEEP)
    made = profiles.roll_back(C, 0, author="lin")
    assert made is not None
    assert (made.version, made.comment, made.values) == (4, "the defaults", {})
    assert profiles.profile(C) == Profile()
    with pytest.raises(VersionNotFound, match="no version 9"):
        profiles.roll_back(C, 9, author="lin")


def test_a_version_says_only_what_was_chosen(profiles: Profiles, store: Store) -> None:
    save(profiles, STEEP)
    later = Profiles(store.notes, default=Profile(fusion=Fusion(window=300)))
    assert later.profile(C) == Profile(fusion=Fusion(vector=3.0, window=300))


def test_of_two_changes_of_the_same_version_one_is_refused(profiles: Profiles) -> None:
    save(profiles, STEEP, expected=0)
    with pytest.raises(NoteConflict, match="at version 1 by now, not at 0"):
        profiles.save(C, WIDE, author="wang", expected=0)
    assert profiles.profile(C) == STEEP


def test_changes_at_once_all_get_in(profiles: Profiles) -> None:
    def change(number: int) -> None:
        profiles.save(C, Profile(fusion=Fusion(window=500 + number)), author=str(number))

    threads = [threading.Thread(target=change, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = profiles.history(C)
    assert [each.version for each in history] == list(range(8, 0, -1))
    assert {each.author for each in history} == {str(number) for number in range(8)}


def test_the_oldest_versions_go(profiles: Profiles, store: Store) -> None:
    save(profiles, STEEP)
    [first] = profiles.history(C)
    log = [asdict(first) | {"version": number} for number in range(1, KEPT + 1)]
    store.notes.put(C, KEY, {"log": log})
    save(profiles, WIDE)
    assert profiles.latest(C) == KEPT + 1
    assert len(profiles.history(C)) == KEPT
    assert profiles.profile(C, 2) == STEEP
    with pytest.raises(VersionNotFound):
        profiles.profile(C, 1)


def test_what_is_too_long_is_refused(profiles: Profiles) -> None:
    for wrong in (
        {"author": "a" * 101},
        {"author": "a", "comment": "c" * 501},
        {"author": "a", "comment": "\x00"},
        {"author": "a", "report": {"text": "x" * MAX_REPORT_BYTES}},
    ):
        with pytest.raises(InvalidInput):
            profiles.save(C, STEEP, **wrong)
    assert profiles.latest(C) == 0


class Away:
    """Notes of a store that can be away."""

    def __init__(self, store: Store) -> None:
        self.away = False
        self._notes = store.notes

    def __getattr__(self, name: str) -> Any:
        if self.away:
            raise StoreUnavailable("The store is away.")
        return getattr(self._notes, name)


def test_searches_follow_what_another_process_changed(profiles: Profiles, store: Store) -> None:
    notes = Away(store)
    followed = QueryProfiles(notes, seconds=0.05)  # type: ignore[arg-type]
    assert followed.of(C).profile == Profile()
    save(profiles, STEEP)
    time.sleep(0.06)
    assert followed.of(C).profile == STEEP
    notes.away = True
    time.sleep(0.06)
    assert followed.of(C).profile == STEEP
    with pytest.raises(StoreUnavailable):
        followed.of("other")


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"log": [{"version": "x"}]},
        {
            "log": [
                {
                    "version": 7,
                    "at": "",
                    "author": "",
                    "comment": "",
                    "values": {"of_a_later_program": 1},
                }
            ]
        },
    ],
)
def test_a_profile_that_cannot_be_read_degrades_a_search_and_no_more(
    profiles: Profiles, store: Store, value: Mapping[str, Any]
) -> None:
    store.notes.put(C, KEY, value)
    found = QueryProfiles(store.notes, seconds=1).of(C)
    assert found.profile == Profile()
    assert "scripts/tune --collection c --defaults" in found.problem
    with pytest.raises(InvalidInput):
        profiles.profile(C)


def test_a_request_goes_before_the_profile_and_the_profile_before_the_default(
    tmp_path: Path,
) -> None:
    store = EmbeddedStore(tmp_path)
    analyzer, embedder = JiebaAnalyzer(), FakeEmbedder()
    indexer = make_indexer(store, analyzer, embedder)
    indexer.ensure_collection(C)
    indexer.put(C, [Document.create(id="a", text="差旅报销标准")], refresh=True)
    rrf = Profile(fusion=Fusion(method="rrf"))
    Profiles(store.notes).save(C, rrf, author="lin")

    def fused(**options: Any) -> float:
        live = live_collections(store, analyzer, embedder)
        searcher = Searcher(store=store, live=live, reranker=None)
        found = searcher.search(
            SearchQuery(query="报销", collection=C, rerank=False, **options), groups=None
        )
        nonlocal degraded
        degraded = [each.stage for each in found.degraded]
        return found.hits[0].scores["fused"]

    degraded: list[str] = []
    by_rrf, by_convex = pytest.approx(2 / 61), pytest.approx(1.0)
    by_default = pytest.approx(fused(fusion=Fusion()))
    assert by_default not in (by_rrf.expected, by_convex.expected)
    assert fused() == by_rrf
    assert fused(fusion=Fusion(method="convex")) == by_convex
    assert fused(profile=Profile()) == by_default
    assert fused(profile=Profile(), fusion=Fusion(method="rrf")) == by_rrf
    assert degraded == []
    store.notes.put(C, KEY, {"log": "damaged"})
    assert fused() == by_default
    assert degraded == ["profile"]
    store.close()
