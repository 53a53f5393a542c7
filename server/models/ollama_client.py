"""Ollama's client with this product's manners: direct, bounded in time, to be stopped, in our errors.

This module and ``ollama.py`` are the only ones that import the client ``ollama``.
"""

import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import httpx
import ollama

from server.errors import (
    ConfigurationError,
    GeneratorInterrupted,
    GeneratorModelMissing,
    GeneratorTimeout,
    GeneratorUnavailable,
)

CHECK_SECONDS = 1.8  # of the two that a check may take
_CONNECT_SECONDS = 5.0
# All that the client raises; the built-in ones for an answer that is not what Ollama says.
FAILURES = (
    ollama.ResponseError,
    httpx.HTTPError,
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
)

T = TypeVar("T")


class Client(ollama.Client):
    """Ollama's client, straight to its host: no proxy from the environment, no redirect followed.

    ``abort`` may be called from any thread, and a thread that waits for Ollama then gets an error at
    once; closing a connection alone would not wake it.
    """

    def __init__(self, host: str, *, timeout: float, tls: ssl.SSLContext) -> None:
        self._sockets: list[socket.socket] = []
        self._aborted = False
        try:
            super().__init__(
                host,
                timeout=httpx.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
                follow_redirects=False,
                trust_env=False,
                verify=tls,
                event_hooks={"request": [self._watch]},
            )
        except (ValueError, httpx.InvalidURL) as error:
            raise ConfigurationError(
                f"OLLAMA_HOST must be an address such as http://127.0.0.1:11434: {error}"
            ) from error
        address = self._client.base_url
        self.place = f"{address.scheme}://{address.netloc.decode()}"

    def _watch(self, request: httpx.Request) -> None:
        request.extensions["trace"] = self._connected

    def _connected(self, event: str, info: dict[str, Any]) -> None:
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._sockets.append(info["return_value"].get_extra_info("socket"))
            if self._aborted:
                self.abort()

    def abort(self) -> None:
        self._aborted = True
        for connection in self._sockets:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed already, or wrapped by TLS, which follows in the list

    def version(self) -> str:
        return str(self._request(dict, "GET", "/api/version")["version"])

    def metadata(self, model: str) -> dict[str, Any]:
        """The model file's metadata, the lists of its tokenizer included (some megabytes)."""
        body = {"model": model, "verbose": True}
        return dict(self._request(dict, "POST", "/api/show", json=body)["model_info"])


def ask(client: Client, question: Callable[[Client], T], *, seconds: float) -> T:
    """Ask Ollama, then close ``client``; give up after ``seconds``, whatever Ollama does.

    The client's own time-outs count silence only, and none bounds the look-up of a name; so the
    question runs in a thread that is left behind. Raises GeneratorUnavailable or one of its kinds.
    """
    answer: list[T] = []
    failure: list[Exception] = []

    def run() -> None:
        try:
            with client:
                answer.append(question(client))
        except FAILURES as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="ollama-question", daemon=True)
    thread.start()
    thread.join(seconds)
    if answer:
        return answer[0]
    if failure:
        raise explain(failure[0], client.place) from failure[0]
    client.abort()
    raise explain(httpx.ReadTimeout("no answer"), client.place)


def explain(
    error: Exception, place: str, *, model: str = "", began: bool = False
) -> GeneratorUnavailable:
    """The error of ours for one of FAILURES; ``began``: Ollama had begun to answer."""
    if isinstance(error, httpx.TimeoutException):
        return GeneratorTimeout(
            f"Ollama at {place} did not answer in time; it may be loading a model, be busy or be out "
            "of reach. TANYUAN_GENERATOR_TIMEOUT sets how long to wait for a token."
        )
    if began:
        return GeneratorInterrupted(f"Ollama at {place} failed in the middle of an answer: {error}")
    if isinstance(error, ollama.ResponseError):
        if error.status_code == 404 and model and "model" in error.error:
            return model_missing(model, place)
        status = f" (HTTP {error.status_code})" if error.status_code > 0 else ""
        return GeneratorUnavailable(f"Ollama at {place} failed{status}: {error.error}")
    if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError | OSError):
        return GeneratorUnavailable(
            f"Ollama can't be reached at {place}; start it with `ollama serve`, or set OLLAMA_HOST. "
            f"({error.__context__ or error})"  # the client hides the system's words
        )
    return GeneratorUnavailable(
        f"What answers at {place} doesn't speak Ollama's protocol ({type(error).__name__}); "
        "check OLLAMA_HOST."
    )


def model_missing(model: str, place: str) -> GeneratorModelMissing:
    return GeneratorModelMissing(
        f"Ollama at {place} has no model {model}; get it with: ollama pull {model}"
    )
