"""ONNX Runtime over an export (``exports.py``): no torch, a fraction of its time and memory.

Texts are only run together with texts of the same number of tokens: nothing is padded, and what comes
out for a text does not depend on its neighbours (DECISIONS.md).
"""

import os
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.errors import ModelUnavailable
from server.models import exports
from server.models.cores import usable_cores
from server.models.exports import Export, Precision
from server.models.tokens import Tokens

BATCH_TOKENS = (
    512  # larger batches are no faster: what stands between two operators leaves the cache
)


class OnnxEngine:
    """An Engine. Work of all lanes runs side by side in the threads that ask."""

    def __init__(
        self,
        export: Export,
        precision: Precision,
        *,
        name: str,
        max_tokens: int,
        error: type[ModelUnavailable],
    ) -> None:
        self._export = export
        self._precision = precision
        self._name = name
        self._max_tokens = max_tokens
        self._error = error
        self._tokens: Tokens | None = None
        # By process, since a child has none of the threads that a session had in its parent. The
        # parent's stays, for to give it up would wait for them.
        self._sessions: dict[int, Any] = {}
        # Likewise, since a parent's lock may be held by a thread that a child doesn't have.
        self._locks: dict[int, threading.Lock] = {}

    def tokens(self) -> Tokens:
        if self._tokens is None:
            with self._loading():
                self._tokens = self._tokens or self._load_tokens()
        return self._tokens

    def _load_tokens(self) -> Tokens:
        try:
            return Tokens.load(
                self._export.tokenizer.read_text(encoding="utf-8"),
                max_tokens=self._max_tokens,
                pairs=self._export.kind == "reranker",
            )
        except Exception as error:  # the library's have no common kind
            raise self._broken(error) from error

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Texts of one length, as many together as keep to BATCH_TOKENS; the longest first."""
        places: dict[int, list[int]] = {}
        for place, length in enumerate(lengths):
            places.setdefault(length, []).append(place)
        for length in sorted(places, reverse=True):
            size = max(1, BATCH_TOKENS // max(1, length))
            same = places[length]
            yield from (same[at : at + size] for at in range(0, len(same), size))

    def run(self, lane: str, encodings: Sequence[Any]) -> NDArray[np.float32]:  # noqa: ARG002
        session = self._session()
        try:
            out: NDArray[np.float32]
            (out,) = session.run(None, {"embeddings": self._embeddings(encodings)})
        except Exception as error:  # ONNX Runtime's errors have no common kind
            raise self._error(f"{self._name} failed: {error}") from error
        return out

    def _embeddings(self, encodings: Sequence[Any]) -> NDArray[np.float32]:
        """Sums of what stands in the tables of words, positions and types: (texts, tokens, hidden)."""
        words, positions, types = self._tables
        ids = np.array([encoding.ids for encoding in encodings])
        places = np.arange(ids.shape[1])[np.newaxis]
        if self._export.padding is not None:  # as transformers' create_position_ids_from_input_ids
            counted = ids != self._export.padding
            places = np.cumsum(counted, axis=1) * counted + self._export.padding
        kinds = np.array([encoding.type_ids for encoding in encodings]) * self._export.types
        embeddings: NDArray[np.float32] = words[ids] + types[kinds] + positions[places]
        return embeddings

    @cached_property
    def _tables(self) -> list[NDArray[np.float32]]:
        """Mapped into memory: only rows that are wanted are read, once for all processes."""
        try:
            return [
                np.load(self._export.folder / name, mmap_mode="r")
                for name in (exports.WORDS, exports.POSITIONS, exports.TYPES)
            ]
        except (OSError, ValueError) as error:
            raise self._broken(error) from error

    def _session(self) -> Any:
        process = os.getpid()
        if process not in self._sessions:
            with self._loading():
                if process not in self._sessions:
                    self._sessions[process] = self._open()
        return self._sessions[process]

    def _loading(self) -> threading.Lock:
        """So that callers who come first at once load once."""
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def _open(self) -> Any:
        try:
            import onnxruntime  # noqa: PLC0415 - heavy imports stay inside the adapter

            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3  # errors; warnings would go to stderr
            options.intra_op_num_threads = usable_cores()
            # Threads that wait must sleep: other processes (Elasticsearch, Ollama) want the cores too.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            # The graph is made of fused operators where they are faster; more would be slower.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
            options.enable_mem_pattern = False  # it would be made anew for each shape of a batch
            return onnxruntime.InferenceSession(
                self._export.graph(self._precision), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors have no common kind
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> ModelUnavailable:
        return self._error(
            f"{self._name} can't be loaded from {self._export.folder} ({error}): run "
            "scripts/export_onnx --force, or delete that folder."
        )
