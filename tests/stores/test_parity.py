"""The same documents and queries rank alike in the embedded store and on Elasticsearch.

Not bit for bit, for named reasons: Elasticsearch finds its candidates by quantised vectors in a graph
(and scores them again by whole ones), and BM25's sums are of float32 in another order.
"""

import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from random import Random

import numpy as np
import pytest

from server.documents import Chunk, Document, IndexedChunk, Vector
from server.recipes import Recipe
from server.stores.contract import Leg, LegsRequest, Store, TextClause, Write
from server.stores.elasticsearch.store import ElasticsearchStore
from server.stores.embedded.store import EmbeddedStore
from server.stores.filters import Filter, Range
from tests.services.elasticsearch import targets
from tests.stores.builders import sparse_of, terms_of

DIMENSIONS = 96
DOCUMENTS = 700
TOP = 10
CHINESE = "差旅 报销 标准 年假 审批 流程 服务器 密码 重置 合同 发票 采购 入职 离职 绩效 薪资 社保"
ENGLISH = "travel expense policy leave approval server password reset contract invoice onboard"
LATIN_WORDS = ENGLISH.split()
WORDS = CHINESE.split() + LATIN_WORDS
RECIPE = Recipe(
    embedder="bag", dimensions=DIMENSIONS, analyzer="blanks", chunker="one", sparse="words"
)


def bag(words: Sequence[str]) -> Vector:
    """A vector near to those of texts that share words."""
    total = np.zeros(DIMENSIONS)
    for word in words:
        total += np.random.default_rng(zlib.crc32(word.encode())).standard_normal(DIMENSIONS)
    return (total / np.linalg.norm(total)).astype(np.float32)


def text_of(random: Random, length: int) -> list[str]:
    """Words of both languages, some frequent and many rare, as in real text."""
    rare = [
        f"{random.choice(LATIN_WORDS)}{int(random.paretovariate(0.6)) % 400}" for _ in range(length)
    ]
    common = random.choices(WORDS, k=length)
    return [random.choice(pair) for pair in zip(rare, common, strict=True)]


def document(number: int) -> Write:
    random = Random(number)
    title = " ".join(text_of(random, 4))
    parts = [text_of(random, random.randrange(8, 120)) for _ in range(random.randrange(1, 4))]
    texts = [" ".join(part) for part in parts]
    chunks, start = [], 0
    for position, text in enumerate(texts):
        chunk = Chunk(
            document_id=f"d{number}",
            position=position,
            text=text,
            start=start,
            end=start + len(text),
        )
        vector = bag(text.split())
        terms = terms_of(text, title)
        chunks.append(IndexedChunk(chunk=chunk, terms=terms, vector=vector, sparse=sparse_of(text)))
        start += len(text) + 1
    whole = Document.create(
        id=f"d{number}", text="\n".join(texts), title=title, metadata={"number": number}
    )
    return Write(document=whole, chunks=tuple(chunks))


def query(number: int) -> LegsRequest:
    random = Random(10_000 + number)
    words = tuple(text_of(random, random.randrange(1, 8)))
    terms = terms_of(" ".join(words), " ".join(words))
    clauses = tuple(
        TextClause(field=field, terms=terms[field], weight=weight)
        for field, weight in (
            ("words", 1.0),
            ("bigrams", 0.4),
            ("title_words", 1.5),
            ("title_bigrams", 0.6),
        )
    )
    condition: Filter | None = Range(key="number", lt=DOCUMENTS // 3) if number % 4 == 0 else None
    sparse = sparse_of(" ".join(words))
    return LegsRequest(text=clauses, vector=bag(words), sparse=sparse, filter=condition, k=50)


@pytest.fixture(scope="module")
def both(
    elasticsearch: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Store, Store]]:
    remote = ElasticsearchStore(elasticsearch(targets()[0]), prefix=f"test-{uuid.uuid4().hex[:12]}")
    embedded = EmbeddedStore(tmp_path_factory.mktemp("parity"))
    writes = [document(number) for number in range(DOCUMENTS)]
    for store in (embedded, remote):
        store.create_collection("parity", recipe=RECIPE)
        store.write("parity", writes, refresh=True)
    yield embedded, remote
    remote.delete_collection("parity")
    remote.close()
    embedded.close()


def test_the_top_of_each_leg_is_the_same(both: tuple[Store, Store]) -> None:
    overlaps: dict[str, list[float]] = {"bm25": [], "vector": [], "sparse": []}
    for number in range(80):
        request = query(number)
        found = [store.search("parity", request) for store in both]
        for leg, shares in overlaps.items():
            ours, theirs = (getattr(legs, leg) for legs in found)
            assert isinstance(ours, Leg)
            assert isinstance(theirs, Leg)
            assert ours.total == theirs.total
            # The scores themselves agree, not only their order.
            common = dict(ours.hits).keys() & dict(theirs.hits).keys()
            near = {"rel": 1e-6} if leg == "sparse" else {"rel": 1e-3, "abs": 1e-4}
            assert [dict(ours.hits)[chunk] for chunk in common] == pytest.approx(
                [dict(theirs.hits)[chunk] for chunk in common], **near
            )
            tops = [{chunk for chunk, _ in each.hits[:TOP]} for each in (ours, theirs)]
            shares.append(len(tops[0] & tops[1]) / max(len(tops[0]), len(tops[1]), 1))
    for leg, shares in overlaps.items():
        assert sum(shares) / len(shares) >= 0.95, (leg, shares)
