"""BGE embedders (bge-*-v1.5, and BGE-M3's dense vectors), from local weights: through FlagEmbedding, or
through ONNX Runtime from their export."""

import hashlib
import re
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.documents import Vector
from server.errors import EmbedderUnavailable
from server.models import flag, tuned, weights
from server.models.engine import Engine, vectors
from server.models.exports import Export, Precision
from server.models.onnx_engine import OnnxEngine
from server.models.tokens import positions
from server.models.torch_engine import Loaded, TorchEngine

# The model cards' instructions; passages get none.
CHINESE_INSTRUCTION = "为这个句子生成表示以用于检索相关文章："
ENGLISH_INSTRUCTION = "Represent this sentence for searching relevant passages: "
# v1 was trained with .01, v1.5 with .02 (FlagEmbedding's issue 193), which is also what its examples of
# fine-tuning take, those for BGE-M3 among them; BGE-M3's own is not published.
TEMPERATURE, OLD_TEMPERATURE = 0.02, 0.01
OLD_NAME = re.compile(r"bge-(?:small|base|large)-(?:zh|en)(?:-noinstruct)?")
VOCABULARIES = {21_128: CHINESE_INSTRUCTION, 30_522: ENGLISH_INSTRUCTION}  # BERT's, by size
LANES = ("queries", "documents")


class BgeEmbedder:
    """An Embedder on a folder of weights; loads them at first use. Thread-safe, also after a fork."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "",
        export: Export | None = None,
        precision: Precision = "fp32",
    ) -> None:
        """Read the model's shape, not its weights; ``precision`` is the export's. Raises
        EmbedderUnavailable."""
        config = weights.read_json(folder / "config.json")
        self._folder = folder
        self._export = export
        self._precision = precision
        self.name = name or f"bge:{folder}"
        self.dimensions = int(config.get("hidden_size") or 0)
        self.max_tokens = positions(folder, config)
        whole = export is not None or weights.is_whole(folder)
        if not self.dimensions or not self.max_tokens or not whole:
            raise EmbedderUnavailable(
                f"{folder} holds no whole embedding model (config.json with hidden_size and "
                "max_position_embeddings, tokenizer.json, weights): scripts/fetch_models gets one."
            )
        if any("Classification" in kind for kind in config.get("architectures") or ()):
            raise EmbedderUnavailable(f"{folder} holds a reranker, not an embedding model.")
        self.instruction = query_instruction(folder, config, self.name)
        self.pooling = pooling(folder)
        self.temperature = tuned.temperature(folder) or temperature(self.name)
        self.engine: Engine = (
            TorchEngine(
                partial(
                    flag.load,
                    "FlagModel",
                    folder,
                    max_tokens=self.max_tokens,
                    error=EmbedderUnavailable,
                    query_instruction_for_retrieval=self.instruction or None,
                    pooling_method=self.pooling,
                ),
                dict.fromkeys(LANES, self._forward),
                name=self.name,
                error=EmbedderUnavailable,
            )
            if export is None
            else OnnxEngine(
                export,
                precision,
                name=self.name,
                max_tokens=self.max_tokens,
                error=EmbedderUnavailable,
            )
        )

    @cached_property
    def fingerprint(self) -> str:
        """An export in single precision gives FlagEmbedding's vectors, and so has their fingerprint."""
        try:
            content = self._export.digest if self._export else weights.digest(self._folder)
        except OSError as error:
            raise EmbedderUnavailable(f"The weights can't be read: {error}") from error
        instruction = hashlib.sha256(self.instruction.encode()).hexdigest()
        made = f"bge:{content[:16]}:{instruction[:8]}:{self.pooling}"
        return f"{made}:int8" if self._export and self._precision == "int8" else made

    def warm_up(self) -> None:
        """Load the model and embed once. Raises EmbedderUnavailable."""
        self.embed_query("warm up")

    def embed_query(self, text: str) -> Vector:
        vector: Vector = self._embed("queries", [self.instruction + text])[0]
        return vector

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._embed("documents", texts)

    def count_tokens(self, text: str) -> int:
        return self.engine.tokens().count(text)

    def _embed(self, lane: str, texts: Sequence[str]) -> NDArray[np.float32]:
        return vectors(self.engine, lane, texts, self.dimensions, name=self.name)

    def _forward(self, model: Loaded, encodings: Sequence[Any]) -> NDArray[np.float32]:
        import torch  # noqa: PLC0415 - loaded by now

        inputs = model.tensors(encodings)
        with torch.inference_mode():
            hidden = model.model.model(**inputs, return_dict=True).last_hidden_state
            pooled = model.model.pooling(hidden, inputs["attention_mask"])
            unit = torch.nn.functional.normalize(pooled.float(), dim=-1)
        found: NDArray[np.float32] = unit.cpu().numpy()
        return found


def query_instruction(folder: Path, config: dict[str, Any], name: str) -> str:
    """What goes before a query: as the folder says, else by the model's name or its vocabulary."""
    prompts = weights.read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    if prompts.get("query"):
        return str(prompts["query"])
    if config.get("model_type") != "bert":  # BGE-M3 takes none
        return ""
    short = name.rpartition("/")[2].lower()
    if "bge" in short and "-zh" in short:
        return CHINESE_INSTRUCTION
    if "bge" in short and "-en" in short:
        return ENGLISH_INSTRUCTION
    return VOCABULARIES.get(int(config.get("vocab_size") or 0), "")


def temperature(name: str) -> float:
    """Of the loss that the model was trained with, by its name: nothing in its folder says it."""
    short = re.split(r"[/:]", name)[-1].lower().partition("@")[0]
    return OLD_TEMPERATURE if OLD_NAME.fullmatch(short) else TEMPERATURE


def pooling(folder: Path) -> str:
    """``cls`` or ``mean``, as the folder says; BGE's own is cls. Raises EmbedderUnavailable."""
    stated = weights.read_json(folder / "1_Pooling" / "config.json")
    modes = {key.removeprefix("pooling_mode_") for key, on in stated.items() if on is True}
    if isinstance(stated.get("pooling_mode"), str):  # newer sentence-transformers
        modes = {stated["pooling_mode"]}
    if not stated or modes & {"cls_token", "cls"}:
        return "cls"
    if modes & {"mean_tokens", "mean"}:
        return "mean"
    raise EmbedderUnavailable(
        f"{folder} wants the pooling {', '.join(sorted(modes))}: not supported."
    )
