"""What TANYUAN_EMBEDDER, TANYUAN_RERANKER and TANYUAN_GENERATOR come to on this machine, and why.

A choice only looks at files and asks a configured server: no weights are loaded, no heavy library is
imported and no hub is asked, so that a server starts at once. The adapters load at first use or when
``warm_up`` is called.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from server.errors import ConfigurationError, GeneratorUnavailable, ModelUnavailable
from server.models import bge_choice, weights
from server.models.contract import Embedder, Generator, Reranker
from server.settings import Settings, environment_name

if TYPE_CHECKING:
    from server.models.ollama import OllamaGenerator

Adapter = TypeVar("Adapter")
Component = Literal["embedder", "reranker", "generator"]

SENTENCES = "sentence-transformers"
LIGHT = "light"  # the reranker that needs no model: server/retrieval/light.py

# ``auto`` takes the first that is on this machine; the first is what ``scripts/fetch_models`` gets.
EMBEDDERS = (
    "BAAI/bge-base-zh-v1.5",
    "BAAI/bge-large-zh-v1.5",
    "BAAI/bge-m3",
    "BAAI/bge-small-zh-v1.5",
)
RERANKERS = ("BAAI/bge-reranker-base", "BAAI/bge-reranker-v2-m3", "BAAI/bge-reranker-large")
SERVED = {"openai": "MODEL", "ernie": "embedding-v1", "ollama": "MODEL"}  # embedders on a server


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Generic[Adapter]):
    """An adapter, or None where the component is left out, or needs none (LIGHT); with the reason in
    words for people."""

    component: Component
    adapter: Adapter | None
    name: str  # the adapter's, LIGHT, or "none"
    reason: str

    @property
    def missing(self) -> bool:
        return self.adapter is None and self.name != LIGHT


def choose_embedder(settings: Settings) -> Choice[Embedder]:  # noqa: PLR0911 - one a kind
    """What new collections and rebuilds are made with; one that is there is served with its own.

    Raises ConfigurationError where the setting names a model that can't be had: to go on without it
    would fill the index with chunks that no vector search finds.
    """
    kinds = {"bge": "MODEL", "e5": "", SENTENCES: "MODEL", **SERVED}
    kind, model = _parse("embedder", settings.embedder, kinds)
    if kind == "none":
        return _none("embedder", "TANYUAN_EMBEDDER is none, so search goes by words alone")
    if kind == "e5":
        return _e5("TANYUAN_EMBEDDER names it")
    if kind in {"bge", SENTENCES}:
        return _from_weights(kind, model, settings)
    if kind in SERVED:
        return _served_embedder(kind, model, settings)
    model = next((name for name in EMBEDDERS if weights.find(name, settings.models_folder)), "")
    found, why_not = bge_choice.find("embedder", model or EMBEDDERS[0], settings)
    if found is not None:
        return _bge_embedder(found, f"its weights were found in {found.folder}")
    try:
        return _e5(f"it comes with the installation; {why_not}")
    except ConfigurationError as error:
        return _none("embedder", f"{error.message.rstrip('.')}; {why_not}")


def choose_reranker(settings: Settings) -> Choice[Reranker]:
    """A reranker that is named and can't be had is left out, by name; the light ranker then stands in,
    unless the setting is ``none``."""
    kind, model = _parse("reranker", settings.reranker, {"bge": "MODEL", LIGHT: ""})
    if kind == "none":
        return _none("reranker", "TANYUAN_RERANKER is none, so hits stay in fused order")
    why = "TANYUAN_RERANKER names it"
    if kind == LIGHT:
        return Choice(component="reranker", adapter=None, name=LIGHT, reason=why)
    if kind == "auto":
        model = next((name for name in RERANKERS if weights.find(name, settings.models_folder)), "")
        why = "its weights were found"
    try:
        found, why_not = bge_choice.find("reranker", model or RERANKERS[0], settings)
    except ConfigurationError as error:
        found, why_not = None, error.message.rstrip(".")
    if found is None and kind == "auto":
        why = f"it needs no model; {why_not}"
        return Choice(component="reranker", adapter=None, name=LIGHT, reason=why)
    if found is None:
        return _none("reranker", why_not)
    from server.models.bge_reranker import BgeReranker  # noqa: PLC0415 - only the one chosen

    try:
        adapter = BgeReranker(
            found.folder,
            name=f"bge:{found.name}",
            export=found.export,
            precision=found.precision,
        )
    except ModelUnavailable as error:
        return _none("reranker", error.message)
    reason = f"{why}; {found.how}"
    return Choice(component="reranker", adapter=adapter, name=adapter.name, reason=reason)


def choose_generator(settings: Settings) -> Choice[Generator]:
    """Asks Ollama for its models where the setting is ``auto``; answers within two seconds.

    An Ollama that has none yet, or can't be reached, is looked for again at every answer.
    """
    kind, model = _parse("generator", settings.generator, {"ollama": "MODEL"})
    if kind == "none":
        return _none("generator", "TANYUAN_GENERATOR is none, so answers are extracts")
    from server.models.ollama import OllamaGenerator  # noqa: PLC0415 - only where it is wanted

    def make(model: str) -> OllamaGenerator:
        return OllamaGenerator(
            model,
            host=settings.ollama_host,
            context_tokens=settings.generator_context,
            timeout=settings.generator_timeout,
            keep_alive=settings.generator_keep_alive,
        )

    if kind == "auto":
        return _auto_generator(settings, make)
    adapter = make(model)
    return Choice(
        component="generator",
        adapter=adapter,
        name=adapter.name,
        reason="TANYUAN_GENERATOR names it",
    )


def _auto_generator(
    settings: Settings, make: Callable[[str], "OllamaGenerator"]
) -> Choice[Generator]:
    from server.models.ollama_auto import AutoOllama  # noqa: PLC0415 - only the one chosen

    adapter = AutoOllama(make, host=settings.ollama_host, context_tokens=settings.generator_context)
    try:
        adapter.find()
        why = f"Ollama at {settings.ollama_host} has it"
    except GeneratorUnavailable as error:
        why = f"{error.message.rstrip('.')}; it is looked for again at every answer"
    return Choice(component="generator", adapter=adapter, name=adapter.name, reason=why)


def _parse(component: Component, value: str, kinds: dict[str, str]) -> tuple[str, str]:
    """Kind and model of a setting; ``kinds`` says which kinds there are and which take a model."""
    kind, _, model = value.strip().partition(":")
    if kind in {"auto", "none"} and not model:
        return kind, ""
    if kind in kinds and bool(model) == bool(kinds[kind]):
        return kind, model
    forms = ["auto", "none", *(f"{name}:{what}" if what else name for name, what in kinds.items())]
    raise ConfigurationError(
        f"{environment_name(component)} is {value!r}; it takes {', '.join(forms)}."
    )


def _none(component: Component, reason: str) -> "Choice[Adapter]":
    return Choice(component=component, adapter=None, name="none", reason=reason)


def _e5(why: str) -> Choice[Embedder]:
    from server.models.e5 import E5Embedder  # noqa: PLC0415 - only the one chosen

    try:
        adapter = E5Embedder()
    except ModelUnavailable as error:
        raise ConfigurationError(error.message) from error
    return Choice(component="embedder", adapter=adapter, name=adapter.name, reason=why)


def _served_embedder(kind: str, model: str, settings: Settings) -> Choice[Embedder]:
    from server.models.servers import open_embedder  # noqa: PLC0415 - only where it is wanted

    try:
        adapter = open_embedder(kind, model, settings)
    except ModelUnavailable as error:
        raise ConfigurationError(
            f"The embedder {kind}:{model} can't be had: {error.message}"
        ) from error
    why = "TANYUAN_EMBEDDER names it"
    return Choice(component="embedder", adapter=adapter, name=adapter.name, reason=why)


def _from_weights(kind: str, model: str, settings: Settings) -> Choice[Embedder]:
    """Raises ConfigurationError, as all that is named and can't be had."""
    why = "TANYUAN_EMBEDDER names it"
    if kind == "bge":
        found, why_not = bge_choice.find("embedder", model, settings)
        if found is not None:
            return _bge_embedder(found, why)
    else:
        folder, why_not = _sentences(model, settings)
        if folder is not None:
            return _sentence_embedder(folder, model, why)
    raise ConfigurationError(f"TANYUAN_EMBEDDER is {settings.embedder!r}, but {why_not}.")


