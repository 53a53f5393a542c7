"""The contract of a store as test classes, which every backend inherits.

A backend's test module defines the fixture ``store``, an open store of its own, and subclasses each
class. ``VECTOR_TOLERANCE`` may be raised by a backend that keeps vectors quantised.
"""

import math
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.documents import TEXT_FIELDS, document_id_of
from server.errors import (
    CollectionExists,
    CollectionNotFound,
    DocumentNotFound,
    InvalidInput,
    PageTooDeep,
    RevisionConflict,
)
from server.stores.contract import (
    MAX_DEPTH,
    Deleted,
    LegsRequest,
    Store,
    TextClause,
    Write,
    Written,
)
from server.stores.filters import All, Exists, Filter, Not, Range, Terms
from server.stores.filters import Any as AnyOf
from tests.stores.builders import (
    DIMENSIONS,
    LEXICAL_RECIPE,
    RECIPE,
    bm25_ids,
    unit,
    vector_ids,
    words,
    write,
)
from tests.stores.strategies import filters, holds, labelled_documents


def unique_name() -> str:
    return f"c{uuid.uuid4().hex[:12]}"


def kept_length(length: int) -> int:
    """A field's length as Lucene keeps it (SmallFloat.intToByte4): exact to 40, then 4 bits of it."""
    above = length - 24
    shift = max(above.bit_length() - 4, 0) if above > 0 else 0
    return length if not shift else 24 + (above >> shift << shift)


class StoreContract:
    """What all contract classes share."""

    VECTOR_TOLERANCE = 1e-5

    @pytest.fixture
    def collection(self, store: Store) -> Iterator[str]:
        name = unique_name()
        store.create_collection(name, recipe=RECIPE)
        yield name
        if any(found.name == name for found in store.collections()):
            store.delete_collection(name)

    def put(self, store: Store, collection: str, *writes: Write) -> list[Written]:
        """Write, visible to search, and expect every one to succeed."""
        results = store.write(collection, writes, refresh=True)
        for result in results:
            assert isinstance(result, Written), result
        return [result for result in results if isinstance(result, Written)]


class CollectionContract(StoreContract):
    def test_a_new_collection_is_empty_and_carries_its_recipe(self, store: Store) -> None:
        name = unique_name()
        made = store.create_collection(name, recipe=RECIPE, description="员工手册")
        assert (made.name, made.description, made.recipe) == (name, "员工手册", RECIPE)
        assert (made.documents, made.chunks) == (0, 0)
        assert made.generation
        assert store.collection(name) == made
        assert store.live(name).recipe == RECIPE
        assert made in store.collections()
        store.delete_collection(name)

    def test_a_name_is_taken_once(self, store: Store, collection: str) -> None:
        with pytest.raises(CollectionExists):
            store.create_collection(collection, recipe=LEXICAL_RECIPE)
        assert store.live(collection).recipe == RECIPE

    def test_collections_come_by_name(self, store: Store) -> None:
        base = unique_name()
        names = [base + ending for ending in ("-b", "", "_c", "-a", "a")]
        for name in names:
            store.create_collection(name, recipe=RECIPE)
        found = [made.name for made in store.collections() if made.name.startswith(base)]
        assert found == sorted(names)
        for name in names:
            store.delete_collection(name)

    def test_a_name_that_begins_as_another_is_another(self, store: Store, collection: str) -> None:
        longer = collection + "-2"
        store.create_collection(longer, recipe=RECIPE)
        self.put(store, longer, write("a", "red"))
        store.delete_collection(collection)
        assert bm25_ids(store, longer, "red") == ["a:0"]
        store.delete_collection(longer)

    @pytest.mark.parametrize("name", ["", "UPPER", "../up", "a/b", "*", "a,b", "_all", "x" * 65])
    def test_a_bad_name_is_refused(self, store: Store, name: str) -> None:
        with pytest.raises(InvalidInput):
            store.create_collection(name, recipe=RECIPE)

    def test_the_description_changes(self, store: Store, collection: str) -> None:
        self.put(store, collection, write("a", "red"))
        changed = store.describe(collection, "新的说明")
        assert changed.description == "新的说明"
        assert store.collection(collection) == changed
        assert (changed.documents, changed.chunks, changed.recipe) == (1, 1, RECIPE)

    def test_counts_follow_writes_and_deletes(self, store: Store, collection: str) -> None:
        self.put(store, collection, write("a", "one", "two"), write("b", "three"))
        store.delete(collection, "a", refresh=True)
        self.put(store, collection, write("b", "four", "five", "six"))
        found = store.collection(collection)
        assert (found.documents, found.chunks) == (1, 3)

    def test_a_deleted_collection_is_gone_and_its_name_free(
        self, store: Store, collection: str
    ) -> None:
        self.put(store, collection, write("a", "red"), write("b", "red"))
        assert store.delete_collection(collection) == 2
        with pytest.raises(CollectionNotFound):
            store.collection(collection)
        store.create_collection(collection, recipe=LEXICAL_RECIPE)
        assert store.live(collection).recipe == LEXICAL_RECIPE
        assert store.collection(collection).documents == 0
        assert bm25_ids(store, collection, "red") == []
        assert store.states(collection, ["a"]) == {}

    def test_what_is_not_there_is_named(self, store: Store) -> None:
        name = unique_name()
        calls = [
            lambda: store.collection(name),
            lambda: store.live(name),
            lambda: store.describe(name, "x"),
            lambda: store.delete_collection(name),
            lambda: store.states(name, ["a"]),
            lambda: store.write(name, [write("a", "red")]),
            lambda: store.delete(name, "a"),
            lambda: store.document(name, "a"),
            lambda: list(store.documents(name)),
            lambda: store.search(name, LegsRequest(text=words("red"))),
            lambda: store.passages(name, ["a:0"]),
            lambda: store.refresh(name),
        ]
        for call in calls:
            with pytest.raises(CollectionNotFound, match=name):
                call()

    def test_check_says_one_line(self, store: Store) -> None:
        line = store.check()
        assert line
        assert "\n" not in line


