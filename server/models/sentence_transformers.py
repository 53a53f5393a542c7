"""M3E and any model like BERT or RoBERTa through sentence-transformers, from local weights.

sentence-transformers loads the modules and runs them. Its ``encode`` is not called: it tokenizes with a
tokenizer whose settings change with every call, which other threads use at the same time, and pads a batch
of a fixed number of texts. Tests hold our values to its own.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.documents import Vector
from server.errors import EmbedderUnavailable
from server.models import tuned, weights
from server.models.flag import Loaded
from server.models.modules import Shape
from server.models.pieces import pieces
from server.models.workers import Result, Workers
from server.texts import clean_text

NOT_INSTALLED = (
    "sentence-transformers is not installed: run scripts/run without --light, or pip install "
    "'tanyuan[bge]'"
)
# Nothing in a folder says it. uniem, which trained M3E, and sentence-transformers' own loss (scale 20) both
# take .05.
TEMPERATURE = 0.05
WINDOW = 256  # texts that are tokenized and sorted together
COUNT_CHARS = 50_000  # the tokenizer takes some kilobyte a token


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
        self._workers = Workers("sentence-transformers", "queries", "documents")
        self._model: Loaded | None = None

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
        vector: Vector = self._embed([text], self.shape.query_prompt, "queries")[0]
        return vector

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._embed(texts, self.shape.passage_prompt, "documents")

    def count_tokens(self, text: str) -> int:
        model = self._loaded()
        return sum(
            len(model.counter.encode(clean_text(piece), add_special_tokens=False).ids)
            for piece in pieces(text, COUNT_CHARS)
        )

    def _loaded(self) -> Loaded:
        # Always in the same thread, so that two callers don't load at once.
        return self._model or self._run("documents", self._load)

    def _load(self) -> Loaded:
        self._model = self._model or load(self._folder, self.shape)
        return self._model

    def _embed(self, texts: Sequence[str], prompt: str, worker: str) -> NDArray[np.float32]:
        out = np.empty((len(texts), self.dimensions), np.float32)
        for start in range(0, len(texts), WINDOW):
            model = self._loaded()
            window = [model.prepare(prompt + text) for text in texts[start : start + WINDOW]]
            encodings = model.read(window)
            hidden = 0 if self.shape.shown_prompt or not prompt else _length(model, prompt)
            for batch in model.batches(encodings):
                forward = partial(
                    _forward,
                    model,
                    [encodings[index] for index in batch],
                    hidden=hidden,
                    dimensions=self.dimensions,
                )
                out[start + np.asarray(batch)] = self._run(worker, forward)
        if not np.allclose(np.linalg.norm(out, axis=1), 1, atol=1e-3):
            raise EmbedderUnavailable(
                f"{self.name} gave vectors that are not of length 1: its weights are damaged."
            )
        return out

    def _run(self, worker: str, job: Callable[[], Result]) -> Result:
        try:
            return self._workers.run(worker, job)
        except RuntimeError as error:  # torch's (memory, shapes), or the interpreter shuts down
            raise EmbedderUnavailable(f"{self.name} failed: {error}") from error


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
        from tokenizers import Tokenizer  # noqa: PLC0415
    except ImportError as missing:
        raise EmbedderUnavailable(f"{NOT_INSTALLED} ({missing}).") from missing
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    model = open_model(folder, device)
    if device != "cpu":
        model.half()
    else:
        model.float()
    model.eval()
    backend = model.tokenizer.backend_tokenizer
    reader, counter = (Tokenizer.from_str(backend.to_str()) for _ in range(2))
    reader.no_padding()
    reader.enable_truncation(shape.max_tokens)
    counter.no_padding()
    counter.no_truncation()
    return Loaded(
        flag=model,
        reader=reader,
        counter=counter,
        device=device,
        pad_id=int(model.tokenizer.pad_token_id or 0),
        max_tokens=shape.max_tokens,
    )


def _length(model: Loaded, prompt: str) -> int:
    """Tokens of a prompt with what stands before it, for poolings that don't see it."""
    encoding = model.reader.encode(prompt)
    return len(encoding.ids) - int(bool(encoding.special_tokens_mask[-1]))


def _forward(
    model: Loaded, encodings: Sequence[Any], *, hidden: int, dimensions: int
) -> NDArray[np.float32]:
    import torch  # noqa: PLC0415 - loaded by now

    inputs: dict[str, Any] = dict(model.tensors(encodings))
    if hidden:
        inputs["prompt_length"] = hidden
    with torch.inference_mode():
        pooled = model.flag(inputs)["sentence_embedding"]
        unit = torch.nn.functional.normalize(pooled.float()[:, :dimensions], dim=-1)
    vectors: NDArray[np.float32] = unit.cpu().numpy()
    return vectors
