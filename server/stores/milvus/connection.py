"""Connection: pymilvus's client, its time-outs and its errors."""

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from server.errors import StoreTimeout, StoreUnavailable
from server.stores.milvus.lite import Lite

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_T = TypeVar("_T")

SEARCH_SECONDS = 5.0
CHANGE_SECONDS = 60.0
_CONNECT_SECONDS = 2.0
_PROBE_AFTER = 1.0  # seconds since the server last answered
_REST_SECONDS = 2.0  # for which a server that is away is not asked again
_NOT_FOUND = 100
_DEFAULT_PORT = {"https": 443}


class Refused(StoreUnavailable):
    """Milvus answers, but not with what was asked for."""


class Lost(Refused):
    """Milvus has no such collection."""


class Connection:
    """Thread-safe. ``server``: what is connected to, a server's URI or the Milvus Lite of a folder.

    ``token``: of the server. pymilvus tries a server that is away again and again until the time-out of
    the call, so it is looked for first, with a short time-out; and after a failure not for a while.
    """

    def __init__(self, server: str | Lite, *, token: str = "") -> None:
        self._lite = server if isinstance(server, Lite) else None
        self._uri = "" if isinstance(server, Lite) else server
        self._token = token
        self._turn = threading.Lock()
        self._client: MilvusClient | None = None
        self._address = ""
        self._epoch = 0
        self._answered = self._failed = -1e9
        self._failure = ""
        self._closed = False

    @property
    def place(self) -> str:
        """What to tell people that they look at: no user, no password."""
        if self._lite is not None:
            return "Milvus Lite"
        parts = urlsplit(self._uri)
        return f"Milvus at {parts.hostname}:{_port(self._uri)}"

    def epoch(self) -> int:
        """Another number whenever the server may be another one than before, with other content."""
        self._connected()
        return self._epoch

    def ask(self, question: "Callable[[MilvusClient], _T]") -> _T:
        """Raises Lost, Refused, StoreTimeout, StoreUnavailable."""
        from grpc import FutureTimeoutError, RpcError  # noqa: PLC0415
        from pymilvus import MilvusException  # noqa: PLC0415

        client = self._connected()
        try:
            answer = question(client)
        except (MilvusException, RpcError, FutureTimeoutError, ValueError) as error:
            translated = self._translated(error)
            if not isinstance(translated, Refused):
                self._forget(translated.message)
            raise translated from error
        self._answered = time.monotonic()
        return answer

    def close(self) -> None:
        with self._turn:
            self._closed = True
            client, self._client = self._client, None
        if client is not None:
            client.close()
        if self._lite is not None:
            self._lite.close()

    def _connected(self) -> "MilvusClient":
        with self._turn:
            if self._closed:
                raise StoreUnavailable("The store is closed.")
            if self._client is None:
                _load()
            now = time.monotonic()
            if now < self._failed + _REST_SECONDS:
                raise StoreUnavailable(self._failure)
            address = self._uri if self._lite is None else self._lite.address()
            if self._lite is None and now > self._answered + _PROBE_AFTER:
                self._probe()
            if self._client is None or address != self._address:
                self._client, self._address = self._made(address), address
                self._epoch += 1
            return self._client

    def _made(self, address: str) -> "MilvusClient":
        from grpc import FutureTimeoutError, RpcError  # noqa: PLC0415
        from pymilvus import MilvusClient, MilvusException  # noqa: PLC0415

        # It logs each error with its traceback, and a server that is away at every try.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        try:
            return MilvusClient(
                uri=address, token=self._token, timeout=_CONNECT_SECONDS, dedicated=True
            )
        except (MilvusException, RpcError, FutureTimeoutError, ValueError) as error:
            translated = self._translated(error)
            self._note_failure(translated.message)
            raise translated from error

    def _probe(self) -> None:
        parts = urlsplit(self._uri)
        try:
            socket.create_connection(
                (parts.hostname or "localhost", _port(self._uri)), _CONNECT_SECONDS
            ).close()
        except OSError as error:
            self._client = None
            self._note_failure(
                f"{self.place} can't be reached ({error.strerror or error}). Start it, or set "
                "TANYUAN_MILVUS_URI."
            )
            raise StoreUnavailable(self._failure) from error

    def _forget(self, failure: str) -> None:
        """The next question is asked over a new connection: the server may be another one."""
        with self._turn:
            self._client = None
            self._answered = -1e9
            if self._lite is None:
                self._note_failure(failure)

    def _note_failure(self, failure: str) -> None:
        self._failed, self._failure = time.monotonic(), failure

    def _translated(self, error: Exception) -> StoreUnavailable:
        from grpc import StatusCode  # noqa: PLC0415

        code = getattr(error, "code", None)
        code = code() if callable(code) else code
        said = " ".join(str(getattr(error, "message", "") or error).split())[:300]
        if code == StatusCode.DEADLINE_EXCEEDED or "DEADLINE_EXCEEDED" in said:
            return StoreTimeout(f"{self.place} took too long to answer; try again.")
        if code == StatusCode.UNAUTHENTICATED or "auth check failure" in said:
            return StoreUnavailable(f"{self.place} refuses the token; set TANYUAN_MILVUS_TOKEN.")
        if code == _NOT_FOUND or "collection not found" in said or "can't find collection" in said:
            return Lost(f"{self.place} lacks a collection: {said}")
        if isinstance(code, int) and code not in {2}:  # 2: it can't connect
            return Refused(f"{self.place} fails: {said}")
        return StoreUnavailable(f"{self.place} can't be reached: {said}")


def _load() -> None:
    """Import pymilvus, which reads variables of its own, and refuses to be imported for some."""
    try:
        import pymilvus  # noqa: F401, PLC0415
    except Exception as error:  # its errors can't be imported then
        said = getattr(error, "message", "") or str(error)
        raise StoreUnavailable(
            f"pymilvus can't be loaded: {said}. It reads the variables MILVUS_…; unset them."
        ) from error


def _port(uri: str) -> int:
    parts = urlsplit(uri)
    return parts.port or _DEFAULT_PORT.get(parts.scheme, 19530)
