"""Ollama's model as ``auto`` takes it: looked for at start, and again while there is none."""

import threading
import time
from collections.abc import Callable, Sequence

from server.errors import GeneratorModelMissing, GeneratorUnavailable
from server.models.contract import Generator, Message, Stream
from server.models.ollama import PREFERRED_MODEL, OllamaGenerator, choose_model

_ASK_AGAIN_SECONDS = 5.0  # an Ollama that hangs must not hold up every answer


class AutoOllama:
    """The Generator of the first model that is found, so that Ollama may be started after the server.

    Until then every call raises why there is none, and ``name`` is "ollama". Thread-safe.
    """

    message_overhead = OllamaGenerator.message_overhead

    def __init__(
        self, make: Callable[[str], OllamaGenerator], *, host: str, context_tokens: int
    ) -> None:
        """``make``: the generator of a model by its name."""
        self.context_tokens = context_tokens
        self._make = make
        self._host = host
        self._lock = threading.Lock()
        self._found: OllamaGenerator | None = None
        self._error: GeneratorUnavailable | None = None
        self._ask_again_at = 0.0

    @property
    def name(self) -> str:
        return self._found.name if self._found else "ollama"

    def find(self) -> Generator:
        """The generator. Raises GeneratorUnavailable or one of its kinds within two seconds."""
        with self._lock:
            if self._found is None and time.monotonic() >= self._ask_again_at:
                self._error = self._look()
                self._ask_again_at = time.monotonic() + _ASK_AGAIN_SECONDS
            if self._found is None:
                raise self._error or GeneratorUnavailable("Ollama was not asked yet.")
            return self._found

    def _look(self) -> GeneratorUnavailable | None:
        try:
            model = choose_model(self._host)
        except GeneratorUnavailable as error:
            return error
        if model is None:
            return GeneratorModelMissing(
                f"Ollama at {self._host} has no chat model: run ollama pull {PREFERRED_MODEL}"
            )
        self._found = self._make(model)
        return None

    def count_tokens(self, text: str) -> int:
        return self.find().count_tokens(text)

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Stream:
        return self.find().stream(messages, max_tokens=max_tokens)

    def check(self) -> str:
        return self.find().check()
