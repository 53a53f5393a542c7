"""FlagEmbedding's models, loaded quietly, from a folder, and run batch by batch.

FlagEmbedding loads the model and its tokenizer and pools. Its ``encode`` and ``compute_score`` are not
called: they run the first batch of every call twice to try out the batch size (a query takes 19 ms
instead of 8), print progress bars, and change the tokenizer's settings while other threads use it,
which was measured to give wrong vectors. Tests hold our values to theirs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from server.errors import ModelUnavailable
from server.models.tokens import Tokens
from server.models.weights import stay_offline
from server.models.workers import Result, Workers

# Padded tokens a batch. On a CPU larger batches are no faster and keep other callers waiting.
CPU_BATCH_TOKENS = 2_048
GPU_BATCH_TOKENS = 65_536

Kind = Literal["FlagModel", "FlagReranker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model on its device with its tokenizer."""

    flag: Any  # FlagModel or FlagReranker
    tokens: Tokens
    device: str

    def tensors(self, encodings: Sequence[Any]) -> dict[str, Any]:
        """What the model takes: ids, mask and types, each int64 (len(encodings), longest)."""
        import torch  # noqa: PLC0415 - loaded by now

        shape = (len(encodings), max(len(encoding.ids) for encoding in encodings))
        inputs = {
            "input_ids": np.full(shape, self.flag.tokenizer.pad_token_id, np.int64),
            "attention_mask": np.zeros(shape, np.int64),
            "token_type_ids": np.zeros(shape, np.int64),
        }
        for row, encoding in enumerate(encodings):
            length = len(encoding.ids)
            inputs["input_ids"][row, :length] = encoding.ids
            inputs["attention_mask"][row, :length] = 1
            inputs["token_type_ids"][row, :length] = encoding.type_ids
        names = set(self.flag.tokenizer.model_input_names)
        return {
            name: torch.from_numpy(value).to(self.device)
            for name, value in inputs.items()
            if name in names
        }


class FlagEngine:
    """An Engine. ``forward`` runs the model on a batch; each of ``lanes`` is a thread of its own."""

    def __init__(
        self,
        kind: Kind,
        folder: Path,
        forward: Callable[[Loaded, Sequence[Any]], NDArray[np.float32]],
        *,
        name: str,
        max_tokens: int,
        error: type[ModelUnavailable],
        lanes: tuple[str, ...],
        **options: Any,
    ) -> None:
        self._load = partial(load, kind, folder, max_tokens=max_tokens, error=error, **options)
        self._forward = forward
        self._name = name
        self._error = error
        self._lanes = lanes
        self._workers = Workers("bge", *lanes)
        self._loaded: Loaded | None = None

    def loaded(self) -> Loaded:
        # Always in the same thread, so that two callers don't load at once.
        return self._loaded or self._run(self._lanes[-1], self._load_once)

    def tokens(self) -> Tokens:
        return self.loaded().tokens

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """By falling length, as many together as keep to the device's number of tokens."""
        budget = CPU_BATCH_TOKENS if self.loaded().device == "cpu" else GPU_BATCH_TOKENS
        order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
        while order:
            size = max(1, budget // max(1, lengths[order[0]]))
            yield order[:size]
            order = order[size:]

    def run(self, lane: str, encodings: Sequence[Any]) -> NDArray[np.float32]:
        return self._run(lane, partial(self._forward, self.loaded(), encodings))

    def _load_once(self) -> Loaded:
        self._loaded = self._loaded or self._load()
        return self._loaded

    def _run(self, lane: str, job: Callable[[], Result]) -> Result:
        try:
            return self._workers.run(lane, job)
        except (RuntimeError, ValueError) as error:
            # torch's (memory, shapes), or the interpreter shuts down
            raise self._error(f"{self._name} failed: {error}") from error


def load(
    kind: Kind,
    folder: Path,
    *,
    max_tokens: int,
    error: type[ModelUnavailable],
    **options: Any,
) -> Loaded:
    """Load a model: 5 to 12 s for the library, then the weights. Raises ``error``."""
    stay_offline()
    try:
        import FlagEmbedding  # noqa: PLC0415 - some seconds and 1 GB
        import torch  # noqa: PLC0415
        from transformers.utils import logging  # noqa: PLC0415
    except ImportError as missing:
        raise error(
            f"FlagEmbedding can't be imported ({missing}): run scripts/run without --light, or "
            "pip install 'tanyuan[bge]'."
        ) from missing
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        flag = getattr(FlagEmbedding, kind)(
            str(folder), devices=[device], use_fp16=device != "cpu", **options
        )
        flag.model.to(device).eval()
        tokens = Tokens.load(
            flag.tokenizer.backend_tokenizer.to_str(),
            max_tokens=max_tokens,
            pairs=kind == "FlagReranker",
        )
    except Exception as failure:  # whatever the libraries raise on bad files
        raise error(f"The model in {folder} can't be loaded: {failure}") from failure
    return Loaded(flag=flag, tokens=tokens, device=device)