class DocumentContract(StoreContract):
    """Documents, revisions, replacing and deleting."""

    def test_a_document_comes_back_as_submitted(self, store: Store, collection: str) -> None:
        given = write(
            "doc",
            "第一段 文字",
            "second 🙂 part",
            title="差旅 报销",
            source="https://wiki/差旅?x=1#y",
            acl=["hr", "财务"],
            metadata={
                "year": 2024,
                "price": 1.5,
                "draft": False,
                "tags": ["a", "b"],
                "部门": "人事",
                "a.b.c": "dotted",
                "empty": [],
                "mixed": ["1", 1, True, 1.25],
            },
        )
        [result] = self.put(store, collection, given)
        assert result == Written(document_id="doc", revision=1, chunks=2, status="created")
        stored = store.document(collection, "doc")
        assert stored.document == given.document
        assert stored.document.content_hash == given.document.content_hash
        assert (stored.revision, stored.chunks) == (1, 2)
        assert stored.updated_at.startswith("20")
        assert store.passages(collection, ["doc:1"])["doc:1"].metadata == given.document.metadata

    def test_revisions_rise_by_one_through_every_change(
        self, store: Store, collection: str
    ) -> None:
        first, again = (self.put(store, collection, write("a", "red"))[0] for _ in range(2))
        assert (first.revision, first.status) == (1, "created")
        assert (again.revision, again.status) == (2, "updated")
        deleted = store.delete(collection, "a", refresh=True)
        assert deleted == Deleted(document_id="a", revision=3, chunks=1)
        assert self.put(store, collection, write("a", "red"))[0] == Written(
            document_id="a", revision=4, chunks=1, status="created"
        )

    def test_a_replaced_document_leaves_no_chunk_behind(
        self, store: Store, collection: str
    ) -> None:
        self.put(store, collection, write("a", "red one", "red two", "red three", "red four"))
        self.put(store, collection, write("a", "blue one", "red two"))
        assert bm25_ids(store, collection, "red") == ["a:1"]
        assert bm25_ids(store, collection, "blue") == ["a:0"]
        assert sorted(vector_ids(store, collection, unit(1))) == ["a:0", "a:1"]
        assert store.passages(collection, ["a:0", "a:2"]).keys() == {"a:0"}
        assert store.collection(collection).chunks == 2

    def test_a_document_without_chunks_is_kept(self, store: Store, collection: str) -> None:
        self.put(store, collection, write("a", "red"))
        self.put(store, collection, write("a"))
        assert store.document(collection, "a").chunks == 0
        assert store.states(collection, ["a"])["a"].complete
        assert bm25_ids(store, collection, "red") == []
        found = store.collection(collection)
        assert (found.documents, found.chunks) == (1, 0)

    def test_a_deleted_document_is_gone(self, store: Store, collection: str) -> None:
        self.put(store, collection, write("a", "red one", "red two"), write("b", "red"))
        assert store.delete(collection, "a", refresh=True).chunks == 2
        assert bm25_ids(store, collection, "red") == ["b:0"]
        assert vector_ids(store, collection, unit(1)) == ["b:0"]
        assert store.states(collection, ["a"]) == {}
        assert store.passages(collection, ["a:0"]) == {}
        assert [found.document.id for found in store.documents(collection)] == ["b"]
        with pytest.raises(DocumentNotFound):
            store.document(collection, "a")
        with pytest.raises(DocumentNotFound):
            store.delete(collection, "a")
        with pytest.raises(DocumentNotFound):
            store.delete(collection, "never there")

    def test_states_are_of_what_is_there(self, store: Store, collection: str) -> None:
        given = write("a", "red", "blue")
        self.put(store, collection, given, write("b", "red"))
        store.write(collection, [given])  # not refreshed
        states = store.states(collection, ["a", "b", "c", "a"])
        assert states.keys() == {"a", "b"}
        assert states["a"].revision == 2
        assert states["a"].content_hash == given.document.content_hash
        assert states["a"].chunks == 2
        assert states["a"].complete
        assert store.states(collection, []) == {}

    def test_conditions_on_the_revision(self, store: Store, collection: str) -> None:
        def attempt(revision: int) -> object:
            [result] = store.write(collection, [write("a", "red", if_revision=revision)])
            return result

        assert isinstance(attempt(1), RevisionConflict)  # not there yet
        assert isinstance(attempt(0), Written)
        assert isinstance(attempt(0), RevisionConflict)
        assert isinstance(attempt(2), RevisionConflict)
        assert isinstance(attempt(1), Written)
        with pytest.raises(RevisionConflict):
            store.delete(collection, "a", if_revision=1)
        assert store.states(collection, ["a"])["a"].revision == 2
        assert store.delete(collection, "a", if_revision=2).revision == 3
        assert isinstance(attempt(3), RevisionConflict)  # a tombstone is not a document
        recreated = attempt(0)
        assert isinstance(recreated, Written)
        assert recreated.revision == 4

    def test_a_failure_stops_no_other_write(self, store: Store, collection: str) -> None:
        results = store.write(
            collection,
            [write("a", "red"), write("b", "red", if_revision=7), write("c", "red")],
            refresh=True,
        )
        assert [type(result) for result in results] == [Written, RevisionConflict, Written]
        assert sorted(bm25_ids(store, collection, "red")) == ["a:0", "c:0"]
        assert store.states(collection, ["b"]) == {}

    def test_the_same_id_twice_in_one_call(self, store: Store, collection: str) -> None:
        results = self.put(
            store,
            collection,
            write("a", "red one", "red two"),
            write("b", "red"),
            write("a", "blue"),
        )
        assert [(r.document_id, r.revision, r.status) for r in results] == [
            ("a", 1, "created"),
            ("b", 1, "created"),
            ("a", 2, "updated"),
        ]
        assert store.document(collection, "a").document.text == "blue"
        assert bm25_ids(store, collection, "red") == ["b:0"]
        assert bm25_ids(store, collection, "blue") == ["a:0"]

    def test_no_writes_give_no_results(self, store: Store, collection: str) -> None:
        assert store.write(collection, [], refresh=True) == []

    def test_a_refresh_shows_what_was_written_before(self, store: Store, collection: str) -> None:
        store.write(collection, [write("a", "red"), write("b", "red")])
        store.delete(collection, "b")
        assert store.document(collection, "a").revision == 1
        store.refresh(collection)
        assert bm25_ids(store, collection, "red") == ["a:0"]
        assert vector_ids(store, collection, unit(1)) == ["a:0"]

    def test_all_documents_are_scanned_once(self, store: Store, collection: str) -> None:
        count = 1_205
        self.put(store, collection, *(write(f"d{i}", f"red w{i}") for i in range(count)))
        for i in range(0, count, 100):
            store.delete(collection, f"d{i}")
        store.refresh(collection)
        scanned = list(store.documents(collection))
        expected = {f"d{i}" for i in range(count) if i % 100}
        assert Counter(found.document.id for found in scanned) == Counter(expected)
        by_id = {found.document.id: found for found in scanned}
        assert by_id["d7"] == store.document(collection, "d7")

    def test_a_scan_may_be_left_and_run_beside_writes(self, store: Store, collection: str) -> None:
        self.put(store, collection, *(write(f"d{i}", "red") for i in range(300)))
        scan = store.documents(collection)
        seen = [next(scan).document.id]
        self.put(store, collection, *(write(f"e{i}", "red") for i in range(50)))
        seen += [found.document.id for found in scan if found.document.id.startswith("d")]
        assert sorted(seen) == sorted(f"d{i}" for i in range(300))
        abandoned = store.documents(collection)
        next(abandoned)
        del abandoned
        self.put(store, collection, write("d1", "blue"))

    def test_passages_show_the_chunk_and_its_document(self, store: Store, collection: str) -> None:
        given = write("a", "one", "two 二", title="标题", source="s3://x", metadata={"year": 2024})
        self.put(store, collection, given, write("b", "three"))
        passages = store.passages(collection, ["b:0", "a:1", "a:7", "zz:0", "nonsense", "a:1"])
        assert passages.keys() == {"b:0", "a:1"}
        passage = passages["a:1"]
        assert passage.chunk == given.chunks[1].chunk
        assert (passage.title, passage.source, passage.revision) == ("标题", "s3://x", 1)
        assert passage.metadata == {"year": 2024}
        assert store.passages(collection, []) == {}


