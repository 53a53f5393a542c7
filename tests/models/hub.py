"""A server that speaks the model hub's protocol, with faults on demand."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "c" * 40
LARGE = (".safetensors", ".bin", "tokenizer.json", ".onnx")


@dataclass
class Hub:
    """``files`` by name. ``sent`` records (file, first byte asked for, status) of every download."""

    model: str
    files: dict[str, bytes]
    cut_after: dict[str, list[int]] = field(default_factory=dict)  # bytes of the next answers
    corrupt: dict[str, int] = field(default_factory=dict)  # how many answers are damaged
    stated_sizes: dict[str, int] = field(default_factory=dict)
    ranges: bool = True
    failures: list[int] = field(default_factory=list)  # statuses of the next downloads
    info_status: int = 200
    info_body: bytes | None = None
    sent: list[tuple[str, int, int]] = field(default_factory=list)
    url: str = ""

    def info(self) -> bytes:
        if self.info_body is not None:
            return self.info_body
        siblings = []
        for name, content in self.files.items():
            size = self.stated_sizes.get(name, len(content))
            sibling = {"rfilename": name, "size": size, "blobId": _blob_id(content)}
            if name.endswith(LARGE):
                sha256 = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": sha256, "size": size, "pointerSize": 134}
            siblings.append(sibling)
        return json.dumps({"id": self.model, "sha": COMMIT, "siblings": siblings}).encode()


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path == f"/api/models/{hub.model}/revision/main":
                self._answer(hub.info_status, hub.info())
            elif path.startswith(f"/{hub.model}/resolve/{COMMIT}/"):
                name = path.removeprefix(f"/{hub.model}/resolve/{COMMIT}/")
                if name.endswith(LARGE):  # the hub sends large files from another place
                    self.send_response(302)
                    self.send_header("Location", f"{hub.url}/cdn/{name}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                else:
                    self._send(name)
            elif path.startswith("/cdn/"):
                self._send(path.removeprefix("/cdn/"))
            else:
                self._answer(404, b"{}")

        def _send(self, name: str) -> None:
            content = hub.files[name]
            asked = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            if hub.failures:
                status = hub.failures.pop(0)
                hub.sent.append((name, asked, status))
                self._answer(status, b"")
                return
            if hub.corrupt.get(name, 0) > 0:
                hub.corrupt[name] -= 1
                content = bytes(len(content))
            status, start = (206, asked) if hub.ranges and asked else (200, 0)
            hub.sent.append((name, asked, status))
            body = content[start:]
            cuts = hub.cut_after.get(name)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: cuts.pop(0)] if cuts else body)
            if cuts is not None:
                self.close_connection = True

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that hangs up is part of the tests."""

    with Server(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
