"""The product as its users start it: ``scripts/run`` in a process group of its own, and its scripts."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "scripts" / "sample"
START_SECONDS = 120

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def environment(data: Path, **settings: str) -> dict[str, str]:
    """This process's environment with these TANYUAN_ settings and none of its own.

    The models are those that every machine has: the packaged embedder, no reranker, no generator.
    """
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TANYUAN_") and name != "OLLAMA_HOST"
    }
    chosen = {"embedder": "e5", "reranker": "none", "generator": "none", **settings}
    chosen |= {"data": str(data), "log_level": "warning"}
    host = {"OLLAMA_HOST": chosen.pop("ollama_host")} if "ollama_host" in chosen else {}
    return own | host | {f"TANYUAN_{name.upper()}": value for name, value in chosen.items()}


def script(name: str, *arguments: str, data: Path, **settings: str) -> Any:
    """What a script prints with --json."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / name, *arguments, "--json"],
        env=environment(data, **settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@dataclass(frozen=True)
class Server:
    """A running server. ``said``: what scripts/run printed until it served."""

    url: str
    data: Path
    said: str
    process: "subprocess.Popen[str]"

    def call(self, path: str, body: object = None, *, method: str | None = None) -> Any:
        """The JSON that a call answers. Raises HTTPError, or OSError where no answer comes."""
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        with _direct.open(request, timeout=60) as response:
            return json.load(response)

    def fill(self, collection: str, **texts: str | dict[str, object]) -> None:
        """Make a collection of documents by id: their text, or all their fields."""
        self.call(f"/v1/collections/{collection}", {}, method="PUT")
        for document_id, given in texts.items():
            body = {"text": given} if isinstance(given, str) else given
            path = f"/v1/collections/{collection}/documents/{document_id}?refresh=true"
            self.call(path, body, method="PUT")

    def kill(self) -> None:
        """``kill -9`` of all its processes at once."""
        _kill(self.process)


@contextmanager
def serving(data: Path, *, port: int = 0, **settings: str) -> Iterator[Server]:
    """``scripts/run`` on a folder, ready to answer; port 0: any that is free."""
    data.mkdir(parents=True, exist_ok=True)
    log = data / "server.log"
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [ROOT / "scripts" / "run", "--light", "--no-sample", "--port", str(port)],
            env=environment(data, **settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    assert process.stdout
    try:
        said = process.stdout.readline()
        assert " at http" in said, said + log.read_text()
        server = Server(said.split(" at ")[1].split()[0], data, said, process)
        _await_models(server)
        yield server
    finally:
        _kill(process)  # a graceful stop would wait for endless answers
        process.stdout.close()


def _kill(process: "subprocess.Popen[str]") -> None:
    with suppress(ProcessLookupError):  # gone already
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _await_models(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with suppress(urllib.error.HTTPError):  # 503: not yet
            embedder = server.call("/readyz")["components"]["embedder"]
            if embedder["ready"] or embedder["name"] == "none":
                return
        assert time.monotonic() < deadline, "the models were not loaded in time"
        time.sleep(0.1)
