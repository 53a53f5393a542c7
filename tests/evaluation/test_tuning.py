"""Tuning: replays are what searches find, what is chosen gains where it was not chosen, and chance is
not taken for a gain."""

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Document
from server.errors import InvalidInput, NoteConflict
from server.evaluation.measures import measure
from server.evaluation.replay import Recorder, gain
from server.evaluation.tuner import Judged, Tuner
from server.evaluation.tuning import FEWEST_QUERIES, Trials, Tunable, choose, value_at, with_value
from server.retrieval.fusion import Fusion
from server.retrieval.profile import WEIGHTED, Profile
from server.retrieval.profiles import Profiles
from server.retrieval.query import SearchQuery
from server.retrieval.searcher import Searcher
from server.stores.contract import Store
from server.stores.elasticsearch.store import ElasticsearchStore
from server.stores.embedded.store import EmbeddedStore
from server.vocabulary import Vocabulary
from tests.fakes import FakeEmbedder, live_collections, make_indexer
from tests.services.elasticsearch import targets

C = "books"
WORDLESS = "wordless"  # of no embedder
TITLES = [f"{first}{second}" for first in "红蓝绿黄紫黑" for second in "山河海湖云雨雪"]
DEPTH = 400


@dataclass(frozen=True)
class Library:
    """Books whose titles say what they are about, while their texts speak of other books."""

    store: Store
    searcher: Searcher
    judged: Judged

    @property
    def profiles(self) -> Profiles:
        return Profiles(self.store.notes)

    @property
    def tuner(self) -> Tuner:
        return Tuner(self.store, self.searcher, self.profiles)

    def found(self, query: str, profile: Profile, collection: str = C) -> list[str]:
        asked = SearchQuery(
            query=query, collection=collection, profile=profile, rerank=False, group=True
        )
        return [hit.document_id for hit in self.searcher.search(asked, groups=None).hits]


def documents() -> list[Document]:
    chance = random.Random(7)
    return [
        Document.create(
            id=f"d{at:02}",
            title=title,
            text="。".join(chance.choices([each for each in TITLES if each != title], k=12)),
        )
        for at, title in enumerate(TITLES)
    ]


def fill(store: Store) -> Library:
    analyzer, embedder = JiebaAnalyzer(), FakeEmbedder()
    for name, model in ((C, embedder), (WORDLESS, None)):
        indexer = make_indexer(store, analyzer, model)
        indexer.ensure_collection(name)
        indexer.put(name, documents(), refresh=True)
    live = live_collections(store, analyzer, embedder, pinned=())
    judged = Judged(
        source="titles",
        queries={f"q{at:02}": title for at, title in enumerate(TITLES)},
        qrels={f"q{at:02}": {f"d{at:02}": 1} for at in range(len(TITLES))},
    )
    return Library(store, Searcher(store=store, live=live, reranker=None), judged)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    store = EmbeddedStore(tmp_path_factory.mktemp("store"))
    yield fill(store)
    store.close()


@pytest.fixture
def library(embedded: Library) -> Iterator[Library]:
    yield embedded
    for name in (C, WORDLESS):
        embedded.profiles.roll_back(name, 0, author="test")


@pytest.fixture(scope="module", params=["embedded", targets()[0]])
def either(request: pytest.FixtureRequest) -> Iterator[Library]:
    """In every store, for what depends on it."""
    if request.param == "embedded":
        yield request.getfixturevalue("embedded")
        return
    url = request.getfixturevalue("elasticsearch")(request.param)
    store = ElasticsearchStore(url, prefix=f"test-{uuid.uuid4().hex[:12]}")
    yield fill(store)
    store.close()


def some_profiles(count: int) -> list[Profile]:
    chance = random.Random(3)
    return [
        Profile(
            field_weights={name: chance.choice([0, 0.2, 1, 2.5]) for name in WEIGHTED}
            | {"bigrams": 1.0},
            fusion=Fusion(
                method=chance.choice(["convex", "rrf"]),
                bm25=chance.choice([0.5, 1]),
                vector=chance.choice([0, 0.3, 1, 4]),
                window=chance.choice([5, 20, 100]),
                rank_constant=chance.choice([1, 60]),
            ),
        )
        for _ in range(count)
    ]


