"""The generator that a local Ollama serves."""

import re
import ssl
import threading
import time
from collections import abc
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import ollama

from server.errors import GeneratorInterrupted, GeneratorUnavailable, InvalidInput
from server.models.contract import Generated, Message
from server.models.ollama_client import CHECK_SECONDS, FAILURES, Client, ask, explain, model_missing
from server.models.vocabulary import Vocabulary, count_bytes

PREFERRED_MODEL = "qwen2.5:7b"
_METADATA_SECONDS = 10.0
_ASK_AGAIN_SECONDS = 5.0


class OllamaGenerator:
    """Chat with one of Ollama's models, ``context_tokens`` being the same at every request.

    Ollama loads a model anew when ``num_ctx`` changes, and cuts a prompt that is too long without a
    word; so the window is fixed and an over-long prompt is refused here. ``keep_alive`` is Ollama's
    own ("30m", "-1" for ever). ``timeout``: the longest silence in seconds, that before the first
    token included, in which a model may have to be loaded.
    """

    # ChatML and Llama 3 add 5 tokens to a message and 3 after the last; a default system prompt, put
    # in where none is given, has some 20.
    message_overhead = 32

    def __init__(
        self, model: str, *, host: str, context_tokens: int, keep_alive: str, timeout: float
    ) -> None:
        """Connects to nothing yet. Raises ConfigurationError for a host that is no address."""
        self.name = f"ollama:{model}"
        self.context_tokens = context_tokens
        self._model = model
        self._host = host
        self._keep_alive = int(keep_alive) if re.fullmatch(r"-?\d+", keep_alive) else keep_alive
        self._timeout = timeout
        self._tls = ssl.create_default_context()
        self._place = self._client(timeout).place
        self._lock = threading.Lock()
        self._known: _Known | None = None
        self._ask_again_at = 0.0

    def _client(self, timeout: float) -> Client:
        return Client(self._host, timeout=timeout, tls=self._tls)

    def count_tokens(self, text: str) -> int:
        """An upper bound from the model's vocabulary, or a token a byte while Ollama can't be asked."""
        known = self._metadata()
        try:
            if known is None or known.vocabulary is None:
                return count_bytes(text)
            return known.vocabulary.count(text)
        except UnicodeEncodeError as error:
            raise InvalidInput("The text holds a lone surrogate; remove it.") from error

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> "ChatStream":
        """See ``Generator.stream``. The stream may be closed from another thread.

        Raises InvalidInput when prompt and answer may not fit into the context together.
        """
        needed = max_tokens + sum(
            self.count_tokens(message.content) + self.message_overhead for message in messages
        )
        known = self._metadata()
        trained = known.context_tokens if known else self.context_tokens
        room = min(self.context_tokens, trained)
        if needed > room:
            raise InvalidInput(
                f"Prompt and answer may take {needed:,} tokens, and the generator reads {room:,}. "
                f"TANYUAN_GENERATOR_CONTEXT is {self.context_tokens:,}; {self._model} was made for "
                f"{trained:,} at most."
            )
        disarm = known.vocabulary.disarm if known and known.vocabulary else str
        return ChatStream(
            self._client(self._timeout),
            model=self._model,
            messages=[
                {"role": message.role, "content": disarm(message.content)} for message in messages
            ],
            options={
                "num_ctx": self.context_tokens,
                "num_predict": max_tokens,
                "temperature": 0.0,
            },
            keep_alive=self._keep_alive,
            think=False,
        )

    def check(self) -> str:
        """See ``Generator.check``. Raises GeneratorModelMissing where only the model lacks."""
        version, models = ask(
            self._client(CHECK_SECONDS),
            lambda client: (client.version(), [found.model for found in client.list().models]),
            seconds=CHECK_SECONDS,
        )
        if not {self._model, f"{self._model}:latest"} & set(models):
            raise model_missing(self._model, self._place)
        return f"Ollama {version} at {self._place} with {self._model}"

    def _metadata(self) -> "_Known | None":
        """What Ollama knows of the model, asked once; None while it can't be asked."""
        with self._lock:
            if self._known is None and time.monotonic() >= self._ask_again_at:
                try:
                    with self._client(min(_METADATA_SECONDS, self._timeout)) as client:
                        self._known = _Known(client.metadata(self._model))
                except FAILURES:
                    # The prompt is then counted by bytes, and the chat that follows says what is
                    # wrong; not asking at every text keeps a dead host from holding up a request.
                    self._ask_again_at = time.monotonic() + _ASK_AGAIN_SECONDS
            return self._known


