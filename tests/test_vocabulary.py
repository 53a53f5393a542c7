"""Dictionary, synonyms and stop words as versions: kept with their history, safe with two editors."""

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from server.analysis.dictionary import UserDictionary
from server.errors import InvalidInput, StoreUnavailable, VersionNotFound
from server.recipes import Recipe
from server.retrieval.query_words import QueryVocabulary, QueryWords
from server.stores.contract import Store
from server.stores.notes import Note, Notes
from server.vocabulary import KINDS, Kind, Vocabulary, seed

C = "c"


class FaultyNotes:
    """Real notes that can fail. ``fail_at``: the key at whose next write the process dies; ``down``: no
    read works."""

    def __init__(self, notes: Notes) -> None:
        self.fail_at = ""
        self.down = False
        self._notes = notes

    def get(self, collection: str, key: str) -> Note | None:
        if self.down:
            raise StoreUnavailable("The store is away.")
        return self._notes.get(collection, key)

    def under(self, collection: str, prefix: str) -> dict[str, Note]:
        return self._notes.under(collection, prefix)

    def put(
        self, collection: str, key: str, value: Mapping[str, Any], *, expected: int | None = None
    ) -> Note:
        if key == self.fail_at:
            self.fail_at = ""
            raise StoreUnavailable("The process died.")
        return self._notes.put(collection, key, value, expected=expected)

    def delete(self, collection: str, key: str, *, expected: int | None = None) -> bool:
        return self._notes.delete(collection, key, expected=expected)


@pytest.fixture
def notes(store: Store) -> Iterator[FaultyNotes]:
    recipe = Recipe(embedder="", dimensions=0, analyzer="test", chunker="test")
    store.create_collection(C, recipe=recipe)
    yield FaultyNotes(store.notes)
    store.delete_collection(C)


@pytest.fixture
def vocabulary(notes: FaultyNotes) -> Vocabulary:
    return Vocabulary(notes)


GOOD: dict[Kind, tuple[str, str]] = {
    "dictionary": ("云梯平台 100 nz", "灰度发布"),
    "synonyms": ("vpn => 虚拟专用网络", "差旅费, 出差费用"),
    "stop_words": ("关于", "请问"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_change_is_a_version_with_who_and_when(vocabulary: Vocabulary, kind: Kind) -> None:
    assert vocabulary.heads(C) == dict.fromkeys(KINDS, 0)
    assert vocabulary.lines(C, kind).lines == ()
    first, second = GOOD[kind]
    made = vocabulary.change(C, kind, add=[first], author="lin", comment="first")
    assert made is not None
    assert (made.version, made.added, made.removed) == (1, 1, 0)
    vocabulary.change(C, kind, add=[second], remove=[first], author="wang")
    assert vocabulary.lines(C, kind).lines == (second,)
    assert vocabulary.lines(C, kind, 1).lines == (first,)
    history = vocabulary.history(C, kind)
    assert [(each.version, each.author, each.comment) for each in history] == [
        (2, "wang", ""),
        (1, "lin", "first"),
    ]
    assert (history[0].added, history[0].removed) == (1, 1)
    assert history[0].at >= history[1].at
    assert vocabulary.heads(C) == {**dict.fromkeys(KINDS, 0), kind: 2}


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_that_changes_nothing_makes_no_version(vocabulary: Vocabulary, kind: Kind) -> None:
    first, second = GOOD[kind]
    vocabulary.change(C, kind, add=[first], author="lin")
    assert vocabulary.change(C, kind, add=[first], author="lin") is None
    assert vocabulary.change(C, kind, remove=[second], author="lin") is None
    assert vocabulary.replace(C, kind, [first], author="lin") is None
    assert vocabulary.roll_back(C, kind, 1, author="lin") is None
    assert vocabulary.heads(C)[kind] == 1


def test_a_word_has_one_line(vocabulary: Vocabulary) -> None:
    vocabulary.change(C, "dictionary", add=["雲梯平台", "灰度发布 3"], author="lin")
    vocabulary.change(C, "dictionary", add=["云梯平台 7"], author="lin")
    assert vocabulary.lines(C, "dictionary").lines == ("云梯平台 7", "灰度发布 3")
    vocabulary.change(C, "dictionary", remove=["灰度发布"], author="lin")
    assert vocabulary.lines(C, "dictionary").lines == ("云梯平台 7",)


def test_a_rule_is_known_however_it_is_written(vocabulary: Vocabulary) -> None:
    vocabulary.change(C, "synonyms", add=["VPN,翻墙=>虛擬專用網絡"], author="lin")
    assert vocabulary.change(C, "synonyms", remove=["a, b"], author="lin") is None
    same = ["vpn, 翻墙 => 虚拟专用网络"]
    assert vocabulary.change(C, "synonyms", add=same, author="lin") is None
    made = vocabulary.change(
        C, "synonyms", remove=["vpn, 翻墙 => 虚拟专用网络"], author="lin", comment="not any more"
    )
    assert made is not None
    assert vocabulary.lines(C, "synonyms").lines == ()


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("dictionary", "云梯 平台"),
        ("synonyms", "alone"),
        ("stop_words", "two words"),
        ("stop_words", "a\x00"),
        ("stop_words", "a\u2028b"),
        ("dictionary", "词" * 3_000),
    ],
)
def test_a_wrong_line_stops_all_before_anything_is_written(
    vocabulary: Vocabulary, notes: FaultyNotes, kind: Kind, line: str
) -> None:
    with pytest.raises(InvalidInput, match="line 2"):
        vocabulary.change(C, kind, add=[GOOD[kind][0], line], author="lin")
    with pytest.raises(InvalidInput, match="line 2"):
        vocabulary.replace(C, kind, [GOOD[kind][0], line], author="lin")
    assert notes.under(C, "vocabulary") == {}


