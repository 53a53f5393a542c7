"""What all embedders on a server share: sizes of calls, texts that a server takes, vectors that a store
may hold, and whether the server answers. DECISIONS.md says what was decided and why."""

import abc
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.documents import Vector
from server.errors import EmbedderUnavailable
from server.models.estimates import cut, estimate_tokens
from server.models.replies import TooLong, Transient
from server.texts import clean_text

BATCH_TEXTS = 64
BATCH_TOKENS = 8_192  # a server on two cores takes some ten seconds for them
CHARS_PER_TOKEN = 64  # of a text whose beginning is looked at
BLANK = "."  # stands for a text without a character, which servers refuse
CHECK_SECONDS = 1.8  # of the two that a check may take
AGAIN_SECONDS = 5.0  # for which a server that failed is asked for no query, nor whether it is back
SHORT_CHARS = 16  # no server finds such a text too long
# Of the contrastive loss, by the model's name, where it was published; FALLBACK is that of
# sentence-transformers' loss (scale 20), and suits vectors that spread as widely as OpenAI's.
TEMPERATURES = (
    (r"bge-(?:small|base|large)-(?:zh|en)(?!-v1\.5)", 0.01),  # FlagEmbedding's issue 193
    (r"bge-", 0.02),
    (r"\be5-|-e5-", 0.01),  # Wang et al. 2022, arXiv:2212.03533
    (r"\bgte-", 0.01),  # Li et al. 2023, arXiv:2308.03281
)
FALLBACK_TEMPERATURE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How servers are asked. ``seconds``: for a batch of passages; ``query_seconds``: for a query.

    ``query_prefix`` and ``passage_prefix`` go before every text. ``max_tokens`` of a text; 0: as the
    model's makers say. ``facts``: the file of what was learnt of models.
    """

    seconds: float
    query_seconds: float
    facts: Path
    query_prefix: str = ""
    passage_prefix: str = ""
    max_tokens: int = 0
    proxy: str = ""


class ServedEmbedder(abc.ABC):
    """An Embedder on a server. Thread-safe; a child after a fork opens connections of its own.

    A subclass sets ``name``, ``max_tokens``, ``dimensions`` and ``identity``, which says what the
    model is, whatever server it is on.
    """

    name: str
    dimensions: int
    max_tokens: int
    identity: str
    batch_texts = BATCH_TEXTS

    def __init__(self, model: str, serving: Serving) -> None:
        self._serving = serving
        self.temperature = temperature(model)
        self._failure: tuple[float, EmbedderUnavailable] | None = None  # the last call's, and when
        self._waking = threading.Lock()

    @abc.abstractmethod
    def _ask(self, texts: Sequence[str], *, seconds: float, query: bool = False) -> Sequence[Any]:
        """A vector a text, in order, as the server gives them. ``query``: they are queries.

        Raises TooLong, also where only one of the texts is, and EmbedderUnavailable.
        """

    @property
    def fingerprint(self) -> str:
        prefixes = self._serving.query_prefix, self._serving.passage_prefix
        if not any(prefixes):
            return self.identity
        return f"{self.identity}:{hashlib.sha256(json.dumps(prefixes).encode()).hexdigest()[:8]}"

    def warm_up(self) -> None:
        self._embed(["warm up"], seconds=self._serving.seconds)

    def embed_query(self, text: str) -> Vector:
        failed = self._failed_lately()
        if isinstance(failed, Transient):  # not every search waits for a server that is gone
            raise EmbedderUnavailable(failed.message) from failed
        prepared = self._prepare(self._serving.query_prefix + text)
        seconds = self._serving.query_seconds
        try:
            vector: Vector = self._embed([prepared], seconds=seconds, query=True)[0]
        except Transient:
            threading.Thread(target=self._wake, name="embedder-wake", daemon=True).start()
            raise
        return vector

    def _wake(self) -> None:
        """Wait for the server as long as for passages: one that loads its model at the first call, as
        Ollama does, gives up loading when the caller does, and no query waits so long."""
        if self._waking.acquire(blocking=False):
            try:
                self.warm_up()
            except EmbedderUnavailable:
                return  # the next query says so
            finally:
                self._waking.release()

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        out = np.empty((len(texts), self.dimensions), np.float32)
        prepared = [self._prepare(self._serving.passage_prefix + text) for text in texts]
        for batch in self._batches(prepared):
            out[batch] = self._embed(prepared[batch], seconds=self._serving.seconds)
        return out

    def count_tokens(self, text: str) -> int:
        return estimate_tokens(text)

    def check(self) -> str:
        """One line where the server answers; else raises EmbedderUnavailable. Within two seconds.

        Asks only after a failure, and now and then: a call may cost money.
        """
        failed = self._failed_lately()
        if failed is not None:
            raise EmbedderUnavailable(failed.message) from failed
        if self._failure is not None:
            self._embed(["check"], seconds=CHECK_SECONDS)
        return f"{self.name} with {self.dimensions} dimensions"

    def _embed(
        self, texts: Sequence[str], *, seconds: float, query: bool = False
    ) -> NDArray[np.float32]:
        try:
            found = self._ask_shorter(texts, time.monotonic() + seconds, query)
            vectors = matrix(found, len(texts), self.dimensions, self.name)
        except EmbedderUnavailable as error:
            self._failure = (time.monotonic(), error)
            raise
        self._failure = None
        return vectors

    def _failed_lately(self) -> EmbedderUnavailable | None:
        failure = self._failure
        lately = failure is not None and time.monotonic() - failure[0] < AGAIN_SECONDS
        return failure[1] if failure is not None and lately else None

    def _ask_shorter(self, texts: Sequence[str], deadline: float, query: bool) -> list[Any]:
        """Where the server finds a text too long: half of the texts at a time, then less of the one
        text. Its tokenizer isn't here, so its word is all there is."""
        left = max(0.001, deadline - time.monotonic())
        try:
            return list(self._ask(texts, seconds=left, query=query))
        except TooLong:
            if time.monotonic() >= deadline or (len(texts) == 1 and len(texts[0]) <= SHORT_CHARS):
                raise
        if len(texts) == 1:
            less = self._prepare(texts[0][: len(texts[0]) * 2 // 3])
            return self._ask_shorter([less], deadline, query)
        middle = len(texts) // 2
        parts = (texts[:middle], texts[middle:])
        return [vector for part in parts for vector in self._ask_shorter(part, deadline, query)]

    def _prepare(self, text: str) -> str:
        begin = clean_text(text[: CHARS_PER_TOKEN * self.max_tokens])
        return cut(begin, self.max_tokens) if begin.strip() else BLANK

    def _batches(self, texts: Sequence[str]) -> Iterator[slice]:
        """Neighbours, as many together as keep to the number of texts and of tokens."""
        start = tokens = 0
        for place, text in enumerate(texts):
            more = self.count_tokens(text)
            if place > start and (
                place - start == self.batch_texts or tokens + more > BATCH_TOKENS
            ):
                yield slice(start, place)
                start, tokens = place, 0
            tokens += more
        if start < len(texts):
            yield slice(start, len(texts))


def matrix(vectors: Sequence[Any], count: int, dimensions: int, name: str) -> NDArray[np.float32]:
    """Vectors of length 1, shape (count, dimensions). Raises EmbedderUnavailable for others."""
    if len(vectors) != count:
        raise EmbedderUnavailable(f"{name} gave {len(vectors)} vectors for {count} texts.")
    out = np.empty((count, dimensions))
    for row, vector in enumerate(vectors):
        try:
            numbers = np.asarray(vector)
        except ValueError:  # lists of unequal length
            numbers = np.empty(0, object)
        if numbers.ndim != 1 or numbers.dtype.kind not in "fiu":
            raise EmbedderUnavailable(f"{name} gave something that is no vector of numbers.")
        if len(numbers) != dimensions:
            raise EmbedderUnavailable(
                f"{name} gave a vector of {len(numbers):,} dimensions instead of {dimensions:,}: it is "
                "another model than before, or another size was asked for. Restart to make new "
                "collections with it; scripts/rebuild takes those that are there over."
            )
        out[row] = numbers
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(out, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise EmbedderUnavailable(f"{name} gave a vector of no direction (0, NaN or infinite).")
    unit: NDArray[np.float32] = (out / norms).astype(np.float32)
    return unit


def temperature(model: str) -> float:
    """Of the loss that a model was trained with, by its name: no server says it."""
    lower = model.lower()
    return next(
        (known for name, known in TEMPERATURES if re.search(name, lower)), FALLBACK_TEMPERATURE
    )


class Facts:
    """What was learnt of models on servers, so that a restart doesn't need the server: JSON, by name.

    It may be deleted at any time; it is asked for again then.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def get(self, name: str) -> Mapping[str, Any]:
        found = self._read().get(name)
        return found if isinstance(found, dict) else {}

    def put(self, name: str, **facts: Any) -> None:
        known = self._read()
        if known.get(name) == facts:
            return
        fresh = self._file.with_name(f"{self._file.name}.{threading.get_ident()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(json.dumps(known | {name: facts}, indent=1), encoding="utf-8")
            fresh.replace(self._file)
        except OSError:
            return  # a folder that can't be written to: asked again at the next start

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}