class Bm25Contract(StoreContract):
    """Lucene's BM25, k1 1.2 and b 0.75, summed over terms and clauses."""

    BM25_TOLERANCE = 1e-4

    TEXTS = (
        "red red red blue",
        "red blue green",
        "green green yellow blue blue",
        "yellow",
        "red " + "filler " * 30 + "blue",
        "black white red",
        "black black black black white",
    )

    def expected(self, writes: Sequence[Write], clauses: Sequence[TextClause]) -> dict[str, float]:
        """Chunk id → score by the formula, for collections where no field is empty.

        idf = ln(1 + (N - n + 0.5) / (n + 0.5)); tf part = f / (f + k1 (1 - b + b length / average)).
        Lengths are as Lucene's one-byte encoding keeps them, the average as it is.
        """
        chunks = [indexed for given in writes for indexed in given.chunks]
        scores: dict[str, float] = {}
        for clause in clauses:
            fields = {indexed.chunk.id: indexed.terms[clause.field] for indexed in chunks}
            average = sum(map(len, fields.values())) / len(fields)
            for term in clause.terms:
                found = {name: terms.count(term) for name, terms in fields.items() if term in terms}
                idf = math.log(1 + (len(fields) - len(found) + 0.5) / (len(found) + 0.5))
                for name, count in found.items():
                    norm = 1.2 * (0.25 + 0.75 * kept_length(len(fields[name])) / average)
                    part = clause.weight * idf * count / (count + norm)
                    scores[name] = scores.get(name, 0.0) + part
        return scores

    def corpus(self) -> list[Write]:
        return [
            write(f"d{i}", text, title=f"title {text.split()[0]}")
            for i, text in enumerate(self.TEXTS)
        ]

    @pytest.mark.parametrize(
        "clauses",
        [
            words("red"),
            words("red", "blue"),
            words("blue", "blue", "yellow"),
            words("green", weight=2.5),
            (
                TextClause(field="words", terms=("red", "white")),
                TextClause(field="bigrams", terms=("re", "ed", "bl"), weight=0.5),
                TextClause(field="title_words", terms=("black", "title"), weight=2.0),
                TextClause(field="title_bigrams", terms=("ti", "gr"), weight=0.25),
            ),
            (
                TextClause(field="words", terms=("red",)),
                TextClause(field="words", terms=("red", "absent"), weight=3.0),
                TextClause(field="title_words", terms=()),
            ),
        ],
    )
    def test_scores_are_those_of_the_formula(
        self, store: Store, collection: str, clauses: tuple[TextClause, ...]
    ) -> None:
        corpus = self.corpus()
        self.put(store, collection, *corpus)
        expected = self.expected(corpus, clauses)
        leg = store.search(collection, LegsRequest(text=clauses)).bm25
        assert leg is not None
        assert dict(leg.hits) == pytest.approx(expected, rel=self.BM25_TOLERANCE)
        scores = [score for _, score in leg.hits]
        assert scores == sorted(scores, reverse=True)
        assert leg.total == len(expected)
        assert leg.took_ms >= 0

    def test_a_filter_changes_no_score(self, store: Store, collection: str) -> None:
        corpus = self.corpus()
        self.put(store, collection, *corpus)
        allowed = ("d0", "d4", "d6")
        leg = store.search(
            collection, LegsRequest(text=words("red"), filter=Terms("document_id", allowed))
        ).bm25
        assert leg is not None
        expected = self.expected(corpus, words("red"))
        assert dict(leg.hits) == pytest.approx(
            {"d0:0": expected["d0:0"], "d4:0": expected["d4:0"]}, rel=self.BM25_TOLERANCE
        )
        assert leg.total == 2

    def test_ties_come_by_chunk_id(self, store: Store, collection: str) -> None:
        names = ["b", "a", "c/d", "Z", "é", "a1", "10", "9"]
        self.put(store, collection, *(write(name, "red", "red") for name in names))
        found = bm25_ids(store, collection, "red")
        assert found == sorted(f"{name}:{position}" for name in names for position in (0, 1))

    def test_k_cuts_the_list_and_not_the_total(self, store: Store, collection: str) -> None:
        self.put(store, collection, *(write(f"d{i:02}", "red " * (i + 1)) for i in range(20)))
        whole = bm25_ids(store, collection, "red")
        leg = store.search(collection, LegsRequest(text=words("red"), k=5)).bm25
        assert leg is not None
        assert [name for name, _ in leg.hits] == whole[:5]
        assert leg.total == 20

    def test_no_terms_find_nothing(self, store: Store, collection: str) -> None:
        self.put(store, collection, write("a", "red"))
        for text in ((), words(), words("absent")):
            leg = store.search(collection, LegsRequest(text=text)).bm25
            assert leg is not None
            assert (leg.hits, leg.total) == ((), 0)

    def test_an_empty_collection_finds_nothing(self, store: Store, collection: str) -> None:
        legs = store.search(collection, LegsRequest(text=words("red"), vector=unit(1)))
        assert legs.bm25 is not None
        assert legs.vector is not None
        assert (legs.bm25.hits, legs.vector.hits, legs.errors) == ((), (), {})

    @pytest.mark.parametrize(
        "term",
        [
            *("AND", "OR", "NOT", "*", "?", '"', "'", "\\", "field:x", "words:red", "a~2", "^3"),
            *(
                "🙂",
                "汉",
                "gb/t5972",
                "v2.3.1",
                "[a",
                "{b}",
                "(c)",
                "%_",
                "<b>",
                "-",
                "+",
                "é",
                "É",
            ),
            *("x" * 100, "汉" * 100, "𠮷野家", "a\u200bb", "_id", "null", "1e5", "true"),
        ],
    )
    def test_a_term_is_found_as_it_is_and_as_nothing_else(
        self, store: Store, collection: str, term: str
    ) -> None:
        self.put(store, collection, write("a", f"red {term} blue"), write("b", "red other blue"))
        assert bm25_ids(store, collection, term) == ["a:0"]

    def test_every_field_is_searched_alone(self, store: Store, collection: str) -> None:
        self.put(store, collection, write("a", "body", title="head"))
        for field in TEXT_FIELDS:
            term = {"words": "body", "bigrams": "od", "title_words": "head", "title_bigrams": "ea"}
            for other, wanted in term.items():
                leg = store.search(collection, LegsRequest(text=words(wanted, field=field))).bm25
                assert leg is not None
                assert bool(leg.hits) == (other == field), (field, wanted)

    def test_a_big_document_is_found_at_both_ends(self, store: Store, collection: str) -> None:
        parts = [f"part{i} " + "filler " * 300 + f"end{i}" for i in range(400)]
        self.put(store, collection, write("big", *parts))
        assert bm25_ids(store, collection, "part0") == ["big:0"]
        assert bm25_ids(store, collection, "end399") == ["big:399"]
        assert store.document(collection, "big").chunks == 400

    def test_hits_past_the_deepest_are_refused(self, store: Store, collection: str) -> None:
        with pytest.raises(PageTooDeep):
            store.search(collection, LegsRequest(text=words("red"), k=MAX_DEPTH + 1))
        with pytest.raises(InvalidInput):
            store.search(collection, LegsRequest(text=words("red"), k=0))

    def test_an_unknown_field_is_refused(self, store: Store, collection: str) -> None:
        with pytest.raises(InvalidInput):
            store.search(collection, LegsRequest(text=words("red", field="labels")))