@pytest.mark.parametrize(("author", "comment"), [("a" * 101, ""), ("a\x00", ""), ("a", "c" * 501)])
def test_author_and_comment_are_short_texts(
    vocabulary: Vocabulary, notes: FaultyNotes, author: str, comment: str
) -> None:
    with pytest.raises(InvalidInput):
        vocabulary.change(C, "stop_words", add=["a"], author=author, comment=comment)
    assert notes.under(C, "vocabulary") == {}


def test_what_is_too_large_is_refused(vocabulary: Vocabulary) -> None:
    with pytest.raises(InvalidInput, match="at most 100,000"):
        vocabulary.replace(C, "dictionary", ["词"] * 100_001, author="lin")
    with pytest.raises(InvalidInput, match="bytes in all"):
        vocabulary.replace(C, "dictionary", [f"{'词' * 95}{n}" for n in range(30_000)], author="l")


def test_notes_in_an_imported_file_stay(vocabulary: Vocabulary) -> None:
    file = ["\ufeff# products", "云梯平台 100", "", "# methods", "灰度发布"]
    vocabulary.replace(C, "dictionary", file, author="lin")
    lines = ("# products", "云梯平台 100", "# methods", "灰度发布")
    assert vocabulary.lines(C, "dictionary").lines == lines
    assert [each.word for each in vocabulary.dictionary(C).words] == ["云梯平台", "灰度发布"]


def test_rolling_back_is_a_new_version(vocabulary: Vocabulary) -> None:
    vocabulary.change(C, "stop_words", add=["关于"], author="lin")
    vocabulary.change(C, "stop_words", add=["请问"], author="lin")
    made = vocabulary.roll_back(C, "stop_words", 1, author="wang")
    assert made is not None
    assert (made.version, made.comment, made.removed) == (3, "as version 1", 1)
    assert vocabulary.lines(C, "stop_words").lines == ("关于",)
    assert vocabulary.lines(C, "stop_words", 2).lines == ("关于", "请问")
    vocabulary.roll_back(C, "stop_words", 0, author="wang")
    assert vocabulary.lines(C, "stop_words").lines == ()


@pytest.mark.parametrize("version", [2, 99, -1])
def test_a_version_that_is_not_there_is_named(vocabulary: Vocabulary, version: int) -> None:
    vocabulary.change(C, "stop_words", add=["关于"], author="lin")
    with pytest.raises(VersionNotFound, match=f"no version {version}"):
        vocabulary.lines(C, "stop_words", version)
    with pytest.raises(VersionNotFound):
        vocabulary.roll_back(C, "stop_words", version, author="lin")


