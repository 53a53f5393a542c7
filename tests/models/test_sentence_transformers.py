import json
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from server.errors import ConfigurationError, EmbedderUnavailable
from server.models.choice import choose_embedder
from server.models.contract import Embedder
from server.models.sentence_transformers import SentenceTransformersEmbedder
from server.settings import Settings
from tests.models import tiny
from tests.models.forks import in_child
from tests.models.test_bge import TEXTS, by_transformers

PROMPTS = {"query": "差旅 abc ", "passage": "手册"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.sentences(tmp_path_factory.mktemp("models") / "m3e-tiny", prompts=PROMPTS)


@pytest.fixture(scope="module")
def embedder(folder: Path) -> SentenceTransformersEmbedder:
    return SentenceTransformersEmbedder(folder)


def by_library(folder: Path, texts: list[str], *, query: bool = False) -> np.ndarray:
    """What sentence-transformers itself gives, one text at a time."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    encode = model.encode_query if query else model.encode_document
    vectors = [encode(text, show_progress_bar=False) for text in texts]
    return np.stack([vector / np.linalg.norm(vector) for vector in vectors])


def test_keeps_the_contract(embedder: Embedder) -> None:
    vectors = embedder.embed_documents(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dimensions) == (7, 32)
    assert vectors.dtype == embedder.embed_query("差旅").dtype == np.float32
    assert embedder.embed_query("差旅").shape == (32,)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert embedder.embed_documents([]).shape == (0, 32)
    assert embedder.max_tokens == tiny.POSITIONS
    assert 0 < embedder.temperature < 1


@pytest.mark.parametrize(
    "made",
    [
        {"pooling": None},
        {"pooling": "mean", "prompts": PROMPTS},
        {"pooling": "cls", "normalized": True},
        {"pooling": "max", "max_tokens": 12},
        {"pooling": "weightedmean", "prompts": {"query": "差旅：", "document": ""}},
        {"pooling": "lasttoken", "dense": 16},
        {"pooling": ["cls", "mean"], "dense": 40, "normalized": True},
    ],
    ids=lambda made: str(made["pooling"]),
)
def test_gives_the_values_of_sentence_transformers(tmp_path: Path, made: dict[str, object]) -> None:
    folder = tiny.sentences(tmp_path / "model", **made)  # type: ignore[arg-type]
    embedder = SentenceTransformersEmbedder(folder)
    vectors = embedder.embed_documents(TEXTS)
    assert vectors == pytest.approx(by_library(folder, TEXTS), abs=1e-5)
    queries = np.stack([embedder.embed_query(text) for text in TEXTS])
    assert queries == pytest.approx(by_library(folder, TEXTS, query=True), abs=1e-5)
    assert embedder.dimensions == vectors.shape[1]


def test_a_prompt_that_pooling_shall_not_see_is_left_out(tmp_path: Path, folder: Path) -> None:
    hidden = shutil.copytree(folder, tmp_path / "hidden")
    config = json.loads((hidden / "1_Pooling" / "config.json").read_text())
    config["include_prompt"] = False
    (hidden / "1_Pooling" / "config.json").write_text(json.dumps(config))
    ours = SentenceTransformersEmbedder(hidden).embed_query("差旅报销")
    assert ours == pytest.approx(by_library(hidden, ["差旅报销"], query=True)[0], abs=1e-5)
    assert ours != pytest.approx(SentenceTransformersEmbedder(folder).embed_query("差旅报销"))


def test_a_plain_folder_is_pooled_by_the_mean(tmp_path: Path) -> None:
    folder = tiny.bert(tmp_path / "model", pooling=None)
    vectors = SentenceTransformersEmbedder(folder).embed_documents(TEXTS)
    assert vectors == pytest.approx(by_transformers(folder, TEXTS, pooling="mean"), abs=1e-5)


def test_roberta_is_read_to_its_last_position(tmp_path: Path) -> None:
    from transformers import XLMRobertaConfig, XLMRobertaModel

    folder = tiny.reranker(tmp_path / "roberta")  # for its tokenizer
    config = XLMRobertaConfig.from_pretrained(folder)
    XLMRobertaModel(config).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    embedder = SentenceTransformersEmbedder(folder)
    assert embedder.max_tokens == tiny.POSITIONS
    assert embedder.embed_documents(["差旅" * 100]).shape == (1, 32)


def test_many_texts_in_batches_keep_their_order(
    embedder: SentenceTransformersEmbedder,
) -> None:
    many = [("差旅报销标准员工手册"[: 1 + number % 9] + str(number)) for number in range(600)]
    alone = [embedder.embed_documents([many[at]])[0] for at in range(0, 600, 37)]
    assert embedder.embed_documents(many)[::37] == pytest.approx(np.stack(alone), abs=1e-5)


def test_many_threads_get_the_values_of_one(embedder: SentenceTransformersEmbedder) -> None:
    expected = {text: embedder.embed_query(text) for text in TEXTS}
    passages = embedder.embed_documents(TEXTS)
    counts = {text: embedder.count_tokens(text) for text in TEXTS}

    def work(number: int) -> bool:
        text = TEXTS[number % len(TEXTS)]
        start = number % 5
        return (
            np.allclose(embedder.embed_query(text), expected[text], atol=1e-5)
            and np.allclose(embedder.embed_documents(TEXTS[start:]), passages[start:], atol=1e-5)
            and embedder.count_tokens(text) == counts[text]
        )

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(150)))


def test_threads_that_start_together_load_the_model_once(folder: Path) -> None:
    fresh = SentenceTransformersEmbedder(folder)
    gate = threading.Barrier(4)

    def work(number: int) -> int:
        gate.wait()
        fresh.embed_query("差旅") if number % 2 else fresh.count_tokens("差旅")
        return id(fresh._engine._loaded)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(work, range(4)))) == 1


def test_counts_tokens_without_special_ones_and_without_cutting(
    embedder: SentenceTransformersEmbedder,
) -> None:
    assert embedder.count_tokens("差旅 报销") == 4
    assert embedder.count_tokens("") == 0
    assert embedder.count_tokens("差旅报销 ab\n" * 30_000) == 6 * 30_000


def test_controls_surrogates_and_huge_texts_are_read(
    embedder: SentenceTransformersEmbedder,
) -> None:
    vectors = embedder.embed_documents(["差\x00旅", "差 旅", "差\ud800旅", "差旅" * 2_000_000])
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-5)
    assert vectors[2] == pytest.approx(vectors[1], abs=1e-5)


def test_says_nothing_and_asks_no_network(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def load() -> list[str]:
        calls: list[str] = []

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            if event in {"socket.connect", "socket.getaddrinfo"}:
                calls.append(f"{event} {arguments}")

        sys.addaudithook(watch)  # can't be removed, so in a child
        fresh = SentenceTransformersEmbedder(folder)
        fresh.warm_up()
        fresh.embed_documents(TEXTS * 10)
        return calls

    assert in_child(load) == []
    assert capfd.readouterr() == ("", "")


def test_a_forked_child_embeds_although_the_parent_did(
    embedder: SentenceTransformersEmbedder,
) -> None:
    expected = embedder.embed_query("差旅")
    assert in_child(lambda: embedder.embed_query("差旅")) == pytest.approx(expected, abs=1e-5)
    assert embedder.embed_query("差旅") == pytest.approx(expected, abs=1e-5)


def test_construction_reads_no_weights(tmp_path: Path, folder: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"not weights")
    start = time.monotonic()
    embedder = SentenceTransformersEmbedder(broken)
    assert time.monotonic() - start < 0.1
    with pytest.raises(EmbedderUnavailable, match="broken"):
        embedder.embed_query("差旅")


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path, folder: Path, missing: str) -> None:
    part = shutil.copytree(folder, tmp_path / "part")
    (part / missing).unlink()
    with pytest.raises(EmbedderUnavailable, match="scripts/fetch_models"):
        SentenceTransformersEmbedder(part)


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ([{"type": "evil.code.Module", "path": ""}], "evil.code.Module"),
        ([{"type": "sentence_transformers.models.WordEmbeddings", "path": ""}], "WordEmbeddings"),
        ([{"type": "sentence_transformers.models.Transformer", "path": "../up"}], "../up"),
        ({"not": "a list"}, "can't be read"),
    ],
)
def test_modules_that_are_not_known_are_named(
    tmp_path: Path, folder: Path, modules: object, said: str
) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(EmbedderUnavailable, match=said):
        SentenceTransformersEmbedder(other)


def test_a_reranker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbedderUnavailable, match="reranker"):
        SentenceTransformersEmbedder(tiny.reranker(tmp_path / "reranker"))


def test_the_fingerprint_follows_all_that_makes_the_vectors(tmp_path: Path, folder: Path) -> None:
    def fingerprint(where: Path) -> str:
        return SentenceTransformersEmbedder(where).fingerprint

    def changed(name: str, **values: object) -> Path:
        copy = shutil.copytree(folder, tmp_path / f"{name.replace('/', '-')}-{len(str(values))}")
        content = json.loads((copy / name).read_text()) if (copy / name).is_file() else {}
        (copy / name).write_text(json.dumps(content | values))
        return copy

    first = fingerprint(folder)
    assert fingerprint(shutil.copytree(folder, tmp_path / "copy")) == first
    others = [
        changed("1_Pooling/config.json", pooling_mode="max"),
        changed("config_sentence_transformers.json", prompts={"query": "x", "passage": "手册"}),
        changed("config_sentence_transformers.json", truncate_dim=16),
        changed("sentence_bert_config.json", max_seq_length=20),
        tiny.sentences(tmp_path / "seed", prompts=PROMPTS, seed=8),
        tiny.sentences(tmp_path / "dense", prompts=PROMPTS, dense=32),
    ]
    assert len({first, *(fingerprint(each) for each in others)}) == 1 + len(others)


def test_the_setting_names_a_folder_or_a_model_in_the_models_folder(tmp_path: Path) -> None:
    models = tmp_path / "models"
    folder = tiny.sentences(models / "moka-ai" / "m3e-base")
    for model in ("moka-ai/m3e-base", str(folder)):
        setting = f"sentence-transformers:{model}"
        choice = choose_embedder(Settings(data=tmp_path, embedder=setting))
        assert (choice.name, choice.adapter and choice.adapter.dimensions) == (setting, 32)
    with pytest.raises(ConfigurationError, match="scripts/fetch_models"):
        choose_embedder(Settings(data=tmp_path, embedder="sentence-transformers:moka-ai/other"))
    with pytest.raises(ConfigurationError, match="sentence-transformers:MODEL"):
        choose_embedder(Settings(data=tmp_path, embedder="sentence-transformers"))