class VectorContract(StoreContract):
    def test_the_nearest_come_first_with_their_cosines(self, store: Store, collection: str) -> None:
        vectors = {"a": unit(1, 0), "b": unit(1, 1), "c": unit(0, 1), "d": unit(-1, 0.2)}
        self.put(
            store, collection, *(write(n, f"text {n}", vectors=[v]) for n, v in vectors.items())
        )
        query = unit(1, 0.1)
        leg = store.search(collection, LegsRequest(vector=query)).vector
        assert leg is not None
        assert [name for name, _ in leg.hits] == ["a:0", "b:0", "c:0", "d:0"]
        assert dict(leg.hits) == pytest.approx(
            {f"{name}:0": float(vector @ query) for name, vector in vectors.items()},
            abs=self.VECTOR_TOLERANCE,
        )
        assert leg.total == 4

    def test_k_nearest_are_returned(self, store: Store, collection: str) -> None:
        self.put(
            store,
            collection,
            *(write(f"d{i}", "x", vectors=[unit(1, i / 10)]) for i in range(30)),
        )
        leg = store.search(collection, LegsRequest(vector=unit(1, 0), k=3)).vector
        assert leg is not None
        assert [name for name, _ in leg.hits] == ["d0:0", "d1:0", "d2:0"]
        assert leg.total == 3

    def test_ties_come_by_chunk_id(self, store: Store, collection: str) -> None:
        names = ["b", "a", "c", "10", "9"]
        self.put(store, collection, *(write(n, "x", vectors=[unit(1, 1)]) for n in names))
        assert vector_ids(store, collection, unit(1, 0)) == sorted(f"{n}:0" for n in names)

    def test_both_legs_come_from_one_request(self, store: Store, collection: str) -> None:
        self.put(store, collection, write("a", "red"), write("b", "blue"))
        legs = store.search(collection, LegsRequest(text=words("red"), vector=unit(1)))
        assert legs.bm25 is not None
        assert legs.vector is not None
        assert [name for name, _ in legs.bm25.hits] == ["a:0"]
        assert len(legs.vector.hits) == 2
        assert legs.errors == {}
        only = store.search(collection, LegsRequest(text=words("red")))
        assert only.vector is None
        neither = store.search(collection, LegsRequest())
        assert (neither.bm25, neither.vector) == (None, None)

    def test_a_replaced_vector_is_not_found_again(self, store: Store, collection: str) -> None:
        self.put(store, collection, write("a", "x", vectors=[unit(1, 0)]))
        self.put(store, collection, write("b", "x", vectors=[unit(1, 1)]))
        assert vector_ids(store, collection, unit(1, 0), k=1) == ["a:0"]
        self.put(store, collection, write("a", "x", vectors=[unit(-1, 0)]))
        leg = store.search(collection, LegsRequest(vector=unit(1, 0))).vector
        assert leg is not None
        assert [name for name, _ in leg.hits] == ["b:0", "a:0"]
        assert leg.hits[1][1] == pytest.approx(-1.0, abs=self.VECTOR_TOLERANCE)

    @pytest.mark.parametrize(
        "vector",
        [
            np.zeros(DIMENSIONS, dtype=np.float32),
            np.full(DIMENSIONS, np.nan, dtype=np.float32),
            np.full(DIMENSIONS, np.inf, dtype=np.float32),
            np.ones(DIMENSIONS + 1, dtype=np.float32) / 3,
            np.ones(DIMENSIONS - 1, dtype=np.float32),
            np.ones((1, DIMENSIONS), dtype=np.float32),
            unit(1, 2) * np.float32(3),
            None,
        ],
        ids=["zero", "nan", "inf", "long", "short", "matrix", "unscaled", "none"],
    )
    def test_a_vector_that_is_no_direction_is_refused(
        self, store: Store, collection: str, vector: np.ndarray | None
    ) -> None:
        self.put(store, collection, write("a", "red"))
        with pytest.raises(InvalidInput):
            store.write(collection, [write("b", "red"), write("c", "red", vectors=[vector])])
        assert store.states(collection, ["b", "c"]) == {}
        if vector is not None:
            with pytest.raises(InvalidInput):
                store.search(collection, LegsRequest(vector=vector))
        assert bm25_ids(store, collection, "red") == ["a:0"]

    def test_a_collection_without_vectors_serves_words(self, store: Store) -> None:
        name = unique_name()
        store.create_collection(name, recipe=LEXICAL_RECIPE)
        self.put(store, name, write("a", "red", vectors=[None]))
        legs = store.search(name, LegsRequest(text=words("red"), vector=unit(1)))
        assert legs.bm25 is not None
        assert [chunk for chunk, _ in legs.bm25.hits] == ["a:0"]
        assert legs.vector is None
        assert isinstance(legs.errors["vector"], InvalidInput)
        with pytest.raises(InvalidInput):
            store.write(name, [write("b", "red")])
        store.delete_collection(name)

    def test_unknown_text_fields_are_refused(self, store: Store, collection: str) -> None:
        given = write("a", "red")
        chunk = replace(given.chunks[0], terms={**given.chunks[0].terms, "labels": ("x",)})
        with pytest.raises(InvalidInput):
            store.write(collection, [replace(given, chunks=(chunk,))])
        assert store.states(collection, ["a"]) == {}


