"""What runs a BGE model: FlagEmbedding (``flag.py``) or ONNX Runtime over an export (``onnx_engine.py``)."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from server.models.tokens import Tokens


class Engine(Protocol):
    """Thread-safe, also after a fork; loads at first use. Everything raises the adapter's own error."""

    def tokens(self) -> Tokens:
        """The model's tokenizer."""

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Places of texts with so many tokens each, those together that are best run together."""

    def run(self, lane: str, encodings: Sequence[Any]) -> NDArray[np.float32]:
        """Vectors of length 1 (len(encodings), dimensions), or scores in [0, 1] (len(encodings),).

        Work of one lane may have to wait for other work of that lane.
        """
