import json
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from server.errors import EmbedderUnavailable
from server.models.bge import (
    CHINESE_INSTRUCTION,
    ENGLISH_INSTRUCTION,
    BgeEmbedder,
    query_instruction,
    temperature,
)
from server.models.contract import Embedder
from server.models.torch_engine import Loaded
from tests.models import tiny
from tests.models.forks import in_child

TEXTS = [
    "差旅报销标准",
    "员工手册",
    "abc 123",
    "病假审批流程 hotel" * 3,
    "一线城市每晚住宿上限六百元" * 30,
    "",
    ".",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.bert(tmp_path_factory.mktemp("models") / "bge-tiny-zh")


@pytest.fixture(scope="module")
def bge(folder: Path) -> BgeEmbedder:
    return BgeEmbedder(folder, name="bge:test/bge-tiny-zh")


def by_transformers(folder: Path, texts: list[str], *, pooling: str = "cls") -> np.ndarray:
    """What transformers gives for each text by itself, without padding."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    vectors = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=tiny.POSITIONS, return_tensors="pt")
        with torch.no_grad():
            hidden = model.eval()(**inputs).last_hidden_state[0]
        pooled = hidden[0] if pooling == "cls" else hidden.mean(dim=0)
        vectors.append(torch.nn.functional.normalize(pooled, dim=0).numpy())
    return np.stack(vectors)


def test_keeps_the_contract(bge: Embedder) -> None:
    vectors = bge.embed_documents(TEXTS)
    assert vectors.shape == (len(TEXTS), bge.dimensions) == (7, 32)
    assert vectors.dtype == bge.embed_query("差旅").dtype == np.float32
    assert bge.embed_query("差旅").shape == (32,)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert bge.embed_documents([]).shape == (0, 32)
    assert bge.max_tokens == tiny.POSITIONS
    assert 0 < bge.temperature < 1


def test_gives_the_values_of_transformers(bge: BgeEmbedder, folder: Path) -> None:
    assert bge.embed_documents(TEXTS) == pytest.approx(by_transformers(folder, TEXTS), abs=1e-5)
    query = by_transformers(folder, [CHINESE_INSTRUCTION + "差旅报销"])[0]
    assert bge.embed_query("差旅报销") == pytest.approx(query, abs=1e-5)


def test_gives_the_values_of_flag_embedding(bge: BgeEmbedder, folder: Path) -> None:
    from FlagEmbedding import FlagModel

    flag = FlagModel(
        str(folder),
        query_instruction_for_retrieval=CHINESE_INSTRUCTION,
        use_fp16=False,
        devices="cpu",
        query_max_length=tiny.POSITIONS,
        passage_max_length=tiny.POSITIONS,
    )
    assert bge.embed_documents(TEXTS) == pytest.approx(flag.encode_corpus(TEXTS), abs=1e-5)
    assert bge.embed_query(TEXTS[3]) == pytest.approx(flag.encode_queries([TEXTS[3]])[0], abs=1e-5)


@pytest.mark.parametrize(("stated", "used"), [("cls", "cls"), ("mean", "mean"), (None, "cls")])
def test_pools_as_the_folder_says(tmp_path: Path, stated: str | None, used: str) -> None:
    folder = tiny.bert(tmp_path / "model", pooling=stated)
    vectors = BgeEmbedder(folder).embed_documents(TEXTS)
    assert vectors == pytest.approx(by_transformers(folder, TEXTS, pooling=used), abs=1e-5)


def test_a_pooling_that_is_not_supported_is_named(tmp_path: Path) -> None:
    with pytest.raises(EmbedderUnavailable, match="max_tokens"):
        BgeEmbedder(tiny.bert(tmp_path / "model", pooling="max"))


def test_many_texts_in_batches_keep_their_order(bge: BgeEmbedder, folder: Path) -> None:
    many = [("差旅报销标准员工手册"[: 1 + number % 9] + str(number)) for number in range(600)]
    assert bge.embed_documents(many) == pytest.approx(by_transformers(folder, many), abs=1e-5)


def test_many_threads_get_the_values_of_one(bge: BgeEmbedder) -> None:
    expected = {text: bge.embed_query(text) for text in TEXTS}
    passages = bge.embed_documents(TEXTS)
    counts = {text: bge.count_tokens(text) for text in TEXTS}

    def work(number: int) -> bool:
        text = TEXTS[number % len(TEXTS)]
        start = number % 5
        return (
            np.allclose(bge.embed_query(text), expected[text], atol=1e-5)
            and np.allclose(bge.embed_documents(TEXTS[start:]), passages[start:], atol=1e-5)
            and bge.count_tokens(text) == counts[text]
        )

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(300)))


def test_queries_that_come_together_get_what_they_get_alone(bge: BgeEmbedder) -> None:
    queries = [text[: 2 + number] for number in range(12) for text in (TEXTS[0], TEXTS[4])]
    alone = [bge.embed_query(query) for query in queries]
    free = threading.Event()
    bge.engine._workers.submit("queries", free.wait)  # so that all others are there when it is done
    with ThreadPoolExecutor(len(queries)) as pool:
        asked = [pool.submit(bge.embed_query, query) for query in queries]
        deadline = time.monotonic() + 20
        while sum(map(len, bge.engine._passes["queries"]._waiting.values())) < len(queries):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        free.set()
        together = [each.result(20) for each in asked]
    assert np.array(together) == pytest.approx(np.array(alone), abs=1e-6)


@pytest.mark.parametrize(
    ("device", "lengths", "more", "joins"),
    [
        ("cpu", [30], [35], True),
        ("cpu", [30] * 7, [30], True),
        ("cpu", [30] * 8, [30], False),  # those who came first would wait for nothing gained
        ("cpu", [10], [60], False),  # padding would cost more than the pass
        ("cpu", [300] * 8, [300] * 8, False),
        ("cuda:0", [300] * 8, [300] * 8, True),
        ("cuda:0", [512] * 128, [30], False),  # a batch of documents
    ],
)
def test_a_pass_is_shared_where_that_costs_less_than_two(
    device: str, lengths: list[int], more: list[int], joins: bool
) -> None:
    loaded = Loaded(model=None, tokenizer=None, tokens=None, device=device)

    def encodings(some: list[int]) -> list[SimpleNamespace]:
        return [SimpleNamespace(ids=[0] * length) for length in some]

    assert loaded.joins(encodings(lengths), encodings(more)) is joins


def test_threads_that_start_together_load_the_model_once(folder: Path) -> None:
    fresh = BgeEmbedder(folder)
    gate = threading.Barrier(6)

    def work(number: int) -> int:
        gate.wait()
        fresh.embed_query("差旅") if number % 2 else fresh.count_tokens("差旅")
        return id(fresh.engine._loaded)

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(work, range(6)))) == 1


def test_counts_tokens_without_special_ones_and_without_cutting(bge: BgeEmbedder) -> None:
    assert bge.count_tokens("差旅 报销") == 4
    assert bge.count_tokens("") == 0
    assert bge.count_tokens("差旅报销 ab\n" * 30_000) == 6 * 30_000


def test_controls_surrogates_and_huge_texts_are_read(bge: BgeEmbedder) -> None:
    vectors = bge.embed_documents(["差\x00旅", "差 旅", "差\ud800旅", "差旅" * 2_000_000])
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-5)
    assert vectors[2] == pytest.approx(vectors[1], abs=1e-5)
    assert bge.count_tokens("差\ud800旅") == 2


def test_says_nothing_on_stdout_or_stderr(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fresh = BgeEmbedder(folder)
    fresh.warm_up()
    fresh.embed_documents(TEXTS * 100)
    fresh.count_tokens("差旅" * 1000)
    assert capfd.readouterr() == ("", "")


def test_a_forked_child_embeds_although_the_parent_did(bge: BgeEmbedder) -> None:
    expected = bge.embed_query("差旅"), bge.embed_documents(TEXTS)
    query, documents = in_child(lambda: (bge.embed_query("差旅"), bge.embed_documents(TEXTS)))
    assert query == pytest.approx(expected[0], abs=1e-5)
    assert documents == pytest.approx(expected[1], abs=1e-5)
    assert bge.embed_query("差旅") == pytest.approx(expected[0], abs=1e-5)


def test_loading_asks_no_network(folder: Path) -> None:
    def load() -> list[str]:
        calls: list[str] = []

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            if event in {"socket.connect", "socket.getaddrinfo"}:
                calls.append(f"{event} {arguments}")

        sys.addaudithook(watch)  # can't be removed, so in a child
        BgeEmbedder(folder).warm_up()
        return calls

    assert in_child(load) == []


def test_construction_reads_no_weights(tmp_path: Path, folder: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"not weights")
    start = time.monotonic()
    embedder = BgeEmbedder(broken)
    assert time.monotonic() - start < 0.1
    with pytest.raises(EmbedderUnavailable, match="broken"):
        embedder.embed_query("差旅")


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModel

    damaged = shutil.copytree(folder, tmp_path / "damaged")
    model = AutoModel.from_pretrained(damaged)
    with torch.no_grad():
        model.encoder.layer[0].output.dense.weight.fill_(float("nan"))
    model.save_pretrained(damaged)
    with pytest.raises(EmbedderUnavailable, match="damaged"):
        BgeEmbedder(damaged).embed_documents(["差旅"])


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path, folder: Path, missing: str) -> None:
    part = shutil.copytree(folder, tmp_path / "part")
    (part / missing).unlink()
    with pytest.raises(EmbedderUnavailable, match="scripts/fetch_models"):
        BgeEmbedder(part)


def test_a_reranker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbedderUnavailable, match="reranker"):
        BgeEmbedder(tiny.reranker(tmp_path / "reranker"))


def test_the_fingerprint_follows_all_that_makes_the_vectors(tmp_path: Path, folder: Path) -> None:
    def fingerprint(where: Path, name: str = "bge:bge-tiny-zh") -> str:
        return BgeEmbedder(where, name=name).fingerprint

    first = fingerprint(folder)
    assert fingerprint(shutil.copytree(folder, tmp_path / "copy")) == first
    assert fingerprint(folder, "bge:bge-tiny-en") != first  # the instruction
    assert fingerprint(tiny.bert(tmp_path / "mean", pooling="mean")) != first
    assert fingerprint(tiny.bert(tmp_path / "seed", seed=8)) != first
    changed = shutil.copytree(folder, tmp_path / "changed")
    tokenizer = json.loads((changed / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (changed / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert fingerprint(changed) != first


@pytest.mark.parametrize(
    ("config", "name", "instruction"),
    [
        ({"model_type": "bert"}, "bge:BAAI/bge-base-zh-v1.5", CHINESE_INSTRUCTION),
        ({"model_type": "bert"}, "bge:BAAI/bge-small-en-v1.5", ENGLISH_INSTRUCTION),
        ({"model_type": "bert", "vocab_size": 21128}, "bge:/models/bge", CHINESE_INSTRUCTION),
        ({"model_type": "bert", "vocab_size": 30522}, "bge:/models/bge", ENGLISH_INSTRUCTION),
        ({"model_type": "bert", "vocab_size": 99}, "bge:/models/zh-bge/x", ""),
        ({"model_type": "xlm-roberta"}, "bge:BAAI/bge-m3", ""),
    ],
)
def test_the_query_instruction_suits_the_model(
    tmp_path: Path, config: dict[str, object], name: str, instruction: str
) -> None:
    assert query_instruction(tmp_path, config, name) == instruction
    prompts = {"prompts": {"query": "search: "}}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    assert query_instruction(tmp_path, config, name) == "search: "


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("bge:BAAI/bge-base-zh-v1.5", 0.02),
        ("bge:BAAI/bge-m3", 0.02),
        ("bge:/models/ours", 0.02),
        ("bge:BAAI/bge-base-zh", 0.01),
        ("bge:BAAI/bge-large-zh-noinstruct", 0.01),
        ("bge:/models/bge-small-en", 0.01),
        ("bge:bge-small-en", 0.01),
    ],
)
def test_the_temperature_is_that_of_the_version(name: str, trained: float) -> None:
    assert temperature(name) == trained
