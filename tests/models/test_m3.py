"""BGE-M3 with its sparse weights: the values of FlagEmbedding, in one pass, from plain tensors only."""

import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from server.errors import EmbedderUnavailable
from server.models.bge import BgeEmbedder
from server.models.contract import gives_sparse
from server.models.m3 import M3Embedder
from server.models.remembering_sparse import remembering
from tests.models import tiny
from tests.models.forks import in_child
from tests.models.test_bge import TEXTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.m3(tmp_path_factory.mktemp("models") / "bge-m3")


@pytest.fixture(scope="module")
def m3(folder: Path) -> M3Embedder:
    return M3Embedder(folder, name="bge:test/bge-m3")


def test_gives_the_values_of_flag_embedding(m3: M3Embedder, folder: Path) -> None:
    from FlagEmbedding import BGEM3FlagModel

    flag = BGEM3FlagModel(str(folder), use_fp16=False, devices="cpu")
    theirs = flag.encode(
        TEXTS,
        max_length=tiny.POSITIONS,
        return_dense=True,
        return_sparse=True,
        return_colbert_vecs=False,
    )
    made = m3.encode_documents(TEXTS)
    queries = [m3.encode_query(text) for text in TEXTS]
    assert any(each for each in theirs["lexical_weights"])
    for ours in (made, queries):
        vectors = np.stack([each.vector for each in ours])
        assert vectors == pytest.approx(theirs["dense_vecs"], abs=1e-4)
        for one, other in zip(ours, theirs["lexical_weights"], strict=True):
            assert one.sparse is not None
            assert one.sparse.sound
            wanted = {int(token): float(weight) for token, weight in other.items()}
            assert one.sparse.as_dict() == pytest.approx(wanted, abs=1e-4)
    score = flag.compute_lexical_matching_score(
        theirs["lexical_weights"][0], theirs["lexical_weights"][4]
    )
    one, other = made[0].sparse, made[4].sparse
    assert one is not None
    assert other is not None
    ours_of_both = sum(
        weight * other.as_dict().get(token, 0.0) for token, weight in one.as_dict().items()
    )
    assert ours_of_both == pytest.approx(score, abs=1e-4)


def test_its_vectors_are_those_of_the_same_model_without_the_head(
    m3: M3Embedder, folder: Path
) -> None:
    plain = BgeEmbedder(folder, name="bge:test/bge-m3")
    assert (plain.fingerprint, gives_sparse(plain)) == (m3.fingerprint, False)
    made = np.stack([each.vector for each in m3.encode_documents(TEXTS)])
    assert made == pytest.approx(plain.embed_documents(TEXTS), abs=1e-5)
    assert m3.embed_documents(TEXTS) == pytest.approx(made, abs=1e-5)


def test_threads_and_a_forked_child_get_the_values_of_one(m3: M3Embedder) -> None:
    expected = {
        text: made.sparse for text, made in zip(TEXTS, m3.encode_documents(TEXTS), strict=True)
    }

    def work(number: int) -> bool:
        text = TEXTS[number % len(TEXTS)]
        found, wanted = m3.encode_query(text).sparse, expected[text]
        assert found is not None
        assert wanted is not None
        return found.as_dict() == pytest.approx(wanted.as_dict(), abs=1e-4)

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(100)))
    assert in_child(lambda: all(work(number) for number in range(7)))


def test_a_remembered_query_is_the_same_and_read_only(m3: M3Embedder) -> None:
    kept = remembering(m3)
    assert gives_sparse(kept)
    first = kept.encode_query("差旅")
    assert kept.encode_query("差旅") is first
    assert kept.embed_query("差旅") is first.vector
    assert kept.sparse_fingerprint == m3.sparse_fingerprint
    assert first.sparse is not None
    with pytest.raises(ValueError, match="read-only"):
        first.sparse.weights[:] = 0
    assert not gives_sparse(remembering(BgeEmbedder(m3._folder)))


def test_the_heads_fingerprint_is_its_own(tmp_path: Path, folder: Path, m3: M3Embedder) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    assert M3Embedder(other).sparse_fingerprint == m3.sparse_fingerprint
    shutil.copy(tiny.m3(tmp_path / "seed", seed=8) / "sparse_linear.pt", other)
    changed = M3Embedder(other)
    assert changed.sparse_fingerprint != m3.sparse_fingerprint
    assert changed.fingerprint == m3.fingerprint


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("unpickled",)


@pytest.mark.parametrize("kind", ["pickle", "bytes", "shape", "nothing"])
def test_a_head_that_is_none_is_refused(
    tmp_path: Path, folder: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    import torch

    damaged = shutil.copytree(folder, tmp_path / "damaged")
    head = damaged / "sparse_linear.pt"
    if kind == "pickle":
        head.write_bytes(pickle.dumps(_Evil()))
    elif kind == "bytes":
        head.write_bytes(b"not weights")
    elif kind == "shape":
        torch.save(torch.nn.Linear(16, 1).state_dict(), head)
    else:
        head.unlink()
    with pytest.raises(EmbedderUnavailable, match=r"sparse_linear\.pt"):
        M3Embedder(damaged).encode_query("差旅")
    assert "unpickled" not in capfd.readouterr().out


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, folder: Path) -> None:
    import torch

    damaged = shutil.copytree(folder, tmp_path / "damaged")
    head = torch.nn.Linear(32, 1)
    with torch.no_grad():
        head.weight.fill_(float("nan"))
    torch.save(head.state_dict(), damaged / "sparse_linear.pt")
    with pytest.raises(EmbedderUnavailable, match="damaged"):
        M3Embedder(damaged).encode_documents(["差旅"])