class FilterContract(StoreContract):
    """Filters hold in both legs, and exactly."""

    def found(self, store: Store, collection: str, condition: Filter) -> set[str]:
        """Documents that a filter lets in; both legs must agree."""
        legs = store.search(
            collection, LegsRequest(text=words("red"), vector=unit(1), filter=condition)
        )
        assert legs.bm25 is not None
        assert legs.vector is not None
        by_words = {document_id_of(name) for name, _ in legs.bm25.hits}
        assert by_words == {document_id_of(name) for name, _ in legs.vector.hits}
        assert legs.bm25.total == len(legs.bm25.hits)
        return by_words

    @settings(
        max_examples=25,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.differing_executors,  # each store's class has it from here
        ],
    )
    @given(given_documents=labelled_documents(), conditions=st.lists(filters, max_size=12))
    def test_a_filter_means_the_same_as_in_python(
        self,
        store: Store,
        collection: str,
        given_documents: list[dict[str, Any]],
        conditions: list[Filter],
    ) -> None:
        present = [found.document.id for found in store.documents(collection)]
        for name in present:
            store.delete(collection, name)
        writes = [
            write(given["document_id"], "red", "red too", **_without_id(given))
            for given in given_documents
        ]
        self.put(store, collection, *writes)
        store.refresh(collection)
        for condition in conditions:
            expected = {w.document.id for w in writes if holds(condition, w.document)}
            assert self.found(store, collection, condition) == expected, condition

    def test_the_nearest_are_of_those_let_in(self, store: Store, collection: str) -> None:
        self.put(
            store,
            collection,
            *(
                write(f"d{i:03}", "red", vectors=[unit(1, i / 100)], metadata={"n": i})
                for i in range(300)
            ),
        )
        leg = store.search(
            collection,
            LegsRequest(vector=unit(1), k=3, filter=Terms("n", (299, 150, 220, 298))),
        ).vector
        assert leg is not None
        assert [name for name, _ in leg.hits] == ["d150:0", "d220:0", "d298:0"]
        at_least = LegsRequest(text=words("red"), vector=unit(1), filter=Range(key="n", gte=290))
        legs = store.search(collection, at_least)
        assert legs.bm25 is not None
        assert legs.vector is not None
        assert len(legs.bm25.hits) == len(legs.vector.hits) == legs.bm25.total == 10

    def test_groups_see_their_own(self, store: Store, collection: str) -> None:
        self.put(
            store,
            collection,
            write("open", "red"),
            write("hr", "red", acl=["hr"]),
            write("both", "red", acl=["hr", "财务"]),
            write("nobody", "red", acl=[]),
        )
        for groups, expected in (
            (("public",), {"open"}),
            (("public", "hr"), {"open", "hr", "both"}),
            (("财务",), {"both"}),
            (("h",), set()),
            ((), set()),
        ):
            assert self.found(store, collection, Terms("acl", groups)) == expected
        self.put(store, collection, write("open", "red", acl=["hr"]))
        assert self.found(store, collection, Terms("acl", ("public",))) == set()

    def test_types_are_kept_apart(self, store: Store, collection: str) -> None:
        values = {"text": "1", "number": 1, "float": 1.0, "truth": True, "list": ["1", 1]}
        self.put(
            store, collection, *(write(n, "red", metadata={"v": v}) for n, v in values.items())
        )
        assert self.found(store, collection, Terms("v", ("1",))) == {"text", "list"}
        assert self.found(store, collection, Terms("v", (1,))) == {"number", "float", "list"}
        assert self.found(store, collection, Terms("v", (True,))) == {"truth"}
        assert self.found(store, collection, Range(key="v", gte=-5)) == {"number", "float", "list"}
        assert self.found(store, collection, Range(key="v", lt="2")) == {"text", "list"}

    def test_dates_are_ranges_of_strings(self, store: Store, collection: str) -> None:
        dates = ("2023-12-31", "2024-01-01", "2024-06-30T12:00:00Z", "2025-01-01")
        self.put(store, collection, *(write(d, "red", metadata={"date": d}) for d in dates))
        within = Range(key="date", gte="2024-01-01", lt="2025-01-01")
        assert self.found(store, collection, within) == set(dates[1:3])
        assert self.found(store, collection, Range(key="date", gt="2024", lte="2024-01-01")) == {
            "2024-01-01"
        }

    def test_labels_with_odd_characters(self, store: Store, collection: str) -> None:
        values = [
            "a:b",
            "a b",
            "*",
            "?",
            "a\\b",
            'q"',
            "[1 TO 2]",
            "a\tb",
            "x" * 2_000,
            "é",
            "e\u0301",
        ]
        self.put(
            store,
            collection,
            *(write(f"d{i}", "red", metadata={"k.é-1": v}) for i, v in enumerate(values)),
        )
        for number, value in enumerate(values):
            assert self.found(store, collection, Terms("k.é-1", (value,))) == {f"d{number}"}
        assert self.found(store, collection, Exists("k")) == set()
        assert self.found(store, collection, Terms("k", ("a:b",))) == set()

    def test_many_values_and_deep_filters(self, store: Store, collection: str) -> None:
        self.put(store, collection, *(write(f"d{i}", "red", metadata={"n": i}) for i in range(50)))
        assert len(self.found(store, collection, Terms("n", tuple(range(25, 3_000))))) == 25
        condition: Filter = Terms("n", (7,))
        for _ in range(20):
            condition = Not(condition)
        assert self.found(store, collection, condition) == {"d7"}
        either = AnyOf(tuple(All((Exists("n"), Terms("n", (i,)))) for i in range(40)))
        assert len(self.found(store, collection, either)) == 40


