from pathlib import Path

import numpy as np
import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Document
from server.evaluation.dataset import Dataset
from server.evaluation.training import Example, choose, collect, train
from server.evaluation.variants import JudgedSet
from server.retrieval.light import LightWeights
from server.retrieval.searcher import Searcher
from server.stores.embedded.store import EmbeddedStore
from tests.fakes import FakeEmbedder, live_collections, make_indexer

KINDS = ("windows", "bm25", "coverage", "phrase")


def example(telling, *, seed, relevant=3):
    """Ten candidates, the ``relevant`` one third by its cosine and first by one kind of evidence."""
    chance = np.random.default_rng(seed)
    evidence = np.zeros((10, len(KINDS)))
    evidence[relevant, KINDS.index(telling)] = 1.0
    others = [at for at, kind in enumerate(KINDS) if kind != telling]
    evidence[np.ix_(range(10), others)] = chance.random((10, len(others))) * 0.01
    return Example(
        documents=tuple(f"d{place}" for place in range(10)),
        vector=np.linspace(3, 0, 10),
        evidence=evidence,
        grades={f"d{relevant}": 1},
    )


def some(telling, count=8):
    return [example(telling, seed=seed) for seed in range(count)]


def test_what_tells_gets_weight_and_the_gain_is_proven_on_sets_that_did_not_choose():
    sets = {name: some("phrase") for name in ("one", "two", "three")}

    found = train(sets, {name: name for name in sets})

    assert found.weights.phrase >= 2
    for proof in found.proofs:
        assert proof.before < 0.5
        assert proof.after == pytest.approx(1)
        assert proof.compared.difference == pytest.approx(proof.after - proof.before)


def test_a_set_is_measured_by_weights_that_its_group_did_not_choose():
    sets = {"laws": some("phrase"), "copy": some("phrase"), "other": some("coverage")}

    apart = train(sets, {"laws": "laws", "copy": "laws", "other": "other"})

    [laws] = [proof for proof in apart.proofs if proof.name == "laws"]
    assert laws.weights == choose({"other": sets["other"]}, {"other": "other"})


def test_where_nothing_gains_the_defaults_stay():
    best = [example("phrase", seed=seed, relevant=0) for seed in range(5)]

    assert choose({"one": best}, {"one": "one"}) == LightWeights()


def test_every_group_counts_alike():
    many = {"small": some("coverage", 2), "large": some("coverage", 40)}

    assert choose(many, {"small": "a", "large": "b"}) == choose(
        {"small": many["small"]}, {"small": "a"}
    )


def test_examples_come_from_one_search_a_question(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "store")
    analyzer, embedder = JiebaAnalyzer(), FakeEmbedder()
    indexer = make_indexer(store, analyzer, embedder)
    indexer.ensure_collection("rules")
    texts = {"travel": "差旅费报销标准", "leave": "年休假规定", "meals": "食堂供餐时间"}
    documents = [Document.create(id=name, text=text) for name, text in texts.items()]
    indexer.put("rules", documents, refresh=True)
    live = live_collections(store, analyzer, embedder)
    searcher = Searcher(store=store, live=live, reranker=None, light=True)
    judged = {"q": {"travel": 1}}
    dataset = Dataset(folder=None, queries={"q": "差旅费报销"}, qrels=judged)

    [found] = collect(searcher, JudgedSet(name="rules", collection="rules", dataset=dataset))
    store.close()

    assert sorted(found.documents) == sorted(texts)
    kinds = found.evidence[found.documents.index("travel")]
    assert kinds[KINDS.index("coverage")] == pytest.approx(1)
    assert kinds[KINDS.index("phrase")] == pytest.approx(1)
    assert found.ranked(np.array([0, 0, 1000, 1000])) == 1