def _sentences(model: str, settings: Settings) -> tuple[Path | None, str]:
    """The folder of a model for sentence-transformers, or None and why it can't be used."""
    folder = weights.find(model, settings.models_folder)
    if folder is None or not weights.is_whole(folder):
        return None, weights.not_here(model, settings.models_folder)
    if find_spec("sentence_transformers") is None:
        from server.models.sentence_transformers import NOT_INSTALLED  # noqa: PLC0415

        return None, f"{NOT_INSTALLED} (weights lie in {folder})"
    return folder, ""


def _sentence_embedder(folder: Path, model: str, why: str) -> Choice[Embedder]:
    from server.models.sentence_transformers import (  # noqa: PLC0415 - only the one chosen
        SentenceTransformersEmbedder,
    )

    try:
        adapter = SentenceTransformersEmbedder(folder, name=f"{SENTENCES}:{model}")
    except ModelUnavailable as error:
        raise ConfigurationError(error.message) from error
    return Choice(component="embedder", adapter=adapter, name=adapter.name, reason=why)


def _bge_embedder(found: bge_choice.Found, why: str) -> Choice[Embedder]:
    from server.models.bge import BgeEmbedder  # noqa: PLC0415 - only the one chosen
    from server.models.m3 import M3Embedder  # noqa: PLC0415

    try:
        adapter = (
            M3Embedder(found.folder, name=f"bge:{found.name}")
            if found.sparse
            else BgeEmbedder(
                found.folder,
                name=f"bge:{found.name}",
                export=found.export,
                precision=found.precision,
            )
        )
    except ModelUnavailable as error:
        raise ConfigurationError(error.message) from error
    reason = f"{why}; {found.how}"
    return Choice(component="embedder", adapter=adapter, name=adapter.name, reason=reason)
