"""Models in torch, whichever library loads them, run batch by batch in threads of their own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.errors import ModelUnavailable
from server.models.batching import Batching
from server.models.tokens import Tokens
from server.models.workers import Result, Workers

# Padded tokens a batch. On a CPU larger batches are no faster and keep other callers waiting.
CPU_BATCH_TOKENS = 2_048
GPU_BATCH_TOKENS = 65_536
# Padded tokens up to which work of several callers goes in one pass. Beyond them a pass costs by the token,
# so that those who came first would only wait for the others.
CPU_JOINED_TOKENS = 256
GPU_JOINED_TOKENS = 16_384
# What a pass costs besides its tokens, in tokens: reading the weights on a CPU, starting kernels on a GPU.
CPU_PASS_TOKENS = 32
GPU_PASS_TOKENS = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model on its device with its tokenizer. ``model``: as its library has it; ``tokenizer``:
    transformers' own, which is asked and never called."""

    model: Any
    tokenizer: Any
    tokens: Tokens
    device: str

    @property
    def batch_tokens(self) -> int:
        return CPU_BATCH_TOKENS if self.device == "cpu" else GPU_BATCH_TOKENS

    def joins(self, encodings: Sequence[Any], more: Sequence[Any]) -> bool:
        """Whether all of these in one pass cost less than in two, padding counted."""
        most, saved = (
            (CPU_JOINED_TOKENS, CPU_PASS_TOKENS)
            if self.device == "cpu"
            else (GPU_JOINED_TOKENS, GPU_PASS_TOKENS)
        )
        together = _padded([*encodings, *more])
        return together <= min(most, _padded(encodings) + _padded(more) + saved)

    def tensors(self, encodings: Sequence[Any]) -> dict[str, Any]:
        """What the model takes: ids, mask and types, each int64 (len(encodings), longest)."""
        import torch  # noqa: PLC0415 - loaded by now

        shape = (len(encodings), max(len(encoding.ids) for encoding in encodings))
        inputs = {
            "input_ids": np.full(shape, self.tokenizer.pad_token_id or 0, np.int64),
            "attention_mask": np.zeros(shape, np.int64),
            "token_type_ids": np.zeros(shape, np.int64),
        }
        for row, encoding in enumerate(encodings):
            length = len(encoding.ids)
            inputs["input_ids"][row, :length] = encoding.ids
            inputs["attention_mask"][row, :length] = 1
            inputs["token_type_ids"][row, :length] = encoding.type_ids
        names = set(self.tokenizer.model_input_names)
        return {
            name: torch.from_numpy(value).to(self.device)
            for name, value in inputs.items()
            if name in names
        }


Forward = Callable[[Loaded, Sequence[Any]], NDArray[np.float32]]


class TorchEngine:
    """An Engine. ``load`` gives the model and raises the adapter's error; ``forwards``: what runs a batch of
    each lane. Each lane is a thread of its own, whose short work of several callers goes together."""

    def __init__(
        self,
        load: Callable[[], Loaded],
        forwards: Mapping[str, Forward],
        *,
        name: str,
        error: type[ModelUnavailable],
    ) -> None:
        self._load = load
        self._name = name
        self._error = error
        self._loader = [*forwards][-1]
        self._workers = Workers(name.partition(":")[0], *forwards)
        self._passes = {
            lane: Batching(self._workers, partial(self._forward, forward), self._joins)
            for lane, forward in forwards.items()
        }
        self._loaded: Loaded | None = None

    def loaded(self) -> Loaded:
        # Always in the same thread, so that two callers don't load at once.
        return self._loaded or self._caught(
            partial(self._workers.run, self._loader, self._load_once)
        )

    def tokens(self) -> Tokens:
        return self.loaded().tokens

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """By falling length, as many together as keep to the device's number of tokens."""
        budget = self.loaded().batch_tokens
        order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
        while order:
            size = max(1, budget // max(1, lengths[order[0]]))
            yield order[:size]
            order = order[size:]

    def run(self, lane: str, encodings: Sequence[Any]) -> NDArray[np.float32]:
        self.loaded()
        return self._caught(partial(self._passes[lane].run, lane, encodings))

    def _forward(self, forward: Forward, encodings: Sequence[Any]) -> NDArray[np.float32]:
        return forward(self.loaded(), encodings)

    def _joins(self, encodings: Sequence[Any], more: Sequence[Any]) -> bool:
        return self.loaded().joins(encodings, more)

    def _load_once(self) -> Loaded:
        self._loaded = self._loaded or self._load()
        return self._loaded

    def _caught(self, do: Callable[[], Result]) -> Result:
        try:
            return do()
        except (RuntimeError, ValueError) as error:
            # torch's (memory, shapes), or the interpreter shuts down
            raise self._error(f"{self._name} failed: {error}") from error


def _padded(encodings: Sequence[Any]) -> int:
    """The tokens of a batch, each text as long as the longest."""
    return len(encodings) * max((len(encoding.ids) for encoding in encodings), default=0)
