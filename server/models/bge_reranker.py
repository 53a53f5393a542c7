"""BGE rerankers (bge-reranker-base, -large, -v2-m3), from local weights: through FlagEmbedding, or through
ONNX Runtime from their export."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.errors import RerankerUnavailable
from server.models import flag, weights
from server.models.engine import Engine
from server.models.exports import Export, Precision
from server.models.onnx_engine import OnnxEngine
from server.models.tokens import positions
from server.models.torch_engine import Loaded, TorchEngine

MAX_TOKENS = 512  # of query and passage together; longer pairs cost time and gain little


class BgeReranker:
    """A Reranker on a folder of weights; loads them at first use. Thread-safe, also after a fork.

    A query takes at most three quarters of the tokens, as FlagEmbedding has it; the passage is cut.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "",
        max_tokens: int = MAX_TOKENS,
        export: Export | None = None,
        precision: Precision = "fp32",
    ) -> None:
        """Read the model's shape, not its weights; ``precision`` is the export's. Raises
        RerankerUnavailable."""
        config = weights.read_json(folder / "config.json")
        self.name = name or f"bge:{folder}"
        self.max_tokens = min(positions(folder, config), max_tokens)
        if self.max_tokens < 8 or not (export or weights.is_whole(folder)):
            raise RerankerUnavailable(
                f"{folder} holds no whole reranker (config.json with max_position_embeddings, "
                "tokenizer.json, weights): scripts/fetch_models gets one."
            )
        if not any("SequenceClassification" in kind for kind in config.get("architectures") or ()):
            raise RerankerUnavailable(f"{folder} holds a model that is not a reranker.")
        self.engine: Engine = (
            TorchEngine(
                partial(
                    flag.load,
                    "FlagReranker",
                    folder,
                    max_tokens=self.max_tokens,
                    error=RerankerUnavailable,
                ),
                {"pairs": _forward},
                name=self.name,
                error=RerankerUnavailable,
            )
            if export is None
            else OnnxEngine(
                export,
                precision,
                name=self.name,
                max_tokens=self.max_tokens,
                error=RerankerUnavailable,
            )
        )

    def warm_up(self) -> None:
        """Load the model and score once. Raises RerankerUnavailable."""
        self.score("warm", ["up"])

    def score(self, query: str, passages: Sequence[str]) -> list[float]:
        if not passages:
            return []
        tokens = self.engine.tokens()
        # Since a pair is only cut on the passage's side.
        question = tokens.first(query, self.max_tokens * 3 // 4)
        encodings = tokens.read([(question, tokens.prepare(passage)) for passage in passages])
        scores = np.empty(len(passages), np.float32)
        for batch in self.engine.batches([len(encoding.ids) for encoding in encodings]):
            scores[batch] = self.engine.run("pairs", [encodings[place] for place in batch])
        if not ((scores >= 0) & (scores <= 1)).all():  # false for what is no number, too
            raise RerankerUnavailable(f"{self.name} gave no numbers: its weights are damaged.")
        found: list[float] = scores.tolist()
        return found


def _forward(model: Loaded, encodings: Sequence[Any]) -> NDArray[np.float32]:
    import torch  # noqa: PLC0415 - loaded by now

    with torch.inference_mode():
        logits = model.model.model(**model.tensors(encodings), return_dict=True).logits
        if logits.shape != (len(encodings), 1):
            raise ValueError(f"it gives {logits.shape[-1]} numbers a pair, not one")
        scores: NDArray[np.float32] = torch.sigmoid(logits.float()).flatten().cpu().numpy()
    return scores