def test_of_editors_at_once_each_gets_the_change_in(notes: FaultyNotes) -> None:
    def edit(editor: int) -> None:
        vocabulary = Vocabulary(notes)
        for number in range(10):
            vocabulary.change(C, "stop_words", add=[f"e{editor}n{number}"], author=str(editor))

    threads = [threading.Thread(target=edit, args=(editor,)) for editor in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    vocabulary = Vocabulary(notes)
    assert len(vocabulary.lines(C, "stop_words").lines) == 40
    history = vocabulary.history(C, "stop_words")
    assert len(history) == 40
    previous: set[str] = set()
    for version in reversed(history):
        lines = set(vocabulary.lines(C, "stop_words", version.version).lines)
        assert len(lines - previous) == 1
        assert previous <= lines
        previous = lines


def test_a_crash_between_the_two_notes_is_harmless(
    vocabulary: Vocabulary, notes: FaultyNotes
) -> None:
    vocabulary.change(C, "stop_words", add=["关于"], author="lin")
    notes.fail_at = "vocabulary"
    with pytest.raises(StoreUnavailable):
        vocabulary.change(C, "stop_words", add=["lost"], author="lin")
    assert vocabulary.lines(C, "stop_words").lines == ("关于",)
    with pytest.raises(VersionNotFound):
        vocabulary.lines(C, "stop_words", 2)
    made = vocabulary.change(C, "stop_words", add=["请问"], author="lin")
    assert made is not None
    assert vocabulary.lines(C, "stop_words").lines == ("关于", "请问")
    assert [each.version for each in vocabulary.history(C, "stop_words")] == [made.version, 1]
    with pytest.raises(VersionNotFound):
        vocabulary.roll_back(C, "stop_words", 2, author="lin")


def test_a_new_collection_begins_with_the_configured_dictionary(
    vocabulary: Vocabulary, notes: FaultyNotes
) -> None:
    assert seed(UserDictionary()) == {}
    own = UserDictionary.parse(["云梯平台 100 nz", "灰度发布"])
    for key, value in seed(own).items():
        notes.put(C, key, value, expected=0)
    assert vocabulary.dictionary(C, 1).hash == own.hash
    (version,) = vocabulary.history(C, "dictionary")
    assert (version.author, version.added) == ("TANYUAN_DICTIONARY", 2)
    vocabulary.change(C, "dictionary", add=["蓝绿部署"], author="lin")
    assert vocabulary.heads(C)["dictionary"] == 2


def test_synonyms_and_stop_words_act_within_a_second(
    vocabulary: Vocabulary, notes: FaultyNotes
) -> None:
    in_force = QueryVocabulary(Vocabulary(notes), seconds=0)
    assert in_force.of(C) == QueryWords()
    vocabulary.change(C, "synonyms", add=["vpn => 虚拟专用网络"], author="lin")
    words = in_force.of(C)
    assert len(words.synonyms.rules) == 1
    assert in_force.of(C) is words
    vocabulary.change(C, "stop_words", add=["关于"], author="lin")
    assert in_force.of(C).stop_words.words == ("关于",)
    vocabulary.roll_back(C, "synonyms", 0, author="lin")
    assert in_force.of(C).synonyms.rules == ()
    lasting = QueryVocabulary(Vocabulary(notes), seconds=60)
    assert lasting.of(C).stop_words.words == ("关于",)
    vocabulary.change(C, "stop_words", add=["请问"], author="lin")
    assert lasting.of(C).stop_words.words == ("关于",)


def test_words_last_read_serve_while_the_store_is_away(notes: FaultyNotes) -> None:
    in_force = QueryVocabulary(Vocabulary(notes), seconds=0)
    notes.down = True
    with pytest.raises(StoreUnavailable):
        in_force.of(C)
    notes.down = False
    Vocabulary(notes).change(C, "stop_words", add=["关于"], author="lin")
    assert in_force.of(C).stop_words.words == ("关于",)
    notes.down = True
    assert in_force.of(C).stop_words.words == ("关于",)
