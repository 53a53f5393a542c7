"""BGE rerankers (bge-reranker-base, -large, -v2-m3) through FlagEmbedding, from local weights."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.errors import RerankerUnavailable
from server.models import flag, weights
from server.models.batching import Batching
from server.models.workers import Result, Workers

MAX_TOKENS = 512  # of query and passage together; longer pairs cost time and gain little


class BgeReranker:
    """A Reranker on a folder of weights; loads them at first use. Thread-safe, also after a fork.

    A query takes at most three quarters of the tokens, as FlagEmbedding has it; the passage is cut.
    """

    def __init__(self, folder: Path, *, name: str = "", max_tokens: int = MAX_TOKENS) -> None:
        """Read the model's shape, not its weights. Raises RerankerUnavailable."""
        config = weights.read_json(folder / "config.json")
        self._folder = folder
        self.name = name or f"bge:{folder}"
        self.max_tokens = min(flag.positions(folder, config), max_tokens)
        if self.max_tokens < 8 or not weights.is_whole(folder):
            raise RerankerUnavailable(
                f"{folder} holds no whole reranker (config.json with max_position_embeddings, "
                "tokenizer.json, weights): scripts/fetch_models gets one."
            )
        if not any("SequenceClassification" in kind for kind in config.get("architectures") or ()):
            raise RerankerUnavailable(f"{folder} holds a model that is not a reranker.")
        self._workers = Workers("bge", "pairs")
        self._passes = Batching(self._workers, self._forward, self._joins)
        self._model: flag.Loaded | None = None

    def warm_up(self) -> None:
        """Load the model and score once. Raises RerankerUnavailable."""
        self.score("warm", ["up"])

    def score(self, query: str, passages: Sequence[str]) -> list[float]:
        if not passages:
            return []
        model = self._loaded()
        question = self._cut(model, query)
        encodings = model.read([(question, model.prepare(passage)) for passage in passages])
        scores = [0.0] * len(passages)
        for batch in model.batches(encodings):
            some = [encodings[index] for index in batch]
            found = self._caught(partial(self._passes.run, "pairs", some))
            for index, score in zip(batch, found.tolist(), strict=True):
                scores[index] = score
        if not all(0 <= score <= 1 for score in scores):
            raise RerankerUnavailable(f"{self.name} gave no numbers: its weights are damaged.")
        return scores

    def _loaded(self) -> flag.Loaded:
        # By the thread that scores, so that two callers don't load at once.
        return self._model or self._caught(partial(self._workers.run, "pairs", self._load))

    def _load(self) -> flag.Loaded:
        self._model = self._model or flag.load(
            "FlagReranker", self._folder, max_tokens=self.max_tokens, error=RerankerUnavailable
        )
        return self._model

    def _cut(self, model: flag.Loaded, query: str) -> str:
        """The query's first tokens, since a pair is only cut on the passage's side."""
        longest = self.max_tokens * 3 // 4
        query = model.prepare(query)
        encoding = model.counter.encode(query, add_special_tokens=False)
        if len(encoding.ids) <= longest:
            return query
        return query[: encoding.offsets[longest - 1][1]]

    def _forward(self, encodings: Sequence[Any]) -> NDArray[np.float32]:
        return _forward(self._loaded(), encodings)

    def _joins(self, encodings: Sequence[Any], more: Sequence[Any]) -> bool:
        return self._loaded().joins(encodings, more)

    def _caught(self, do: Callable[[], Result]) -> Result:
        try:
            return do()
        except (RuntimeError, ValueError) as error:  # torch's, or the interpreter shuts down
            raise RerankerUnavailable(f"{self.name} failed: {error}") from error


def _forward(model: flag.Loaded, encodings: Sequence[Any]) -> NDArray[np.float32]:
    import torch  # noqa: PLC0415 - loaded by now

    with torch.inference_mode():
        logits = model.flag.model(**model.tensors(encodings), return_dict=True).logits
        if logits.shape != (len(encodings), 1):
            raise ValueError(f"it gives {logits.shape[-1]} numbers a pair, not one")
        scores: NDArray[np.float32] = torch.sigmoid(logits.float()).flatten().cpu().numpy()
    return scores
