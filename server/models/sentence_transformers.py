"""M3E and any model like BERT or RoBERTa through sentence-transformers, from local weights.

sentence-transformers loads the modules and runs them. Its ``encode`` is not called: it tokenizes with a
tokenizer whose settings change with every call, which other threads use at the same time, and pads a batch
of a fixed number of texts. Tests hold our values to its own.
"""

import hashlib
import logging
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.documents import Vector
from server.errors import EmbedderUnavailable
from server.models import tuned, weights
from server.models.engine import vectors
from server.models.modules import Shape
from server.models.tokens import Tokens
from server.models.torch_engine import Loaded, TorchEngine

NOT_INSTALLED = (
    "sentence-transformers is not installed: run scripts/run without --light, or pip install "
    "'tanyuan[bge]'"
)
# Nothing in a folder says it. uniem, which trained M3E, and sentence-transformers' own loss (scale 20) both
# take .05.
TEMPERATURE = 0.05


class SentenceTransformersEmbedder:
    """An Embedder on a folder of weights; loads them at first use. Thread-safe, also after a fork."""

    def __init__(self, folder: Path, *, name: str = "") -> None:
        """Read the model's shape, not its weights. Raises EmbedderUnavailable."""
        self._folder = folder
        self.shape = Shape.of(folder)
        self.name = name or f"sentence-transformers:{folder}"
        self.dimensions = self.shape.dimensions
        self.max_tokens = self.shape.max_tokens
        self.temperature = tuned.temperature(folder) or TEMPERATURE
        prompts = {"queries": self.shape.query_prompt, "documents": self.shape.passage_prompt}
        self._engine = TorchEngine(
            partial(load, folder, self.shape),
            {lane: partial(self._forward, prompt) for lane, prompt in prompts.items()},
            name=self.name,
            error=EmbedderUnavailable,
        )

    @cached_property
    def fingerprint(self) -> str:
        shape = self.shape
        try:
            content = weights.digest(self._folder, shape.files)
        except OSError as error:
            raise EmbedderUnavailable(f"The weights can't be read: {error}") from error
        prompts = f"{shape.query_prompt}\0{shape.passage_prompt}"
        stated = hashlib.sha256(prompts.encode()).hexdigest()
        poolings = "+".join(shape.poolings)
        return (
            f"sentence-transformers:{content[:16]}:{stated[:8]}:{poolings}:{self.max_tokens}"
            f":{self.dimensions}"
        )

    def warm_up(self) -> None:
        """Load the model and embed once. Raises EmbedderUnavailable."""
        self.embed_query("warm up")

    def embed_query(self, text: str) -> Vector:
        vector: Vector = self._embed("queries", [self.shape.query_prompt + text])[0]
        return vector

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._embed("documents", [self.shape.passage_prompt + text for text in texts])

    def count_tokens(self, text: str) -> int:
        return self._engine.tokens().count(text)

    def _embed(self, lane: str, texts: Sequence[str]) -> NDArray[np.float32]:
        return vectors(self._engine, lane, texts, self.dimensions, name=self.name)

    def _forward(self, prompt: str, model: Loaded, encodings: Sequence[Any]) -> NDArray[np.float32]:
        import torch  # noqa: PLC0415 - loaded by now

        inputs: dict[str, Any] = dict(model.tensors(encodings))
        if prompt and not self.shape.shown_prompt:
            inputs["prompt_length"] = _length(model, prompt)
        with torch.inference_mode():
            pooled = model.model(inputs)["sentence_embedding"]
            unit = torch.nn.functional.normalize(pooled.float()[:, : self.dimensions], dim=-1)
        found: NDArray[np.float32] = unit.cpu().numpy()
        return found


def open_model(folder: Path, device: str | None = None) -> Any:
    """A SentenceTransformer, quietly and from files alone. Raises EmbedderUnavailable."""
    weights.stay_offline()
    try:
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - seconds and 1 GB
    except ImportError as missing:
        raise EmbedderUnavailable(f"{NOT_INSTALLED} ({missing}).") from missing
    quiet()
    try:
        return SentenceTransformer(str(folder), device=device, local_files_only=True)
    except Exception as failure:  # whatever the libraries raise on bad files
        raise EmbedderUnavailable(f"The model in {folder} can't be loaded: {failure}") from failure


def quiet() -> None:
    """Keep the libraries from logging and from progress bars."""
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415 - loaded by now

    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def load(folder: Path, shape: Shape) -> Loaded:
    """Load a model for reading: 5 to 12 s for the library, then the weights.

    Raises EmbedderUnavailable.
    """
    weights.stay_offline()
    try:
        import torch  # noqa: PLC0415 - seconds and 1 GB
    except ImportError as missing:
        raise EmbedderUnavailable(f"{NOT_INSTALLED} ({missing}).") from missing
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    model = open_model(folder, device)
    if device != "cpu":
        model.half()
    else:
        model.float()
    model.eval()
    return Loaded(
        model=model,
        tokenizer=model.tokenizer,
        tokens=Tokens.load(
            model.tokenizer.backend_tokenizer.to_str(), max_tokens=shape.max_tokens, pairs=False
        ),
        device=device,
    )


def _length(model: Loaded, prompt: str) -> int:
    """Tokens of a prompt with what stands before it, for poolings that don't see it."""
    (encoding,) = model.tokens.read([prompt])
    return len(encoding.ids) - int(bool(encoding.special_tokens_mask[-1]))