def test_a_replay_finds_what_a_search_finds(either: Library) -> None:
    Vocabulary(either.store.notes).change(C, "synonyms", add=["朱山 => 红山"], author="test")
    recorder = Recorder(either.store, either.searcher, depth=DEPTH)
    for query in ("绿海和黑雪", "朱山", "nothing of it"):
        recording = recorder.record(C, query)
        for profile in some_profiles(10):
            assert recording.documents(profile, 10) == either.found(query, profile), profile
    recording = recorder.record(WORDLESS, "红山")
    assert recording.vector is None
    for profile in some_profiles(4):
        assert recording.documents(profile, 10) == either.found("红山", profile, WORDLESS)


def test_without_vectors_there_is_nothing_to_fuse(library: Library) -> None:
    report = library.tuner.run(WORDLESS, library.judged)
    assert {each.path.partition(".")[0] for each in report.tunables} == {"field_weights"}
    assert report.tuning.after > report.tuning.before


def test_scores_below_the_end_of_a_list_are_asked_for(either: Library) -> None:
    query = "红山绿海黑雪"
    whole = Recorder(either.store, either.searcher, depth=DEPTH).record(C, query)
    short = Recorder(either.store, either.searcher, depth=8).record(C, query)
    assert 8 <= len(short.chunks) < len(whole.chunks)
    places = [whole.chunks.index(chunk) for chunk in short.chunks]
    assert np.allclose(short.scores, whole.scores[places], rtol=1e-5)


def test_what_gains_on_queries_that_did_not_choose_it_is_put_in_force(library: Library) -> None:
    report = library.tuner.run(C, library.judged)
    tuning = report.tuning
    assert report.objection == ""
    assert tuning.queries == len(TITLES)
    assert sum(fold.queries for fold in tuning.folds) == len(TITLES)
    assert tuning.before < 0.6
    assert tuning.after > 0.9
    assert tuning.held_out.p < 0.001
    assert report.searched[0] == pytest.approx(tuning.before)
    assert report.searched[1] > 0.9
    made = library.tuner.save(report, author="lin")
    assert made is not None
    assert (made.author, made.report) == ("lin", report.figures)
    assert "held out" in made.comment
    assert library.profiles.profile(C) == tuning.chosen
    assert library.found("红山", library.profiles.profile(C))[0] == "d00"
    again = library.tuner.run(C, library.judged)
    assert again.objection == "No other profile is better on these queries."
    assert library.tuner.save(again, author="lin") is None


def test_chance_is_not_taken_for_a_gain(library: Library) -> None:
    chance = random.Random(5)
    wrong = {query: {f"d{chance.randrange(len(TITLES)):02}": 1} for query in library.judged.queries}
    report = library.tuner.run(C, replace(library.judged, qrels=wrong))
    assert report.objection
    assert report.tuning.held_out.p > 0.05


def test_few_queries_are_too_few_to_tell(library: Library) -> None:
    few = dict(list(library.judged.queries.items())[: FEWEST_QUERIES - 1])
    report = library.tuner.run(C, replace(library.judged, queries=few))
    assert report.tuning.held_out.difference > 0
    assert report.objection.startswith("29 judged queries are too few to tell")


def test_a_tuning_is_the_same_every_time(library: Library) -> None:
    some = replace(library.judged, queries=dict(list(library.judged.queries.items())[:12]))
    turned = replace(some, queries=dict(reversed(some.queries.items())))
    one, other = (library.tuner.run(C, judged, folds=3, seed=1) for judged in (some, turned))
    assert one.as_dict() == other.as_dict()


