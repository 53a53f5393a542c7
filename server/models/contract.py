"""The contracts of embedder, reranker and generator.

Adapters import their heavy libraries when constructed, are thread-safe, and raise only errors of
``server.errors``.
"""

from collections import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from server.documents import Vector
from server.sparse import Embedded


class Embedder(Protocol):
    """Texts to vectors of length 1.

    ``name`` is for people (``e5``, ``bge:BAAI/bge-base-zh-v1.5``). ``fingerprint`` names everything
    that makes the vectors what they are: kind, hash of the weights, query instruction, pooling.
    ``max_tokens``: what the model reads of one text, its special tokens included.
    ``temperature``: that of the contrastive loss which the model was trained with, so that a cosine
    divided by it is the log-odds of relevance up to a constant (InfoNCE's optimal critic: van den Oord
    et al. 2018, arXiv:1807.03748).
    """

    name: str
    dimensions: int
    max_tokens: int
    temperature: float

    @property
    def fingerprint(self) -> str:
        """Hashes the weights when first asked, under a second. Raises EmbedderUnavailable."""

    def warm_up(self) -> None:
        """Load what is loaded at first use, some seconds; a server calls it once, after any fork.

        Raises EmbedderUnavailable.
        """

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(texts), dimensions); no texts give shape (0, dimensions).

        Longer texts are cut at ``max_tokens``. Raises EmbedderUnavailable.
        """

    def embed_query(self, text: str) -> Vector:
        """Shape (dimensions,). Raises EmbedderUnavailable."""

    def count_tokens(self, text: str) -> int:
        """How many tokens the model's own tokenizer makes of a text, special tokens left out.

        The text may be of any length; nothing is cut.
        """


class SparseEmbedder(Embedder, Protocol):
    """An Embedder that learned sparse weights too; see ``gives_sparse``.

    ``sparse_fingerprint`` names what makes the weights of the hidden states that the vectors are made
    of, so that both fingerprints together name everything. ``sparse_share``: how much of a product of
    sparse weights counts beside a cosine, both over ``temperature``, in the score of both together that
    the model was trained with.
    """

    sparse_share: float

    @property
    def sparse_fingerprint(self) -> str:
        """Raises EmbedderUnavailable."""

    def encode_documents(self, texts: Sequence[str]) -> list[Embedded]:
        """Vectors, as of ``embed_documents``, with sparse weights, in one pass of the model."""

    def encode_query(self, text: str) -> Embedded:
        """The same of a query, the vector as of ``embed_query``."""


def gives_sparse(embedder: Embedder | None) -> TypeGuard[SparseEmbedder]:
    return hasattr(
        embedder, "encode_query"
    )  # isinstance would ask for fingerprints, which take a second


class Reranker(Protocol):
    """Query and raw passages to relevance scores."""

    name: str

    def warm_up(self) -> None:
        """Load what is loaded at first use, as an embedder does. Raises RerankerUnavailable."""

    def score(self, query: str, passages: Sequence[str]) -> list[float]:
        """One score a passage in [0, 1], higher is better; [] for no passages.

        Long pairs are cut on the passage's side. Raises RerankerUnavailable. The caller makes the
        batches, to keep to its deadline.
        """


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """The end of a generation: why it ended and what the generator counted (None: it didn't say)."""

    reason: Literal["stop", "length"]
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


Stream = abc.Generator[str | Generated, None, None]


class Generator(Protocol):
    """Chat messages to text.

    ``context_tokens``: the fixed window for prompt and answer together. ``message_overhead``: tokens
    that the chat template adds to each message, at most.
    """

    context_tokens: int
    message_overhead: int

    @property
    def name(self) -> str:
        """For people: ``ollama:qwen2.5:7b``."""

    def count_tokens(self, text: str) -> int:
        """How many tokens a text takes at most; an upper bound where the model can't tell exactly."""

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Stream:
        """Pieces of text as they come, then one Generated. Closing the iterator stops the generator.

        Raises GeneratorUnavailable or one of its kinds, also from the iterator in the middle.
        """

    def check(self) -> str:
        """One line about the generator when it can serve; else raises GeneratorUnavailable.

        Answers within two seconds.
        """
