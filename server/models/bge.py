"""BGE embedders (bge-*-v1.5, and BGE-M3's dense vectors) through FlagEmbedding, from local weights."""

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.documents import Vector
from server.errors import EmbedderUnavailable
from server.models import flag, weights
from server.models.batching import Batching
from server.models.pieces import pieces
from server.models.workers import Result, Workers
from server.texts import clean_text

# The model cards' instructions; passages get none.
CHINESE_INSTRUCTION = "为这个句子生成表示以用于检索相关文章："
ENGLISH_INSTRUCTION = "Represent this sentence for searching relevant passages: "
# v1 was trained with .01, v1.5 with .02 (FlagEmbedding's issue 193), which is also what its examples of
# fine-tuning take, those for BGE-M3 among them; BGE-M3's own is not published.
TEMPERATURE, OLD_TEMPERATURE = 0.02, 0.01
OLD_NAME = re.compile(r"bge-(?:small|base|large)-(?:zh|en)(?:-noinstruct)?")
VOCABULARIES = {21_128: CHINESE_INSTRUCTION, 30_522: ENGLISH_INSTRUCTION}  # BERT's, by size
WINDOW = 256  # texts that are tokenized and sorted together
COUNT_CHARS = 50_000  # the tokenizer takes some kilobyte a token


class BgeEmbedder:
    """An Embedder on a folder of weights; loads them at first use. Thread-safe, also after a fork."""

    def __init__(self, folder: Path, *, name: str = "") -> None:
        """Read the model's shape, not its weights. Raises EmbedderUnavailable."""
        config = weights.read_json(folder / "config.json")
        self._folder = folder
        self.name = name or f"bge:{folder}"
        self.dimensions = int(config.get("hidden_size") or 0)
        self.max_tokens = flag.positions(folder, config)
        if not self.dimensions or not self.max_tokens or not weights.is_whole(folder):
            raise EmbedderUnavailable(
                f"{folder} holds no whole embedding model (config.json with hidden_size and "
                "max_position_embeddings, tokenizer.json, weights): scripts/fetch_models gets one."
            )
        if any("Classification" in kind for kind in config.get("architectures") or ()):
            raise EmbedderUnavailable(f"{folder} holds a reranker, not an embedding model.")
        self.instruction = query_instruction(folder, config, self.name)
        self.pooling = pooling(folder)
        self.temperature = temperature(self.name)
        self._workers = Workers("bge", "queries", "documents")
        self._passes = Batching(self._workers, self._forward, self._joins)
        self._model: flag.Loaded | None = None

    @cached_property
    def fingerprint(self) -> str:
        try:
            content = weights.digest(self._folder)
        except OSError as error:
            raise EmbedderUnavailable(f"The weights can't be read: {error}") from error
        instruction = hashlib.sha256(self.instruction.encode()).hexdigest()
        return f"bge:{content[:16]}:{instruction[:8]}:{self.pooling}"

    def warm_up(self) -> None:
        """Load the model and embed once. Raises EmbedderUnavailable."""
        self.embed_query("warm up")

    def embed_query(self, text: str) -> Vector:
        vector: Vector = self._embed([self.instruction + text], "queries")[0]
        return vector

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._embed(texts, "documents")

    def count_tokens(self, text: str) -> int:
        model = self._loaded()
        return sum(
            len(model.counter.encode(clean_text(piece), add_special_tokens=False).ids)
            for piece in pieces(text, COUNT_CHARS)
        )

    def _loaded(self) -> flag.Loaded:
        # Always in the same thread, so that two callers don't load at once.
        return self._model or self._caught(partial(self._workers.run, "documents", self._load))

    def _load(self) -> flag.Loaded:
        self._model = self._model or flag.load(
            "FlagModel",
            self._folder,
            max_tokens=self.max_tokens,
            error=EmbedderUnavailable,
            query_instruction_for_retrieval=self.instruction or None,
            pooling_method=self.pooling,
        )
        return self._model

    def _embed(self, texts: Sequence[str], worker: str) -> NDArray[np.float32]:
        out = np.empty((len(texts), self.dimensions), np.float32)
        for start in range(0, len(texts), WINDOW):
            model = self._loaded()
            encodings = model.read([model.prepare(text) for text in texts[start : start + WINDOW]])
            for batch in model.batches(encodings):
                some = [encodings[index] for index in batch]
                out[start + np.asarray(batch)] = self._caught(
                    partial(self._passes.run, worker, some)
                )
        if not np.allclose(np.linalg.norm(out, axis=1), 1, atol=1e-3):
            raise EmbedderUnavailable(
                f"{self.name} gave vectors that are not of length 1: its weights are damaged."
            )
        return out

    def _forward(self, encodings: Sequence[Any]) -> NDArray[np.float32]:
        return _forward(self._loaded(), encodings)

    def _joins(self, encodings: Sequence[Any], more: Sequence[Any]) -> bool:
        return self._loaded().joins(encodings, more)

    def _caught(self, do: Callable[[], Result]) -> Result:
        try:
            return do()
        except RuntimeError as error:  # torch's (memory, shapes), or the interpreter shuts down
            raise EmbedderUnavailable(f"{self.name} failed: {error}") from error


def _forward(model: flag.Loaded, encodings: Sequence[Any]) -> NDArray[np.float32]:
    import torch  # noqa: PLC0415 - loaded by now

    inputs = model.tensors(encodings)
    with torch.inference_mode():
        hidden = model.flag.model(**inputs, return_dict=True).last_hidden_state
        pooled = model.flag.pooling(hidden, inputs["attention_mask"])
        unit = torch.nn.functional.normalize(pooled.float(), dim=-1)
    vectors: NDArray[np.float32] = unit.cpu().numpy()
    return vectors


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
    short = re.split(r"[/:]", name)[-1].lower()
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
