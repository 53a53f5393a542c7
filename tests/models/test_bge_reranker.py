import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server.errors import RerankerUnavailable
from server.models.bge_reranker import BgeReranker
from server.models.contract import Reranker
from tests.models import tiny
from tests.models.forks import in_child

QUERY = "差旅报销"
PASSAGES = ["差旅报销标准", "abc 123", "", "员工手册 " * 40, "病假 Hotel"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.reranker(tmp_path_factory.mktemp("models") / "reranker")


@pytest.fixture(scope="module")
def reranker(folder: Path) -> BgeReranker:
    return BgeReranker(folder)


def by_transformers(folder: Path, query: str, passages: list[str]) -> list[float]:
    """What transformers gives for each pair by itself, the passage cut."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    scores = []
    for passage in passages:
        inputs = tokenizer(
            [query],
            [passage],
            truncation="only_second",
            max_length=tiny.POSITIONS,
            return_tensors="pt",
        )
        with torch.no_grad():
            scores.append(float(torch.sigmoid(model(**inputs).logits)[0, 0]))
    return scores


def test_gives_the_values_of_transformers(reranker: Reranker, folder: Path) -> None:
    scores = reranker.score(QUERY, PASSAGES)
    assert scores == pytest.approx(by_transformers(folder, QUERY, PASSAGES), abs=1e-5)
    assert all(0 <= score <= 1 for score in scores)
    assert len({round(score, 6) for score in scores}) == len(PASSAGES)
    assert reranker.score(QUERY, []) == []


def test_gives_the_values_of_flag_embedding(reranker: BgeReranker, folder: Path) -> None:
    from FlagEmbedding import FlagReranker

    flag = FlagReranker(str(folder), devices="cpu", max_length=tiny.POSITIONS)
    ordinary = [passage for passage in PASSAGES if passage]
    theirs = flag.compute_score([(QUERY, passage) for passage in ordinary], normalize=True)
    assert reranker.score(QUERY, ordinary) == pytest.approx(theirs, abs=1e-5)


def test_a_long_query_leaves_room_for_the_passage(reranker: BgeReranker, folder: Path) -> None:
    long = QUERY * 100
    # Three quarters of the tokens, of which Metaspace's mark is the first.
    cut = long[: tiny.POSITIONS * 3 // 4 - 1]
    expected = by_transformers(folder, cut, PASSAGES)
    assert reranker.score(long, PASSAGES) == pytest.approx(expected, abs=1e-5)


def test_many_threads_get_the_values_of_one(reranker: BgeReranker) -> None:
    queries = [QUERY, "abc", "手册" * 20]
    expected = [reranker.score(query, PASSAGES) for query in queries]

    def work(number: int) -> bool:
        return reranker.score(queries[number % 3], PASSAGES) == pytest.approx(
            expected[number % 3], abs=1e-5
        )

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(120)))


def test_a_forked_child_scores_although_the_parent_did(reranker: BgeReranker) -> None:
    expected = reranker.score(QUERY, PASSAGES)
    assert in_child(lambda: reranker.score(QUERY, PASSAGES)) == pytest.approx(expected, abs=1e-5)


def test_odd_texts_are_scored_and_nothing_is_printed(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fresh = BgeReranker(folder)
    fresh.warm_up()
    assert len(fresh.score("", ["\x00", "\ud800", "差旅" * 500_000] * 60)) == 180
    assert capfd.readouterr() == ("", "")


def test_what_is_no_reranker_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(RerankerUnavailable, match="not a reranker"):
        BgeReranker(tiny.bert(tmp_path / "embedder"))
    part = shutil.copytree(folder, tmp_path / "part")
    (part / "model.safetensors").unlink()
    with pytest.raises(RerankerUnavailable, match="scripts/fetch_models"):
        BgeReranker(part)
    with pytest.raises(RerankerUnavailable, match="3 numbers"):
        BgeReranker(tiny.reranker(tmp_path / "classifier", labels=3)).score(QUERY, PASSAGES)
    (part / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(RerankerUnavailable, match="can't be loaded"):
        BgeReranker(part).score(QUERY, PASSAGES)
