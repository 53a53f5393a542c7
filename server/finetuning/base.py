"""Base: the model that fine-tuning starts from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from server.errors import ConfigurationError, InvalidInput
from server.models import bge_choice, weights
from server.models.bge import BgeEmbedder
from server.models.bge_reranker import BgeReranker
from server.models.choice import SENTENCES, choose_embedder, choose_reranker
from server.models.contract import Embedder, Reranker
from server.models.sentence_transformers import SentenceTransformersEmbedder
from server.settings import Settings

_PACKED = (
    "{name} can't be fine-tuned: only models whose weights lie on this machine can. Name one with "
    "--model, such as {example}; scripts/fetch_models gets it."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderBase:
    """``kind``: as TANYUAN_EMBEDDER has it, which the fine-tuned model keeps. ``pooling``: of a BGE
    folder, which need not say it; empty where the folder's modules do. ``open``: an embedder of the
    same kind on another folder, under another name."""

    kind: str
    folder: Path
    embedder: Embedder
    query_prompt: str
    passage_prompt: str
    pooling: str
    open: Callable[[Path, str], Embedder]


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankerBase:
    kind: str
    folder: Path
    reranker: BgeReranker
    open: Callable[[Path, str], Reranker]


def embedder_base(settings: Settings, model: str) -> EmbedderBase:
    """The embedder that ``model`` names as TANYUAN_EMBEDDER does. Raises InvalidInput for one that has no
    weights here, ConfigurationError for one that can't be had."""
    adapter = choose_embedder(replace(settings, embedder=model)).adapter
    if isinstance(adapter, BgeEmbedder):
        return EmbedderBase(
            kind="bge",
            folder=_folder(adapter.name, settings),
            embedder=adapter,
            query_prompt=adapter.instruction,
            passage_prompt="",
            pooling=adapter.pooling,
            open=lambda folder, name: BgeEmbedder(folder, name=name),
        )
    if isinstance(adapter, SentenceTransformersEmbedder):
        return EmbedderBase(
            kind=SENTENCES,
            folder=_folder(adapter.name, settings),
            embedder=adapter,
            query_prompt=adapter.shape.query_prompt,
            passage_prompt=adapter.shape.passage_prompt,
            pooling="",
            open=lambda folder, name: SentenceTransformersEmbedder(folder, name=name),
        )
    raise InvalidInput(_PACKED.format(name=model, example="bge:BAAI/bge-base-zh-v1.5"))


def reranker_base(settings: Settings, model: str) -> RerankerBase:
    """The reranker that ``model`` names as TANYUAN_RERANKER does. Raises as ``embedder_base``."""
    choice = choose_reranker(replace(settings, reranker=model))
    if not isinstance(choice.adapter, BgeReranker):
        if model.startswith("bge:"):
            raise ConfigurationError(f"The reranker {model} can't be had: {choice.reason}.")
        raise InvalidInput(_PACKED.format(name=model, example="bge:BAAI/bge-reranker-base"))
    return RerankerBase(
        kind="bge",
        folder=_folder(choice.name, settings),
        reranker=choice.adapter,
        open=lambda folder, name: BgeReranker(folder, name=name),
    )


def _folder(name: str, settings: Settings) -> Path:
    """Raises InvalidInput for a model that is here as an export to ONNX alone."""
    model, _ = bge_choice.split(name.partition(":")[2])
    folder = weights.find(model, settings.models_folder, exported=False)
    if folder is None:
        raise InvalidInput(
            f"{model} can't be fine-tuned: its export is here, but not its weights, which "
            "scripts/fetch_models gets."
        )
    return folder


def as_trainable(base: EmbedderBase, open_model: Callable[[Path], Any]) -> Any:
    """The base as a SentenceTransformer whose saved folder states pooling and prompts outright.

    Raises EmbedderUnavailable.
    """
    model = open_model(base.folder)
    if base.pooling:
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - loaded by now
        from sentence_transformers.sentence_transformer.modules import (  # noqa: PLC0415
            Normalize,
            Pooling,
        )

        transformer = model[0]
        pooling = Pooling(transformer.get_embedding_dimension(), base.pooling)
        model = SentenceTransformer(modules=[transformer, pooling, Normalize()])
    model.max_seq_length = base.embedder.max_tokens
    model.prompts = {"query": base.query_prompt, "document": base.passage_prompt}
    return model.float()
