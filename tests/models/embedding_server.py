"""A server that speaks OpenAI's embeddings and Baidu's Embedding-V1 as documented, and misbehaves on demand.

Vectors are made of a text's characters and pairs of characters, so that texts that share some are alike.
"""

import base64
import json
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import NDArray

OPENAI_KEY = "sk-test-4f1c0a7e9d"
ERNIE_KEY, ERNIE_SECRET = "ak-test-55d0e1", "sk-test-a81b3c77"
EMBEDDING_V1 = "/rpc/2.0/ai_custom/v1/wenxinworkshop/embeddings/embedding-v1"


def vector(text: str, dimensions: int) -> NDArray[np.float32]:
    out = np.full(dimensions, 1e-3, np.float32)
    for part in [*text, *(a + b for a, b in pairwise(text))]:
        out[zlib.crc32(part.encode()) % dimensions] += 1
    return out / np.float32(np.linalg.norm(out))


@dataclass(frozen=True)
class Request:
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    at: float


@dataclass
class Answer:
    """What goes back: ``body`` is JSON unless it is bytes. ``cut``: bytes that are sent of it before the
    connection breaks. ``wait``: seconds before it; ``drip``: seconds before each byte."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    wait: float = 0.0
    drip: float = 0.0


Fault = Answer | Callable[[Answer], Answer]  # instead of the right answer, or made of it


class EmbeddingServer:
    """``faults`` are used up, one a call to an embedding, before calls are answered rightly again.

    ``tokens``: Baidu's access tokens that are valid. ``token_life``: what new ones are said to last.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.dimensions = 64
        self.max_tokens = 8192
        self.models = {"tiny", "text-embedding-3-small"}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.tokens: list[str] = []
        self.token_calls = 0
        self.token_life: float = 2_592_000
        self.as_base64 = False

    @property
    def embeddings(self) -> list[Request]:
        """The calls for embeddings."""
        return [request for request in self.requests if "embedding" in request.path]

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        if request.path == "/oauth/2.0/token":
            return self._token(request)
        if request.path == "/v1/embeddings":
            right = self._openai(request)
        elif request.path == EMBEDDING_V1:
            right = self._ernie(request)
        else:
            return Answer(404, {"error": {"message": f"Invalid URL (POST {request.path})"}})
        if not self.faults:
            return right
        fault = self.faults.pop(0)
        return fault if isinstance(fault, Answer) else fault(right)

    def _openai(self, request: Request) -> Answer:
        if request.headers.get("authorization") != f"Bearer {OPENAI_KEY}":
            said = f"Incorrect API key provided: {request.headers.get('authorization')}."
            return _openai_error(401, said, "invalid_api_key")
        body = request.body
        if body["model"] not in self.models:
            return _openai_error(
                404, f"The model `{body['model']}` does not exist", "model_not_found"
            )
        texts = body["input"]
        if not texts or len(texts) > 2048 or not all(texts):
            return _openai_error(400, "'$.input' is invalid.", None)
        longest = max(map(len, texts))
        if longest > self.max_tokens:
            return _openai_error(
                400,
                f"This model's maximum context length is {self.max_tokens} tokens, however you "
                f"requested {longest} tokens.",
                None,
            )
        rows = [vector(text, body.get("dimensions", self.dimensions)) for text in texts]
        spell = _base64 if self.as_base64 else list
        data = [
            {"object": "embedding", "index": index, "embedding": spell(row.tolist())}
            for index, row in enumerate(rows)
        ]
        return Answer(body={"object": "list", "data": data, "model": body["model"], "usage": {}})

    def _token(self, request: Request) -> Answer:
        self.token_calls += 1
        right = {
            "grant_type": "client_credentials",
            "client_id": ERNIE_KEY,
            "client_secret": ERNIE_SECRET,
        }
        if request.query != right:
            known = request.query.get("client_id") == ERNIE_KEY
            what = "Client authentication failed" if known else "unknown client id"
            return Answer(401, {"error": "invalid_client", "error_description": what})
        self.tokens.append(f"24.token-{self.token_calls}.2592000")
        return Answer(body={"access_token": self.tokens[-1], "expires_in": self.token_life})

    def _ernie(self, request: Request) -> Answer:
        if request.query.get("access_token") not in self.tokens:
            return ernie_error(110, "Access token invalid or no longer valid")
        texts = request.body["input"]
        if not texts or len(texts) > 16:
            return ernie_error(336003, "the length of input should be in [1, 16]")
        if not all(texts) or max(map(len, texts)) > 1000:
            return ernie_error(336003, "embeddings max characters per text is 1000")
        if max(len(re.findall(r"[a-z]+|[^\sa-z]", text, re.I)) for text in texts) > 384:
            return ernie_error(336003, "embeddings max tokens per batch size is 384")
        data = [
            {"object": "embedding", "index": index, "embedding": vector(text, 384).tolist()}
            for index, text in enumerate(texts)
        ]
        return Answer(body={"id": "as-1", "object": "embedding_list", "data": data, "usage": {}})


def ernie_error(code: int, message: str) -> Answer:
    """As Baidu says what is wrong: with status 200."""
    return Answer(body={"error_code": code, "error_msg": message})


def _openai_error(status: int, message: str, code: str | None) -> Answer:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return Answer(status, {"error": error})


def _base64(numbers: list[float]) -> str:
    return base64.b64encode(np.asarray(numbers, "<f4").tobytes()).decode()


@contextmanager
def serving() -> Iterator[EmbeddingServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            parts = urlsplit(self.path)
            content = self.rfile.read(int(self.headers["Content-Length"] or 0))
            request = Request(
                path=parts.path,
                query={name: value[0] for name, value in parse_qs(parts.query).items()},
                headers={name.lower(): value for name, value in self.headers.items()},
                body=json.loads(content or b"null"),
                at=time.monotonic(),
            )
            with lock:
                answer = server.answer(request)
            stopped.wait(answer.wait)
            body = (
                answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            )
            try:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                for byte in [body[: answer.cut]] if not answer.drip else map(bytes, zip(body)):
                    stopped.wait(answer.drip)
                    self.wfile.write(byte)
            except OSError:  # the caller gave up
                self.close_connection = True
            if answer.cut is not None:
                self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            pass

    lock, stopped = threading.Lock(), threading.Event()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    server = EmbeddingServer(f"http://127.0.0.1:{httpd.server_address[1]}")
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        stopped.set()
        httpd.shutdown()
        thread.join()
        httpd.server_close()