class IdentifierContract(StoreContract):
    @pytest.mark.parametrize(
        "name",
        [
            *(
                "a/b/c",
                "a:1",
                "1:2:3",
                "中文 文件.pdf",
                'quo"te',
                "sla\\sh",
                "it's",
                "%2F",
                "a?b#c",
            ),
            *("_id", "-", "*", "é", "e\u0301", "🙂", "SELECT 1;--", "a,b", "{x}", "tab\there"),
            *("x" * 400, "汉" * 133, "http://wiki/页?x=1&y=2"),
        ],
    )
    def test_an_unusual_id_works_everywhere(self, store: Store, collection: str, name: str) -> None:
        self.put(store, collection, write(name, "red", "blue"), write("other", "red"))
        assert store.document(collection, name).document.id == name
        assert bm25_ids(store, collection, "red") == sorted([f"{name}:0", "other:0"])
        assert bm25_ids(store, collection, "red", filter=Terms("document_id", (name,))) == [
            f"{name}:0"
        ]
        assert store.passages(collection, [f"{name}:1"])[f"{name}:1"].chunk.text == "blue"
        assert store.states(collection, [name])[name].chunks == 2
        assert store.delete(collection, name, refresh=True).chunks == 2
        assert bm25_ids(store, collection, "red") == ["other:0"]

    def test_ids_that_nearly_meet_stay_apart(self, store: Store, collection: str) -> None:
        names = ["a", "a:0", "a:0:0", "A", "a ", "a/", "é", "e\u0301"]
        names = [name for name in names if name == name.strip()]
        self.put(store, collection, *(write(name, f"text of {name}") for name in names))
        for name in names:
            assert store.document(collection, name).document.text == f"text of {name}"
            [passage] = store.passages(collection, [f"{name}:0"]).values()
            assert passage.chunk.document_id == name
        store.delete(collection, "a", refresh=True)
        assert store.collection(collection).documents == len(names) - 1
        assert store.passages(collection, ["a:0", "a:00", "a:-1", "a: 0", ":0"]) == {}


