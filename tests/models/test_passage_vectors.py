"""Vectors of passages are kept across processes, within their bytes, and never given out wrong."""

import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import EmbedderUnavailable
from server.models.passage_vectors import PassageVectors
from server.models.remembering import Remembering
from tests.fakes import FakeEmbedder
from tests.product import ROOT

MB = 1024 * 1024


@pytest.fixture
def kept(tmp_path: Path) -> PassageVectors:
    return PassageVectors.in_folder(tmp_path / "data", MB)


def file_of(kept: PassageVectors) -> Path:
    return kept._path


def test_a_passage_is_embedded_once_by_any_process(kept: PassageVectors) -> None:
    inner = FakeEmbedder()
    first = Remembering(inner, kept)
    made = first.embed_documents(["年假", "报销", "年假"])

    later = FakeEmbedder()
    again = Remembering(later, PassageVectors(file_of(kept), MB)).embed_documents(
        ["报销", "出差", "年假"]
    )

    assert inner.calls == [["年假", "报销"]]
    assert later.calls == [["出差"]]
    assert again.tobytes() == FakeEmbedder().embed_documents(["报销", "出差", "年假"]).tobytes()
    assert made.tobytes() == FakeEmbedder().embed_documents(["年假", "报销", "年假"]).tobytes()
    assert made.dtype == np.float32
    assert first.embed_documents([]).shape == (0, 16)


def test_vectors_are_those_of_this_embedder(kept: PassageVectors) -> None:
    Remembering(FakeEmbedder(version="1"), kept).embed_documents(["年假"])
    other = FakeEmbedder(version="2")
    Remembering(other, kept).embed_documents(["年假"])
    wider = FakeEmbedder(version="1", dimensions=32)
    vectors = Remembering(wider, kept).embed_documents(["年假"])

    assert other.calls == wider.calls == [["年假"]]
    assert vectors.shape == (1, 32)


def test_an_error_or_a_vector_that_is_none_is_not_kept(kept: PassageVectors) -> None:
    inner = FakeEmbedder()
    inner.down = True
    with pytest.raises(EmbedderUnavailable):
        Remembering(inner, kept).embed_documents(["年假"])

    bad = np.array([[np.nan] * 16, [0.0] * 16, [1.0] + [0.0] * 15], np.float32)
    kept.put("fake:1", ["a", "b", "c"], bad)
    assert list(kept.get("fake:1", 16, ["年假", "a", "b", "c"])) == ["c"]


def test_a_changed_bit_is_no_vector(kept: PassageVectors) -> None:
    texts = [f"text {number}" for number in range(20)]
    vectors = FakeEmbedder().embed_documents(texts)
    kept.put("fake:1", texts, vectors)
    with sqlite3.connect(file_of(kept)) as connection:
        rows = connection.execute("select rowid, vector from vectors").fetchall()
        for rowid, vector in rows[::2]:
            changed = bytes([vector[0] ^ 1]) + vector[1:]
            connection.execute("update vectors set vector = ? where rowid = ?", (changed, rowid))
    found = kept.get("fake:1", 16, texts)
    assert len(found) == 10
    for text, vector in found.items():
        assert vector.tobytes() == vectors[texts.index(text)].tobytes()


@pytest.mark.parametrize("damage", ["not a database", "half of it"])
def test_a_damaged_file_is_thrown_away(kept: PassageVectors, damage: str) -> None:
    texts = [f"text {number}" for number in range(400)]
    vectors = FakeEmbedder(dimensions=256).embed_documents(texts)
    kept.put("fake:1", texts, vectors)
    file = file_of(kept)
    if damage == "not a database":
        file.write_bytes(b"not a database, and longer than its header would be" * 1_000)
    else:
        with file.open("r+b") as open_file:
            open_file.truncate(file.stat().st_size // 2)

    for text, vector in kept.get("fake:1", 256, texts).items():
        assert vector.tobytes() == vectors[texts.index(text)].tobytes()
    kept.put("fake:1", texts, vectors)
    kept.put("fake:1", texts, vectors)
    assert len(kept.get("fake:1", 256, texts)) == 400


def test_a_file_that_cannot_be_had_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    embedder = Remembering(FakeEmbedder(), PassageVectors(tmp_path / "file" / "vectors", MB))
    assert embedder.embed_documents(["年假"]).shape == (1, 16)
    locked = PassageVectors(tmp_path / "vectors", MB)
    locked.put("fake:1", ["a"], FakeEmbedder().embed_documents(["a"]))
    with sqlite3.connect(tmp_path / "vectors") as connection:
        connection.execute("begin exclusive")
        assert Remembering(FakeEmbedder(), locked).embed_documents(["b"]).shape == (1, 16)


def test_the_file_keeps_to_its_bytes_and_those_used_last_stay(kept: PassageVectors) -> None:
    embedder = FakeEmbedder(dimensions=384)
    texts = [f"text {number}" for number in range(2_000)]  # some 3 MB
    for start in range(0, len(texts), 100):
        some = texts[start : start + 100]
        kept.put("fake:1", some, embedder.embed_documents(some))
        assert file_of(kept).stat().st_size < 1.5 * MB
    assert len(kept.get("fake:1", 384, texts[-100:])) == 100
    assert not kept.get("fake:1", 384, texts[:1_000])
    assert len(kept.get("fake:1", 384, texts)) > 300


def test_only_its_owner_may_read_it_and_it_holds_no_text(kept: PassageVectors) -> None:
    Remembering(FakeEmbedder(), kept).embed_documents(["confidential"])
    file = file_of(kept)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b"confidential" not in file.read_bytes()


TEXTS = [f"text {number}" for number in range(60)]


def embed_some(kept: PassageVectors, number: int) -> bool:
    """Whether some of TEXTS have the vectors that they should have."""
    texts = [TEXTS[place] for place in np.random.default_rng(number).permutation(60)[:20]]
    made = Remembering(FakeEmbedder(), kept).embed_documents(texts)
    return bool(np.array_equal(made, FakeEmbedder().embed_documents(texts)))


def test_threads_and_processes_share_it(kept: PassageVectors) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.models.test_passage_vectors import *; "
        "kept = PassageVectors(Path(sys.argv[1]), MB); "
        "sys.exit(not all(embed_some(kept, number) for number in range(100, 140)))"
    )
    other = subprocess.Popen([sys.executable, "-c", program, file_of(kept)], cwd=ROOT)
    with ThreadPoolExecutor(6) as pool:
        while other.poll() is None:
            assert all(pool.map(partial(embed_some, kept), range(12)))
    assert other.returncode == 0
    assert len(kept.get("fake:1", 16, TEXTS)) == 60


@settings(max_examples=25, deadline=None)
@given(batches=st.lists(st.lists(st.text(max_size=4), max_size=8), max_size=6))
def test_whatever_is_asked_the_vectors_are_the_embedders(
    batches: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    kept = PassageVectors.in_folder(tmp_path_factory.mktemp("kept"), MB)
    inner = FakeEmbedder()
    embedder = Remembering(inner, kept)
    for texts in batches:
        expected = FakeEmbedder().embed_documents(texts)
        assert np.array_equal(embedder.embed_documents(texts), expected)
    assert len(inner.texts) == len(set(inner.texts))
