"""Serving: gunicorn in the foreground, one worker process with threads.

The application is made in the worker, after the fork, because model engines that were used before a
fork hang after it; one process, because each would hold every model.
"""

import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from flask import Flask
from gunicorn import errors as failures
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.http import errors as refusals
from gunicorn.workers.gthread import ThreadWorker

from server.errors import ConfigurationError, TanyuanError
from server.settings import Settings
from server.web import logs
from server.web.problems import HTTP_CODES, MEDIA_TYPE, make_problem

# gunicorn's longest; a longer question is sent in a body.
LONGEST_REQUEST_LINE = 8190
# Until a worker that doesn't answer is replaced; loading large models from a slow disk takes minutes.
WORKER_TIMEOUT = 300
# What running requests get to end in after a stop was asked for; a second Ctrl-C stops at once.
GRACEFUL_TIMEOUT = 30


def serve(
    create_app: Callable[[Settings], Flask],
    settings: Settings,
    *,
    announce: Callable[[Flask, str], None],
) -> int:
    """Serve until SIGINT or SIGTERM; the process's exit status.

    The app carries its Services as ``app.extensions["tanyuan"]``. ``announce(app, url)`` is called in
    the worker, once, when the first request can be answered.
    Raises ConfigurationError where nothing can listen at the settings' host and port.
    """
    check_address(settings.host, settings.port)
    try:
        _Server(create_app, settings, announce).run()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 1
    return 0


def check_address(host: str, port: int) -> None:
    """Make sure that a server could listen here. Raises ConfigurationError.

    gunicorn would try for five seconds and then tell of it less clearly.
    """
    try:
        found = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigurationError(
            f"Can't listen at {url_of(host, port)}: {error.strerror}. Another program may be using "
            "the port: choose one with --port or TANYUAN_PORT (0: any that is free)."
        ) from error


def url_of(host: str, port: int) -> str:
    """The address as a browser takes it."""
    host = host.strip("[]")
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Threads, with refusals of malformed requests as problem documents like all others."""

    def init_signals(self) -> None:
        super().init_signals()
        # Ctrl-C reaches every process of the terminal; the arbiter tells the worker what to do.
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        ours = isinstance(exc, refusals.InvalidResponseHeader | refusals.InvalidResponseHeaderName)
        if ours or not isinstance(exc, refusals.ParseException):
            super().handle_error(req, client, addr, exc)
            return
        logs.request_id.set(logs.accept_request_id(None))  # the thread's last request had another
        self.log.info("Refused a request that is no HTTP: %r", exc)
        with suppress(OSError):  # the client is gone, and nobody else wants the answer
            client.sendall(_refusal(exc))


def _refusal(error: Exception) -> bytes:
    """The whole HTTP response to a request that can't be read as one."""
    status, detail = HTTPStatus.BAD_REQUEST, "The request is not well-formed HTTP."
    if isinstance(error, refusals.LimitRequestLine):
        status = HTTPStatus.REQUEST_URI_TOO_LONG
        detail = f"The URL is longer than {LONGEST_REQUEST_LINE} bytes; use POST with a JSON body."
    elif isinstance(error, refusals.LimitRequestHeaders):
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        detail = "The request's headers are too large."
    body = make_problem(status, HTTP_CODES[status], detail).model_dump_json().encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {MEDIA_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


class _Arbiter(Arbiter):  # type: ignore[misc]
    def handle_int(self) -> None:
        """Ctrl-C stops as SIGTERM does: running requests may end."""
        raise StopIteration


class _Server(BaseApplication):  # type: ignore[misc]
    """gunicorn, configured by our settings alone."""

    def __init__(
        self,
        create_app: Callable[[Settings], Flask],
        settings: Settings,
        announce: Callable[[Flask, str], None],
    ) -> None:
        self._create_app = create_app
        self._settings = settings
        self._announce = announce
        super().__init__()

    def load_config(self) -> None:
        settings = self._settings
        values = {
            "bind": url_of(settings.host, settings.port).removeprefix("http://"),
            "worker_class": _Worker,
            "workers": 1,
            "threads": settings.threads,
            "timeout": WORKER_TIMEOUT,
            "graceful_timeout": GRACEFUL_TIMEOUT,
            "limit_request_line": LONGEST_REQUEST_LINE,
            "loglevel": "debug" if settings.log_level.lower() == "debug" else "warning",
            "control_socket_disable": True,
            "proc_name": "tanyuan",
            "post_worker_init": self._started,
            "worker_exit": self._stopped,
        }
        for name, value in values.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Make the application, in the worker. A worker that can't is not started again."""
        logs.configure(self._settings.log_level)
        try:
            return self._create_app(self._settings)
        except TanyuanError as error:
            raise failures.AppImportError(f"Can't start: {error.message}") from error

    def _started(self, worker: ThreadWorker) -> None:
        if worker.age == 1:  # a replaced worker has nothing new to say
            port = worker.sockets[0].getsockname()[1]
            self._announce(worker.wsgi, url_of(self._settings.host, port))

    def _stopped(self, _: Arbiter, worker: ThreadWorker) -> None:
        if worker.booted:
            worker.wsgi.extensions["tanyuan"].close()

    def run(self) -> None:
        _Arbiter(self).run()
