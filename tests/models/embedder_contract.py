"""What every Embedder keeps; a test class of each adapter inherits it and gives the fixture ``embedder``."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from server.documents import Document
from server.ingest.chunker import chunker_for
from server.models.contract import Embedder
from tests.models.forks import in_child

ODD = {
    "empty": "",
    "blank": " \n\t　",
    "NUL": "差旅\0报销",
    "lone surrogate": "差旅\ud800报销",
    "beyond the BMP": "𠮷野家 👩‍👩‍👧",
    "control": "a\x07b\x9fc",
    "one word": "x" * 20_000,
    "long, Chinese": "差旅报销标准。" * 3_000,
    "long, English": "travel expenses ½ " * 2_000,
    "long, blanks": " " * 50_000 + "end",
    "right to left": "مرحبا بالعالم",
    "signs": "!@#¥%……&*（）——" * 400,
}


class EmbedderContract:
    """``tolerance``: how far two vectors of one text may be apart, by the company that it is in."""

    tolerance = 1e-3

    def test_it_says_what_it_is(self, embedder: Embedder) -> None:
        assert embedder.name
        assert embedder.name.partition(":")[0] == embedder.fingerprint.partition(":")[0]
        assert embedder.fingerprint == embedder.fingerprint
        assert embedder.dimensions > 0
        assert embedder.max_tokens >= 64
        assert 0 < embedder.temperature < 1

    def test_documents_give_a_row_each_of_length_1(self, embedder: Embedder) -> None:
        embedder.warm_up()
        vectors = embedder.embed_documents(["差旅报销标准", "annual leave", "差旅报销标准"])
        assert vectors.shape == (3, embedder.dimensions)
        assert vectors.dtype == np.float32
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-3)
        assert vectors[0] == pytest.approx(vectors[2], abs=self.tolerance)
        assert vectors[0] != pytest.approx(vectors[1], abs=0.01)

    def test_a_query_gives_one_vector_of_length_1(self, embedder: Embedder) -> None:
        vector = embedder.embed_query("差旅报销标准")
        assert vector.shape == (embedder.dimensions,)
        assert vector.dtype == np.float32
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-3)
        assert embedder.embed_query("差旅报销标准") == pytest.approx(vector, abs=self.tolerance)

    def test_no_texts_give_no_rows(self, embedder: Embedder) -> None:
        assert embedder.embed_documents([]).shape == (0, embedder.dimensions)

    def test_odd_texts_are_embedded_too(self, embedder: Embedder) -> None:
        vectors = embedder.embed_documents(list(ODD.values()))
        assert dict(zip(ODD, np.linalg.norm(vectors, axis=1), strict=True)) == pytest.approx(
            dict.fromkeys(ODD, 1), abs=1e-3
        )
        for text in ODD.values():
            assert embedder.embed_query(text[:100]).shape == (embedder.dimensions,)
            assert embedder.count_tokens(text) >= 0

    def test_the_order_is_that_of_the_texts_whatever_their_lengths(
        self, embedder: Embedder
    ) -> None:
        texts = [f"{'第' * (n * 7 % 11)}{n}条" for n in range(70)]
        together = embedder.embed_documents(texts)
        for place in (0, 1, 31, 69):
            (alone,) = embedder.embed_documents([texts[place]])
            assert together[place] == pytest.approx(alone, abs=self.tolerance)

    def test_threads_get_what_one_gets(self, embedder: Embedder) -> None:
        batches = [[f"第{n}条", "a" * n, f"{n}"] for n in range(1, 13)]
        alone = [embedder.embed_documents(batch) for batch in batches]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(embedder.embed_documents, batches))
        assert np.array(together) == pytest.approx(np.array(alone), abs=self.tolerance)

    def test_a_child_after_a_fork_gets_what_its_parent_gets(self, embedder: Embedder) -> None:
        before = embedder.embed_query("差旅报销")
        assert in_child(lambda: embedder.embed_query("差旅报销")) == pytest.approx(
            before, abs=self.tolerance
        )
        assert embedder.embed_query("差旅报销") == pytest.approx(before, abs=self.tolerance)

    def test_tokens_are_counted_of_any_length(self, embedder: Embedder) -> None:
        assert embedder.count_tokens("") == 0
        short, long = (
            embedder.count_tokens("差旅报销"),
            embedder.count_tokens("差旅报销。" * 20_000),
        )
        assert 0 < short < long

    def test_chunks_that_are_cut_by_it_are_read_whole(self, embedder: Embedder) -> None:
        """What stands at a chunk's end makes a difference to its vector."""
        text = "".join(f"第{n}条：差旅报销须在{n}天内提交，per diem {n}。" for n in range(12))
        chunks = chunker_for(embedder).chunk(Document.create(id="d", title="", text=text))
        for chunk in chunks:
            other = chunk.text[:-4] + "Ωж7q"
            pair = embedder.embed_documents([chunk.text, other])
            assert pair[0] != pytest.approx(pair[1], abs=1e-5)
