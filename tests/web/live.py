"""A real server in a process of its own: gunicorn as scripts/run starts it, over the parts in fakes.

``python -m tests.web.live DATA SCRIPT`` serves at a free port and prints it.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flask import Flask

from server.settings import Settings
from server.web import logs
from server.web.application import build
from server.web.serving import serve
from tests.web.fakes import SCRIPTS, ScriptedGenerator, make_services

MAX_BODY = 2 * 1024 * 1024
RECORD = "generator.txt"
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Live:
    """A running server. ``log``: its stderr."""

    port: int
    data: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, raw: bytes, *, timeout: float = 30) -> tuple[int, bytes, bytes]:
        """Bytes over a socket as they are; status, head and body of what comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            connection.sendall(raw)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), head, body

    def log_lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().split("\n") if line[:1] == "{"]


@contextmanager
def live_server(data: Path, script: str = "answer") -> Iterator[Live]:
    log = data / "server.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.web.live", str(data), script],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line, log.read_text()
            yield Live(port=int(line), data=data, log=log)
        finally:
            process.terminate()
            process.wait(timeout=40)
            process.stdout.close()


def create_app(settings: Settings) -> Flask:
    logs.configure(settings.log_level)
    script = SCRIPTS[sys.argv[2]]
    generator = ScriptedGenerator(*script, record=settings.data / RECORD)
    return build(make_services(settings, generator=generator))


def announce(_: Flask, url: str) -> None:
    sys.stdout.write(f"{url.rpartition(':')[2]}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(
        serve(
            create_app,
            Settings(data=Path(sys.argv[1]), port=0, max_body=MAX_BODY),
            announce=announce,
        )
    )