class ConcurrencyContract(StoreContract):
    def test_of_writers_with_one_condition_one_wins(self, store: Store, collection: str) -> None:
        self.put(store, collection, write("a", "start"))
        for revision in range(1, 4):

            def attempt(number: int, revision: int = revision) -> object:
                texts = [f"w{number}x{revision}"] * (number + 1)
                [result] = store.write(
                    collection, [write("a", *texts, if_revision=revision)], refresh=True
                )
                return result

            with ThreadPoolExecutor(6) as pool:
                results = list(pool.map(attempt, range(6)))
            winners = [n for n, result in enumerate(results) if isinstance(result, Written)]
            losers = [result for result in results if isinstance(result, RevisionConflict)]
            assert (len(winners), len(losers)) == (1, 5), results
            [winner] = winners
            assert store.collection(collection).chunks == winner + 1
            text = f"w{winner}x{revision}"
            assert bm25_ids(store, collection, text) == [f"a:{i}" for i in range(winner + 1)]
            assert store.document(collection, "a").document.text == "\n".join([text] * (winner + 1))

    def test_writers_without_conditions_leave_one_whole_version(
        self, store: Store, collection: str
    ) -> None:
        def put(number: int) -> list[int]:
            texts = [f"w{number}"] * (number % 4 + 1)
            revisions = []
            for _ in range(5):
                [result] = store.write(collection, [write("a", *texts)], refresh=True)
                # A store may refuse one that lost a race; it must not mix the two.
                assert isinstance(result, Written | RevisionConflict)
                if isinstance(result, Written):
                    revisions.append(result.revision)
            return revisions

        with ThreadPoolExecutor(4) as pool:
            revisions = [revision for found in pool.map(put, range(4)) for revision in found]
        assert len(revisions) == len(set(revisions))
        store.refresh(collection)
        stored = store.document(collection, "a")
        assert stored.revision == max(revisions)
        lines = stored.document.text.split("\n")
        assert len(set(lines)) == 1
        assert stored.chunks == len(lines) == store.collection(collection).chunks
        assert bm25_ids(store, collection, lines[0]) == [f"a:{i}" for i in range(len(lines))]

    def test_all_operations_at_once_leave_a_sound_store(
        self, store: Store, collection: str
    ) -> None:
        """Threads put, delete, search, scan; then everything agrees with everything."""

        def work(seed: int) -> None:
            random = Random(seed)
            for step in range(12):
                name = f"d{random.randrange(12)}"
                match random.randrange(5):
                    case 0 | 1:
                        texts = [f"red s{seed} p{i} t{step}" for i in range(random.randrange(1, 4))]
                        [result] = store.write(
                            collection, [write(name, *texts, metadata={"seed": seed})], refresh=True
                        )
                        assert isinstance(result, Written | RevisionConflict), result
                    case 2:
                        with suppress(DocumentNotFound, RevisionConflict):
                            store.delete(collection, name, refresh=True)
                    case 3:
                        legs = store.search(
                            collection,
                            LegsRequest(
                                text=words("red"), vector=unit(1), filter=Terms("seed", (seed,))
                            ),
                        )
                        assert legs.errors == {}
                        assert legs.bm25 is not None
                        ids = [chunk_id for chunk_id, _ in legs.bm25.hits]
                        assert len(ids) == len(set(ids))
                        store.passages(collection, ids)
                    case _:
                        seen = [found.document.id for found in store.documents(collection)]
                        assert len(seen) == len(set(seen))

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
        store.refresh(collection)
        documents = {found.document.id: found for found in store.documents(collection)}
        expected = sorted(f"{name}:{i}" for name, d in documents.items() for i in range(d.chunks))
        assert sorted(bm25_ids(store, collection, "red")) == expected
        assert sorted(vector_ids(store, collection, unit(1))) == expected
        passages = store.passages(collection, expected)
        assert sorted(passages) == expected
        for passage in passages.values():
            stored = documents[passage.chunk.document_id]
            chunk = passage.chunk
            assert stored.document.text[chunk.start : chunk.end] == chunk.text
            assert passage.revision == stored.revision
        counts = store.collection(collection)
        assert (counts.documents, counts.chunks) == (len(documents), len(expected))
        states = store.states(collection, list(documents))
        assert all(state.complete for state in states.values())