class _Known:
    """What a model's metadata says of it."""

    def __init__(self, metadata: dict[str, Any]) -> None:
        self.vocabulary = Vocabulary.from_gguf(metadata)
        trained = metadata.get(f"{metadata.get('general.architecture')}.context_length")
        self.context_tokens = trained if isinstance(trained, int) else 2**31


class ChatStream(abc.Generator[str | Generated, None, None]):
    """Pieces of an answer, then Generated. ``close`` stops Ollama at once, from any thread.

    A thread that waits for the next piece meanwhile sees the end of the stream.
    """

    def __init__(self, client: Client, *, model: str, **request: Any) -> None:
        self._client = client
        self._closed = False
        self._lock = threading.Lock()
        self._pieces = _chat(client, model, request)

    def send(self, value: None, /) -> str | Generated:  # noqa: ARG002 - a reader only
        with self._lock:
            if self._closed:
                raise StopIteration
            try:
                return next(self._pieces)
            except GeneratorUnavailable:
                if self._closed:
                    raise StopIteration from None
                raise

    def throw(
        self,
        kind: Any,
        value: Any = None,
        traceback: TracebackType | None = None,
        /,
    ) -> str | Generated:
        self.close()
        return super().throw(kind, value, traceback)

    def close(self) -> None:
        self._closed = True
        self._client.abort()
        with self._lock:
            self._pieces.close()


def _chat(
    client: Client, model: str, request: dict[str, Any]
) -> abc.Generator[str | Generated, None, None]:
    began = False
    with client:
        try:
            for part in client.chat(model, stream=True, **request):
                began = True
                if part.message.content:
                    yield part.message.content
                if part.done:
                    yield Generated(
                        reason="length" if part.done_reason == "length" else "stop",
                        prompt_tokens=part.prompt_eval_count,
                        completion_tokens=part.eval_count,
                    )
                    return
        except FAILURES as error:
            raise explain(error, client.place, model=model, began=began) from error
    raise GeneratorInterrupted(
        f"Ollama at {client.place} ended its answer without saying that it was complete."
    )


def choose_model(host: str, *, timeout: float = CHECK_SECONDS) -> str | None:
    """The installed model that ``auto`` takes, or None where Ollama has none that can chat.

    PREFERRED_MODEL if it is there; else a Qwen before others, as they are good at Chinese and
    English alike; then those of up to 15 billion parameters before larger ones, and the largest
    first; then by name. Embedding models are left out. Answers within ``timeout`` seconds.
    Raises GeneratorUnavailable or one of its kinds, and ConfigurationError for a host that is no
    address.
    """
    client = Client(host, timeout=timeout, tls=ssl.create_default_context())
    found = ask(client, lambda client: list(client.list().models), seconds=timeout)
    chat = [model for model in found if model.model and not _embeds(model)]
    return str(min(chat, key=_preference).model) if chat else None


def _embeds(model: ollama.ListResponse.Model) -> bool:
    families = [family.lower() for family in (model.details and model.details.families) or ()]
    return any("bert" in family for family in families) or "embed" in str(model.model).lower()


def _preference(model: ollama.ListResponse.Model) -> tuple[bool, bool, bool, float, str]:
    name = str(model.model)
    size = re.fullmatch(r"([\d.]+)([KMB])", (model.details and model.details.parameter_size) or "")
    billions = float(size[1]) / {"K": 1e6, "M": 1e3, "B": 1.0}[size[2]] if size else 0.0
    qwen = "qwen" in name.lower()
    return (name != PREFERRED_MODEL, not qwen, billions > 15, -billions, name)
