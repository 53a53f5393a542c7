"""A server that embeds, over HTTP: calls that are bounded in time and size, made again where that helps,
straight to the host that the settings name, and that tell no secret.

tenacity makes the calls again; a vendor's own client would serve one of the protocols, reads its own
variables of the environment, and bounds no call as a whole.
"""

import json
import os
import random
import re
import ssl
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TypeVar

import httpx
import tenacity

from server.errors import ConfigurationError, EmbedderUnavailable
from server.models.replies import (
    ATTEMPTS_TO_REACH,
    MAX_WORDS,
    Reply,
    Transient,
    words_of,
)

MAX_BYTES = 64 * 2**20  # of an answer
CONNECT_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 16.0  # seconds
_SECRET_QUERY = "tanyuan.secret_query"  # noqa: S105 - a name

T = TypeVar("T")
SecretQuery = Callable[[], Mapping[str, str]]


class Endpoint:
    """Thread-safe, before and after a fork. ``place`` is its address for people.

    ``setting`` names what ``url`` was set by, ``secrets`` are never repeated from what the server says.
    """

    def __init__(
        self,
        url: str,
        *,
        setting: str,
        headers: Mapping[str, str] | None = None,
        secrets: tuple[str, ...] = (),
        proxy: str = "",
    ) -> None:
        """Connects to nothing yet. Raises ConfigurationError."""
        self.setting = setting
        self._url = parse(url, setting)
        host = f"[{self._url.host}]" if ":" in self._url.host else self._url.host
        port = f":{self._url.port}" if self._url.port else ""
        self.place = f"{self._url.scheme}://{host}{port}"
        self._headers = dict(headers or {})
        self._secrets = {secret for secret in secrets if secret}
        self._proxy = proxy
        self._tls = ssl.create_default_context()
        self._clients: dict[int, httpx.Client] = {}  # by process: a child must not share sockets
        weakref.finalize(self, _close, self._clients)

    def call(
        self,
        path: str,
        body: object = None,
        *,
        seconds: float,
        read: Callable[[Reply], T],
        secret_query: SecretQuery = dict,
    ) -> T:
        """What ``read`` makes of the answer to a POST of ``body`` (a GET without one).

        ``seconds`` bound all attempts with the pauses between them; looking up the host's name alone
        is the system's. ``read`` raises Transient for an answer after which to try again.
        ``secret_query`` gives what goes into the address, anew at each attempt.
        Raises EmbedderUnavailable or one of its kinds.
        """
        deadline = time.monotonic() + seconds
        too_late = tenacity.stop_before_delay(seconds)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Transient),
            stop=lambda state: _tried_enough(state) or too_late(state),
            wait=_pause,
            reraise=True,
        )
        made: T = retrying(lambda: read(self._once(path, body, deadline, secret_query)))
        return made

    def keep_secret(self, secret: str) -> None:
        """Repeat this no more than what was secret from the beginning."""
        self._secrets = {*self._secrets, secret}

    def _once(self, path: str, body: object, deadline: float, secret_query: SecretQuery) -> Reply:
        extensions = {_SECRET_QUERY: dict(secret_query())}
        left = max(0.001, deadline - time.monotonic())
        content = bytearray()
        try:
            with self._client().stream(
                "GET" if body is None else "POST",
                f"{str(self._url).rstrip('/')}{path}",
                content=None if body is None else json.dumps(body).encode(),
                timeout=httpx.Timeout(left, connect=min(left, CONNECT_SECONDS)),
                extensions=extensions,
            ) as response:
                for part in response.iter_bytes():
                    content += part
                    if time.monotonic() > deadline:
                        raise httpx.ReadTimeout("the answer is too slow")
                    if len(content) > MAX_BYTES:
                        raise EmbedderUnavailable(
                            f"{self.place} gave an answer of more than {MAX_BYTES >> 20} MB."
                        )
        except httpx.TimeoutException as error:
            raise Transient(
                f"{self.place} did not answer in time; it may be busy, be loading a model, or be out of "
                "reach. TANYUAN_EMBEDDER_TIMEOUT sets how long to wait for passages, "
                "TANYUAN_SEARCH_TIMEOUT for a query.",
                attempts=ATTEMPTS_TO_REACH,
            ) from error
        except (httpx.TransportError, OSError) as error:
            raise Transient(
                f"{self.place} can't be reached, or broke off ({self._hide(str(error))}); see that it "
                f"runs, or set {self.setting}.",
                attempts=ATTEMPTS_TO_REACH,
            ) from error
        except httpx.DecodingError as error:
            raise Transient(f"{self.place} gave an answer that can't be unpacked.") from error
        return self._reply(response, bytes(content))

    def _reply(self, response: httpx.Response, content: bytes) -> Reply:
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            body = None
        if body is None and response.is_success:
            raise Transient(f"{self.place} gave an answer that is no whole JSON.")
        words = "" if body is None else words_of(body)
        return Reply(
            status=response.status_code,
            headers=response.headers,
            body=body,
            words=self._hide(words)[:MAX_WORDS],
        )

    def _hide(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())

    def _client(self) -> httpx.Client:
        client = self._clients.get(os.getpid())
        if client is None:
            # Proxies of the environment are not used: they would carry texts for a server here to
            # another host. TANYUAN_EMBEDDER_PROXY names one on purpose.
            transport = httpx.HTTPTransport(
                verify=self._tls, trust_env=False, proxy=self._proxy or None
            )
            client = self._clients.setdefault(
                os.getpid(),
                httpx.Client(
                    transport=_SecretQueries(transport),
                    headers={"Content-Type": "application/json", **self._headers},
                    follow_redirects=False,
                    trust_env=False,
                ),
            )
        return client


