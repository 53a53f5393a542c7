"""Many at once: what 32 threads get from one server is what one thread gets from the models alone."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from server.models.bge_reranker import BgeReranker
from server.models.e5 import E5Embedder
from server.retrieval.rerank import BATCH
from tests.models import tiny
from tests.product import Server, serving

THREADS = 32
QUERIES = [
    f"{subject}{number}天内怎样报销"
    for number in range(8)
    for subject in ("住宿", "差旅", "病假", "交通")
]
RERANKED = 16
TEXTS = {
    f"d{number}": f"第{number}条 差旅报销须在{number + 5}天内提交。"
    + "住宿费凭发票。" * (number % 7)
    for number in range(THREADS)
}


def test_32_threads_get_the_values_of_one(tmp_path: Path) -> None:
    folder = tiny.reranker(tmp_path / "reranker")
    settings = {"reranker": f"bge:{folder}", "windows": "0", "threads": str(THREADS)}
    settings |= {"search_timeout": "60", "rerank_timeout": "60", "rerank_top_n": str(RERANKED)}
    with serving(tmp_path / "data", **settings) as server, ThreadPoolExecutor(THREADS) as pool:
        server.fill("default")
        list(pool.map(lambda item: put(server, *item), TEXTS.items()))
        answers = list(pool.map(lambda query: search(server, query), QUERIES))

    embedder, reranker = E5Embedder(), BgeReranker(folder)
    passages = np.stack([embedder.embed_documents([text])[0] for text in TEXTS.values()])
    for query, answer in zip(QUERIES, answers, strict=True):
        assert answer["degraded"] == []
        scores = {hit["document_id"]: hit["scores"] for hit in answer["hits"]}
        cosines = passages @ embedder.embed_query(query)
        assert [scores[name]["vector"] for name in TEXTS] == pytest.approx(cosines, abs=1e-6)
        order = sorted(answer["hits"], key=lambda hit: hit["ranks"]["vector"])
        for start in range(0, RERANKED, BATCH):
            batch = order[start : start + BATCH]
            ranked = reranker.score(query, [TEXTS[hit["document_id"]] for hit in batch])
            assert [hit["scores"]["rerank"] for hit in batch] == pytest.approx(ranked, abs=1e-6)


def put(server: Server, name: str, text: str) -> None:
    path = f"/v1/collections/default/documents/{name}?refresh=true"
    server.call(path, {"text": text}, method="PUT")


def search(server: Server, query: str) -> dict:
    body = {"query": query, "mode": "vector", "size": THREADS, "rerank": True}
    return server.call("/v1/search", body)
