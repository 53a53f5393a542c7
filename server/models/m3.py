"""BGE-M3 with its sparse weights: the vectors of ``bge.py``, and in the same pass of the model a weight for
each token (Chen et al. 2024, arXiv:2402.03216, section 3.2).

The folder has the head that makes them, ``sparse_linear.pt``. Tests hold the values to those of
FlagEmbedding's BGEM3FlagModel, whose own ``encode`` is not called, for the reasons that ``flag.py`` gives.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.documents import Vector
from server.errors import EmbedderUnavailable
from server.models import weights
from server.models.bge import BgeEmbedder
from server.models.engine import check_lengths, passes
from server.models.torch_engine import Loaded
from server.sparse import EMPTY, MAX_WEIGHT, MIN_WEIGHT, Embedded, SparseWeights

VERSION = 1  # raise when the weights change that the same head gives
_SPECIAL = ("cls_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True, slots=True)
class _Head:
    """Tensors. ``weight``: float32 (hidden,); ``bias``: (1,); ``unused``: the special tokens' ids."""

    weight: Any
    bias: Any
    unused: Any


class M3Embedder(BgeEmbedder):
    """A SparseEmbedder. Thread-safe, also after a fork."""

    sparse_share = 0.3  # in FlagEmbedding's training: EncoderOnlyEmbedderM3Model.ensemble_score
    _head: _Head | None = None

    @cached_property
    def sparse_fingerprint(self) -> str:
        try:
            head = (self._folder / weights.SPARSE_HEAD).read_bytes()
        except OSError as error:
            raise EmbedderUnavailable(f"The weights can't be read: {error}") from error
        return f"m3-{VERSION}:{hashlib.sha256(head).hexdigest()[:16]}"

    def embed_query(self, text: str) -> Vector:
        return self.encode_query(text).vector

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        made = [each.vector for each in self.encode_documents(texts)]
        return np.array(made, np.float32).reshape(-1, self.dimensions)

    def encode_query(self, text: str) -> Embedded:
        return self._encode("queries", [self.instruction + text])[0]

    def encode_documents(self, texts: Sequence[str]) -> list[Embedded]:
        return self._encode("documents", texts)

    def _encode(self, lane: str, texts: Sequence[str]) -> list[Embedded]:
        found: dict[int, Embedded] = {}
        for places, encodings, rows in passes(self.engine, lane, texts):
            check_lengths(rows[:, : self.dimensions], self.name)
            for place, encoding, row in zip(places, encodings, rows, strict=True):
                ids = np.array(encoding.ids)
                weighted = row[self.dimensions : self.dimensions + len(ids)]
                found[place] = Embedded(row[: self.dimensions].copy(), self._sparse(ids, weighted))
        return [found[place] for place in range(len(texts))]

    def _sparse(self, ids: NDArray[np.int64], row: NDArray[np.float32]) -> SparseWeights:
        """The largest weight of each token; ``row``: float32 (len(ids),), 0 for special ones."""
        if not (row <= MAX_WEIGHT).all():  # NaN too
            raise EmbedderUnavailable(
                f"{self.name} gave sparse weights that are no numbers: its weights are damaged."
            )
        wanted = row >= MIN_WEIGHT
        if not wanted.any():
            return EMPTY
        tokens, places = np.unique(ids[wanted], return_inverse=True)
        largest = np.zeros(len(tokens), np.float32)
        np.maximum.at(largest, places, row[wanted])
        return SparseWeights(tokens.astype(np.int32), largest)

    def _forward(self, model: Loaded, encodings: Sequence[Any]) -> NDArray[np.float32]:
        """A row for each text: its vector, then the weight of each token; (len(encodings), dimensions +
        longest)."""
        import torch  # noqa: PLC0415 - loaded by now

        head = self._head = self._head or self._load_head(model)
        inputs = model.tensors(encodings)
        with torch.inference_mode():
            hidden = model.model.model(**inputs, return_dict=True).last_hidden_state
            pooled = model.model.pooling(hidden, inputs["attention_mask"])
            unit = torch.nn.functional.normalize(pooled.float(), dim=-1)
            token_weights = torch.relu(hidden.float() @ head.weight + head.bias)
            token_weights[torch.isin(inputs["input_ids"], head.unused)] = 0
            rows: NDArray[np.float32] = torch.cat((unit, token_weights), dim=1).cpu().numpy()
        return rows

    def _load_head(self, model: Loaded) -> _Head:
        import torch  # noqa: PLC0415 - loaded by now

        file = self._folder / weights.SPARSE_HEAD
        try:
            # Plain tensors: nothing else in the file is unpickled.
            state = torch.load(file, map_location="cpu", weights_only=True)
            weight, bias = state["weight"].float(), state["bias"].float()
            if weight.shape != (1, self.dimensions) or bias.shape != (1,):
                raise ValueError(f"shapes {tuple(weight.shape)} and {tuple(bias.shape)}")  # noqa: TRY301
        except Exception as failure:  # whatever torch raises on bad files
            raise EmbedderUnavailable(f"{file} can't be loaded: {failure}") from failure
        tokenizer = model.tokenizer
        special = tokenizer.special_tokens_map
        unused = [
            tokenizer.convert_tokens_to_ids(special[name]) for name in _SPECIAL if name in special
        ]
        return _Head(*(each.to(model.device) for each in (weight[0], bias, torch.tensor(unused))))
