"""What runs a model on encoded texts: torch (``torch_engine.py``) or ONNX Runtime over an export
(``onnx_engine.py``)."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from server.errors import EmbedderUnavailable
from server.models.tokens import Tokens

WINDOW = 256  # texts that are tokenized and sorted together


class Engine(Protocol):
    """Thread-safe, also after a fork; loads at first use. Everything raises the adapter's own error."""

    def tokens(self) -> Tokens:
        """The model's tokenizer."""

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Places of texts with so many tokens each, those together that are best run together."""

    def run(self, lane: str, encodings: Sequence[Any]) -> NDArray[np.float32]:
        """A row for each: a vector of length 1, or a score in [0, 1].

        Work of one lane may have to wait for other work of that lane.
        """


class Pass(NamedTuple):
    """``places``: of the texts that were run together, ``rows``: what came out for them."""

    places: list[int]
    encodings: list[Any]
    rows: NDArray[np.float32]


def passes(engine: Engine, lane: str, texts: Sequence[str]) -> Iterator[Pass]:
    """All texts, in the batches that are best."""
    tokens = engine.tokens()
    for start in range(0, len(texts), WINDOW):
        encodings = tokens.read([tokens.prepare(text) for text in texts[start : start + WINDOW]])
        for batch in engine.batches([len(encoding.ids) for encoding in encodings]):
            some = [encodings[place] for place in batch]
            yield Pass([start + place for place in batch], some, engine.run(lane, some))


def vectors(
    engine: Engine, lane: str, texts: Sequence[str], dimensions: int, *, name: str
) -> NDArray[np.float32]:
    """Shape (len(texts), dimensions). Raises EmbedderUnavailable for what is not of length 1."""
    out = np.empty((len(texts), dimensions), np.float32)
    for places, _, rows in passes(engine, lane, texts):
        out[places] = rows
    check_lengths(out, name)
    return out


def check_lengths(found: NDArray[np.float32], name: str) -> None:
    """Raise EmbedderUnavailable for vectors that are not of length 1."""
    if not np.allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-3):
        raise EmbedderUnavailable(
            f"{name} gave vectors that are not of length 1: its weights are damaged."
        )