def test_a_profile_that_somebody_changed_meanwhile_is_left_alone(library: Library) -> None:
    some = replace(library.judged, queries=dict(list(library.judged.queries.items())[:6]))
    report = library.tuner.run(C, some, folds=2)
    by_hand = Profile(fusion=Fusion(window=300))
    library.profiles.save(C, by_hand, author="wang")
    with pytest.raises(NoteConflict):
        library.tuner.save(report, author="lin")
    assert library.profiles.profile(C) == by_hand


def test_queries_whose_documents_are_not_there_say_nothing(library: Library) -> None:
    judged = Judged(
        source="other",
        queries={"a": "红山", "b": "绿海", "c": "黄云"},
        qrels={"a": {"d00": 1}, "b": {"gone": 1, "d01": 0}, "c": {"d02": 2, "gone": 1}},
    )
    report = library.tuner.run(C, judged, folds=2)
    assert (report.tuning.queries, report.unanswerable) == (2, 1)
    nothing = replace(judged, queries={"b": "绿海"})
    with pytest.raises(InvalidInput, match="None of the documents that other judges to suit"):
        library.tuner.run(C, nothing)


# Without a store -----------------------------------------------------------------------------------


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(-1, 3), min_size=1),
    st.permutations("abcdefgh"),
)
def test_gains_are_those_of_trec_eval(grades: dict[str, int], ranked: list[str]) -> None:
    run = {"q": {document: 1 / rank for rank, document in enumerate(ranked, 1)}}
    positive = {document: max(0, grade) for document, grade in grades.items()}
    assert gain(ranked, grades, 10) == pytest.approx(measure({"q": positive}, run)["nDCG@10"])


class Scores(Trials):
    """Trials whose values are told and not measured."""

    def __init__(self, value, queries: int = 4) -> None:
        super().__init__({str(number): None for number in range(queries)}, {})  # type: ignore[misc]
        self.value = value
        self.asked: list[Profile] = []

    def of(self, profile):
        self.asked.append(profile)
        return np.full(len(self.queries), self.value(profile))


EVERY = np.arange(4)
WINDOW = Tunable(path="fusion.window", values=(100, 200, 400))
METHOD = Tunable(path="fusion.method", values=("convex", "rrf"))
CONSTANT = Tunable(path="fusion.rank_constant", values=(5, 60), needs=("fusion.method", "rrf"))


def test_the_best_kind_is_found_though_another_value_must_change_with_it() -> None:
    def value(profile: Profile) -> float:
        rrf = profile.fusion.method == "rrf"
        return 0.9 if rrf and profile.fusion.window == 400 else 0.4 if rrf else 0.5

    chosen = choose(Scores(value), Profile(), EVERY, (METHOD, WINDOW))
    assert chosen.fusion == Fusion(method="rrf", window=400)


def test_what_gains_next_to_nothing_stays_as_it_is() -> None:
    def value(profile: Profile) -> float:
        return 0.5 + profile.fusion.window / 10_000_000

    assert choose(Scores(value), Profile(), EVERY, (METHOD, WINDOW)) == Profile()


def test_a_value_that_acts_on_nothing_is_not_tried() -> None:
    scores = Scores(lambda _: 0.5)
    choose(scores, Profile(), EVERY, (METHOD, CONSTANT))
    convex = [each.fusion for each in scores.asked if each.fusion.method == "convex"]
    assert {each.rank_constant for each in convex} == {60}


def test_values_that_make_no_profile_are_passed_over() -> None:
    only_words = Profile(field_weights={"words": 1.0})
    words = Tunable(path="field_weights.words", values=(0.0, 2.0))
    chosen = choose(Scores(lambda each: each.field_weights["words"]), only_words, EVERY, (words,))
    assert chosen.field_weights == {"words": 2.0}


def test_values_are_read_and_set_by_their_paths() -> None:
    changed = with_value(Profile(), "field_weights.title_words", 0.7)
    assert value_at(changed, "field_weights.title_words") == 0.7
    assert value_at(changed, "fusion.window") == Profile().fusion.window
    with pytest.raises(InvalidInput):
        with_value(Profile(), "fusion.depth", 3)
