"""The contract of document frequencies as a test class, which every backend inherits."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.documents import TEXT_FIELDS
from server.errors import CollectionNotFound, GenerationChanged, InvalidInput
from server.stores.contract import MAX_TERMS, Frequencies, Store, Write
from tests.stores.builders import NEXT_RECIPE, write
from tests.stores.contract import unique_name
from tests.stores.generation_contract import GenerationSteps

ODD_TERMS = (
    *("AND", "NOT", "*", '"', "'", "\\", "field:x", "a~2", "[a", "{b}", "<b>", "-", "%_"),
    *("🙂", "汉", "gb/t5972", "v2.3.1", "a.b.c", "é", "É", "𠮷野家", "a\u200bb", "_id", "null"),
    *("x" * 100, "汉" * 100, "terms", "labels", "document_id"),
)
texts = st.lists(st.sampled_from(("red", "blue", "报销", "v2.3", '"')), max_size=5).map(" ".join)
documents = st.lists(st.tuples(st.lists(texts, min_size=1, max_size=3), texts), max_size=3)


def counted(writes: list[Write], terms: dict[str, list[str]]) -> Frequencies:
    """By hand."""
    chunks = [indexed for given in writes for indexed in given.chunks]
    return Frequencies(
        chunks=len(chunks),
        of={
            field: {term: sum(term in chunk.terms[field] for chunk in chunks) for term in found}
            for field, found in terms.items()
        },
    )


class FrequencyContract(GenerationSteps):
    def test_they_are_those_counted_by_hand(self, store: Store, collection: str) -> None:
        written: list[Write] = []
        asked = {
            "words": ["red", "blue", "报销", "v2.3", '"', "absent"],
            "bigrams": ["re", "报销", "2."],
            "title_words": ["red", "absent"],
            "title_bigrams": ["ed", "lu"],
        }

        # Documents are only added, for those that are replaced may be counted or not.
        @settings(max_examples=10)
        @given(documents=documents)
        def check(documents: list[tuple[list[str], str]]) -> None:
            added = [
                write(f"d{len(written) + number}", *texts, title=title)
                for number, (texts, title) in enumerate(documents)
            ]
            self.put(store, collection, *added)
            written.extend(added)
            assert store.frequencies(collection, asked) == counted(written, asked)

        check()

    def test_a_term_is_counted_as_it_is_and_as_nothing_else(
        self, store: Store, collection: str
    ) -> None:
        self.put(store, collection, *(write(f"d{n}", f"red {t}") for n, t in enumerate(ODD_TERMS)))
        absent = ["", "red red", "red AND", "RED", "re", "x" * 99, "x" * 300, "汉汉"]
        found = store.frequencies(collection, {"words": ["red", *ODD_TERMS, *absent]})
        assert found.chunks == len(ODD_TERMS)
        assert found.of == {
            "words": {"red": len(ODD_TERMS)}
            | dict.fromkeys(ODD_TERMS, 1)
            | dict.fromkeys(absent, 0)
        }

    def test_idf_is_lucene_s(self, store: Store, collection: str) -> None:
        self.put(store, collection, write("a", "red", "blue"), write("b", "red", title="red"))
        found = store.frequencies(collection, {"words": ["red", "none"], "title_words": ["red"]})
        assert found.idf("words", "red") == pytest.approx(math.log(1 + 1.5 / 2.5))
        assert found.idf("words", "none") == pytest.approx(math.log(1 + 3.5 / 0.5))
        assert found.idf("title_words", "red") == pytest.approx(math.log(1 + 2.5 / 1.5))

    def test_an_empty_collection_has_none(self, store: Store, collection: str) -> None:
        found = store.frequencies(collection, {"words": ["red"], "bigrams": []})
        assert found == Frequencies(chunks=0, of={"words": {"red": 0}, "bigrams": {}})
        assert found.idf("words", "red") == pytest.approx(math.log(2))
        assert store.frequencies(collection, {}) == Frequencies(chunks=0, of={})

    def test_what_was_replaced_never_outnumbers_the_chunks(
        self, store: Store, collection: str
    ) -> None:
        for _ in range(4):
            self.put(store, collection, write("a", "red", "red blue"), write("b", "red"))
        store.delete(collection, "b", refresh=True)
        found = store.frequencies(collection, {"words": ["red", "blue"]})
        red, blue = found.of["words"]["red"], found.of["words"]["blue"]
        assert 2 <= red <= found.chunks <= 12
        assert 1 <= blue <= 4
        assert 0 < found.idf("words", "red") < found.idf("words", "blue")

    def test_each_generation_has_its_own(self, store: Store, collection: str) -> None:
        self.documents(store, collection, ["a", "b"], "red")
        old = store.live(collection)
        new = self.rebuilt(store, collection)
        store.refresh(collection)
        terms = {"words": ["red", old.recipe.analyzer, NEXT_RECIPE.analyzer]}
        for generation, own in (
            (old.id, old.recipe.analyzer),
            (new.id, NEXT_RECIPE.analyzer),
            (None, NEXT_RECIPE.analyzer),
        ):
            found = store.frequencies(collection, terms, generation=generation)
            assert found.chunks == 2
            assert found.of["words"] == dict.fromkeys(terms["words"], 0) | {"red": 2, own: 2}
        store.generations.drop(collection, old.id)
        with pytest.raises(GenerationChanged):
            store.frequencies(collection, terms, generation=old.id)
        assert store.frequencies(collection, terms).of["words"]["red"] == 2

    def test_what_can_t_be_asked_is_refused(self, store: Store, collection: str) -> None:
        for terms in (
            {"labels": ["acl"]},
            {"words": ["red"], "title": ["red"]},
            {"words": ["a\ud800"]},
            {field: ["red"] * (MAX_TERMS // 2) for field in TEXT_FIELDS},
        ):
            with pytest.raises(InvalidInput):
                store.frequencies(collection, terms)
        with pytest.raises(CollectionNotFound):
            store.frequencies(unique_name(), {"words": ["red"]})
