"""A proxy before a real Elasticsearch that loses, holds or answers the requests that a test names."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    body: str
    number: int  # 0 for the first that the current rule sees

    @property
    def writes(self) -> str:
        """What a bulk request writes to: "documents", "chunks", or "" for any other request."""
        if "/_bulk" not in self.path:
            return ""
        return "documents" if ".documents/" in self.path else "chunks"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that the proxy gives by itself, in the words of a server that can't be had here."""

    status: int
    error: Any


Action = Literal["pass", "lose request", "lose answer"] | Reply | threading.Event
Rule = Callable[[Request], Action]


def passing(_: Request) -> Action:
    return "pass"


@dataclass
class FaultProxy:
    """``rule`` decides on every request; an Event holds it until the event is set."""

    target: str
    url: str = ""
    rule: Rule = passing
    held: threading.Event = field(default_factory=threading.Event)
    seen: list[Request] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def use(self, rule: Rule) -> None:
        with self._lock:
            self.seen.clear()
            self.held.clear()
            self.rule = rule

    def decide(self, method: str, path: str, body: bytes) -> Action:
        with self._lock:
            request = Request(method, path, body.decode(), len(self.seen))
            self.seen.append(request)
            return self.rule(request)

    def forward(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Any:
        target = urlsplit(self.target)
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
        try:
            connection.request(method, path, body=body or None, headers=headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()


@contextmanager
def fault_proxy(target: str) -> Iterator[FaultProxy]:
    """A running proxy that lets everything pass until told otherwise."""
    proxy = FaultProxy(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65_537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            action = proxy.decide(self.command, self.path, body)
            if isinstance(action, threading.Event):
                proxy.held.set()
                action.wait(60)
            if action == "lose request":
                self.close_connection = True
                return
            if isinstance(action, Reply):
                content = json.dumps({"error": action.error, "status": action.status}).encode()
                found = (action.status, {"Content-Type": "application/json"}, content)
            else:
                found = proxy.forward(self.command, self.path, body, dict(self.headers.items()))
            if action == "lose answer":
                self.close_connection = True
                return
            self._answer(*found)

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response_only(status)
            for name in ("Content-Type", "content-type", "X-elastic-product"):
                if name in headers:
                    self.send_header(name, headers[name])
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