def _without_id(given: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key != "document_id"}


class PhraseContract(StoreContract):
    """What suggestions ask: every chunk with its groups, how many hold a phrase, and what changed."""

    def test_every_chunk_comes_with_title_and_groups(self, store: Store, collection: str) -> None:
        written = [
            *(write(f"d{number:03}", f"red w{number}", "blue") for number in range(270)),
            write("titled", "green", title="云原生", acl=("b", "a")),
            write("nobody", "secret", acl=()),
        ]
        self.put(store, collection, *written)
        store.delete(collection, "d007")
        store.write(collection, [write("late", "not refreshed")])
        found = list(store.owned_chunks(collection))
        ids = [each.chunk.document_id for each in found]
        assert len(set(ids)) == 272
        assert [name for name, _ in groupby(ids)] == sorted(set(ids))
        by_id = {each.chunk.id: each for each in found}
        assert len(by_id) == len(found) == 269 * 2 + 3
        assert "d007:0" not in by_id
        titled = by_id["titled:0"]
        assert (titled.title, sorted(titled.acl)) == ("云原生", ["a", "b"])
        assert titled.chunk == written[270].chunks[0].chunk
        assert (by_id["nobody:0"].acl, by_id["d001:1"].acl) == ((), ("public",))

    def test_phrases_are_counted_where_the_filter_lets_them(
        self, store: Store, collection: str
    ) -> None:
        self.put(
            store,
            collection,
            write("one", "云原生", "云原生 red"),
            write("apart", "云原", "原生"),
            write("titled", "red", title="云原生", acl=("a",)),
            write("mixed", "云原", title="原生", acl=("a",)),
        )
        phrases = [("云原", "原生"), (), ("云原",), ("原生", "原生"), ("absent",), ("re", "ed")]
        assert store.holding(collection, phrases) == [4, 0, 5, 5, 0, 2]
        public = Terms("acl", ("public",))
        assert store.holding(collection, phrases, filter=public) == [2, 0, 3, 3, 0, 1]
        nobody = Terms("acl", ())
        assert store.holding(collection, phrases, filter=nobody) == [0] * 6
        assert store.holding(collection, []) == []
        store.delete(collection, "one", refresh=True)
        assert store.holding(collection, phrases[:1], filter=public) == [0]

    def test_the_words_list_can_be_kept_to_chunks_that_hold_terms(
        self, store: Store, collection: str
    ) -> None:
        self.put(
            store,
            collection,
            write("one", "red 云原 原生", "red 云原"),
            write("titled", "red", title="云原 原生", acl=("a",)),
            write("mixed", "red 云原", title="原生", acl=("a",)),
        )

        def found(holding: tuple[str, ...], condition: Terms | None = None) -> dict[str, float]:
            text = (TextClause(field="words", terms=("red",)),)
            request = LegsRequest(text=text, holding=holding, filter=condition)
            leg = store.search(collection, request).bm25
            assert leg is not None
            assert leg.total == len(leg.hits)
            return dict(leg.hits)

        every = found(())
        assert len(every) == 4
        for holding, condition, expected in (
            (("云原", "原生"), None, {"one:0", "titled:0", "mixed:0"}),
            (("云原", "原生"), Terms("acl", ("public",)), {"one:0"}),
            (("原生", "原生"), None, {"one:0", "titled:0", "mixed:0"}),
            (("absent",), None, set()),
            (("云原",), Terms("acl", ()), set()),
        ):
            assert found(holding, condition) == {chunk: every[chunk] for chunk in expected}
        with pytest.raises(InvalidInput, match="surrogate"):
            found(("\ud800",))

    def test_phrases_that_are_no_text_are_refused(self, store: Store, collection: str) -> None:
        for phrases, condition in (
            ([("\ud800",)], None),
            ([("red",)], Terms("acl", ("\udfff",))),
        ):
            with pytest.raises(InvalidInput, match="surrogate"):
                store.holding(collection, phrases, filter=condition)

    def test_a_mark_changes_with_every_change(self, store: Store, collection: str) -> None:
        seen = [store.mark(collection)]
        for change in (
            lambda: store.write(collection, [write("a", "red")]),
            lambda: store.write(collection, [write("a", "red", acl=("g",))]),
            lambda: store.write(collection, [write("b", "red")]),
            lambda: store.delete(collection, "a"),
            lambda: (store.delete_collection(collection), self.again(store, collection)),
        ):
            change()
            seen.append(store.mark(collection))
            assert store.mark(collection) == seen[-1]
        assert len(set(seen)) == len(seen)

    @staticmethod
    def again(store: Store, collection: str) -> None:
        store.create_collection(collection, recipe=RECIPE)

    def test_a_collection_that_is_not_there_has_no_phrases(self, store: Store) -> None:
        name = unique_name()
        for call in (
            lambda: list(store.owned_chunks(name)),
            lambda: store.holding(name, [("red",)]),
            lambda: store.mark(name),
        ):
            with pytest.raises(CollectionNotFound):
                call()
