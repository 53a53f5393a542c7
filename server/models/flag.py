"""FlagEmbedding's models, loaded quietly, from a folder, and run batch by batch.

FlagEmbedding loads the model and its tokenizer and pools. Its ``encode`` and ``compute_score`` are not
called: they run the first batch of every call twice to try out the batch size (a query takes 19 ms
instead of 8), print progress bars, and change the tokenizer's settings while other threads use it,
which was measured to give wrong vectors. Tests hold our values to theirs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from server.errors import ModelUnavailable
from server.models.weights import read_json, stay_offline
from server.texts import clean_text

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
CHARS_PER_TOKEN = 64  # text past this many characters a token is not even tokenized
# Families whose position numbers start after the padding token's.
OFFSET_FAMILIES = frozenset({"xlm-roberta", "roberta", "camembert", "xlm-roberta-xl"})


def positions(folder: Path, config: dict[str, Any]) -> int:
    """How many tokens a model can read at once, special tokens included; 0 where it doesn't say."""
    count = int(config.get("max_position_embeddings") or 0)
    if config.get("model_type") in OFFSET_FAMILIES:
        count -= int(config.get("pad_token_id") or 0) + 1
    stated = read_json(folder / "tokenizer_config.json").get("model_max_length")
    if isinstance(stated, int | float) and 0 < stated < count:
        count = int(stated)
    return max(count, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model on its device with its tokenizer twice: one that cuts and one that only counts.

    Neither tokenizer is ever changed, so that all threads may use both.
    """

    flag: Any  # FlagModel or FlagReranker
    reader: Any
    counter: Any
    device: str
    pad_id: int
    max_tokens: int

    def read(self, texts: Sequence[Any]) -> list[Any]:
        """Encodings of texts, or of pairs of texts, cut at max_tokens."""
        encoded: list[Any] = self.reader.encode_batch(texts)
        return encoded

    def prepare(self, text: str, max_tokens: int | None = None) -> str:
        """A text that the tokenizer can take, without the part that would be cut anyway."""
        return clean_text(text[: CHARS_PER_TOKEN * (max_tokens or self.max_tokens)])

    def batches(self, encodings: Sequence[Any]) -> Iterator[list[int]]:
        """Indices by falling length, as many together as keep to the device's number of tokens."""
        budget = CPU_BATCH_TOKENS if self.device == "cpu" else GPU_BATCH_TOKENS
        order = sorted(range(len(encodings)), key=lambda index: -len(encodings[index].ids))
        while order:
            size = max(1, budget // max(1, len(encodings[order[0]].ids)))
            yield order[:size]
            order = order[size:]

    def joins(self, encodings: Sequence[Any], more: Sequence[Any]) -> bool:
        """Whether all of these in one pass cost less than in two, padding counted."""
        most, saved = (
            (CPU_JOINED_TOKENS, CPU_PASS_TOKENS)
            if self.device == "cpu"
            else (GPU_JOINED_TOKENS, GPU_PASS_TOKENS)
        )
        together = padded([*encodings, *more])
        return together <= min(most, padded(encodings) + padded(more) + saved)

    def tensors(self, encodings: Sequence[Any]) -> dict[str, Any]:
        """What the model takes: ids, mask and types, each int64 (len(encodings), longest)."""
        import torch  # noqa: PLC0415 - loaded by now

        shape = (len(encodings), max(len(encoding.ids) for encoding in encodings))
        inputs = {
            "input_ids": np.full(shape, self.pad_id, np.int64),
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


def padded(encodings: Sequence[Any]) -> int:
    """The tokens of a batch, each text as long as the longest."""
    return len(encodings) * max((len(encoding.ids) for encoding in encodings), default=0)


def load(
    kind: Literal["FlagModel", "FlagReranker"],
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
        from tokenizers import Tokenizer  # noqa: PLC0415
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
        backend = flag.tokenizer.backend_tokenizer
        reader, counter = (Tokenizer.from_str(backend.to_str()) for _ in range(2))
    except Exception as failure:  # whatever the libraries raise on bad files
        raise error(f"The model in {folder} can't be loaded: {failure}") from failure
    reader.no_padding()
    reader.enable_truncation(
        max_tokens, strategy="only_second" if kind == "FlagReranker" else "longest_first"
    )
    counter.no_padding()
    counter.no_truncation()
    return Loaded(
        flag=flag,
        reader=reader,
        counter=counter,
        device=device,
        pad_id=flag.tokenizer.pad_token_id,
        max_tokens=max_tokens,
    )
