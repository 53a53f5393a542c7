from pathlib import Path

import numpy as np
import pytest

from server.errors import ConfigurationError, InvalidInput
from server.finetuning.base import as_trainable, embedder_base, reranker_base
from server.finetuning.mining import Example
from server.finetuning.training import Options, train_embedder
from server.models import tuned
from server.models.bge import CHINESE_INSTRUCTION, BgeEmbedder
from server.models.sentence_transformers import SentenceTransformersEmbedder, open_model
from server.settings import Settings
from tests.models import tiny
from tests.models.test_bge import TEXTS

BGE = "bge:BAAI/bge-tiny-zh-v1.5"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    data = tmp_path_factory.mktemp("data")
    tiny.bert(data / "models" / BGE.removeprefix("bge:"), pooling=None)  # says neither
    tiny.sentences(data / "models" / "m3e", prompts={"query": "差旅：", "passage": "手册："})
    return Settings(data=data)


@pytest.mark.parametrize("model", [BGE, "sentence-transformers:m3e"])
def test_a_saved_folder_gives_the_vectors_of_the_model_that_it_was_made_of(
    settings: Settings, tmp_path: Path, model: str
) -> None:
    base = embedder_base(settings, model)
    as_trainable(base, open_model).save(str(tmp_path / "made"), create_model_card=False)
    for again in (
        base.open(tmp_path / "made", "bge:tuned/another-name"),
        SentenceTransformersEmbedder(tmp_path / "made"),
    ):
        vectors = again.embed_documents(TEXTS)
        assert vectors == pytest.approx(base.embedder.embed_documents(TEXTS), abs=1e-5)
        query = base.embedder.embed_query("差旅报销")
        assert again.embed_query("差旅报销") == pytest.approx(query, abs=1e-5)
        assert again.max_tokens == base.embedder.max_tokens


def test_a_bge_model_stays_one_with_its_instruction_and_temperature(
    settings: Settings, tmp_path: Path
) -> None:
    base = embedder_base(settings, BGE)
    assert (base.query_prompt, base.pooling) == (CHINESE_INSTRUCTION, "cls")
    examples = [
        Example(query=f"差旅{at}", positive=f"报销标准{at}", negatives=(f"员工手册{at}",))
        for at in range(8)
    ]
    told: list[tuple[int, int]] = []
    options = Options(epochs=2, rate=1e-3, batch=4, negatives=1)
    train_embedder(base, examples, tmp_path / "made", options, lambda *step: told.append(step))
    assert told == [(step, 4) for step in range(1, 5)]
    tuned.write(tmp_path / "made", {"temperature": 0.01})
    made = BgeEmbedder(tmp_path / "made", name="bge:tuned/x")
    assert (made.instruction, made.pooling, made.temperature) == (CHINESE_INSTRUCTION, "cls", 0.01)
    assert made.fingerprint != base.embedder.fingerprint
    before, after = base.embedder.embed_documents(TEXTS), made.embed_documents(TEXTS)
    assert not np.allclose(before, after, atol=1e-3)


def test_what_has_no_weights_here_can_t_be_fine_tuned(settings: Settings) -> None:
    for model in ("e5", "auto", "none"):
        named = "e5" if model == "auto" else model
        with pytest.raises(InvalidInput, match=f"{model}|{named}"):
            embedder_base(Settings(data=settings.data / "empty"), model)
    with pytest.raises(InvalidInput, match="light"):
        reranker_base(settings, "light")
    with pytest.raises(ConfigurationError, match="fetch_models"):
        reranker_base(settings, "bge:no/such")