def _close(clients: Mapping[int, httpx.Client]) -> None:
    own = clients.get(os.getpid())
    if own is not None:
        own.close()


class _SecretQueries(httpx.BaseTransport):
    """Puts what is secret into the address below httpx, which logs the address of every request."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        secret = request.extensions.get(_SECRET_QUERY)
        if secret:
            request = httpx.Request(
                request.method,
                request.url.copy_merge_params(secret),
                headers=request.headers,
                stream=request.stream,
                extensions=request.extensions,
            )
        return self._inner.handle_request(request)

    def close(self) -> None:
        self._inner.close()


def parse(url: str, setting: str, *, credentials: bool = False) -> httpx.URL:
    """A server's address, with user and password only where ``credentials`` may be.

    Raises ConfigurationError, which doesn't repeat the address: it may hold a key.
    """
    try:
        parsed = httpx.URL(url.strip())
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"{setting} is no address: {error}") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ConfigurationError(f"{setting} must be an address such as https://host/v1.")
    if (parsed.userinfo and not credentials) or parsed.query or parsed.fragment:
        raise ConfigurationError(
            f"{setting} must be an address without user, password, query or fragment; a key has a "
            "setting of its own."
        )
    return parsed


def key_of(value: str, setting: str) -> str:
    """A key as it may stand in a header or address. Raises ConfigurationError, which doesn't show it."""
    key = value.strip()
    if not re.fullmatch(r"[\x21-\x7e]*", key):
        raise ConfigurationError(f"{setting} holds a character that no key has; set it again.")
    return key


def _error(state: tenacity.RetryCallState) -> Transient:
    error = state.outcome.exception() if state.outcome else None
    if not isinstance(error, Transient):
        raise TypeError("only a Transient error is tried again")
    return error


def _tried_enough(state: tenacity.RetryCallState) -> bool:
    return state.attempt_number >= _error(state).attempts


def _pause(state: tenacity.RetryCallState) -> float:
    """What the server asks for and up to a quarter of a second more; else twice as long each time, less
    up to a half by chance, so that callers don't come back together."""
    asked_for = _error(state).pause
    if asked_for is not None:
        return asked_for + random.random() / 4 if asked_for else 0.0  # noqa: S311 - no secret
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (state.attempt_number - 1))
    return longest * (1 + random.random()) / 2  # noqa: S311 - no secret
