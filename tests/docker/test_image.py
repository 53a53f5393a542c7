"""The Dockerfile's `light` target, carried out in a clean root folder, and its container's life."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.docker.image import Image, build, ignored

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKERFILE = ROOT / "docker" / "Dockerfile"
# No model is loaded and nothing is looked for, so that the container starts at once.
PLAIN = {"TANYUAN_EMBEDDER": "none", "TANYUAN_RERANKER": "none", "TANYUAN_GENERATOR": "none"}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("image")
    return build(DOCKERFILE, "light", context=ROOT, folder=folder)


@contextmanager
def container(image: Image, port: int) -> "Iterator[subprocess.Popen[str]]":
    process = image.start(environment=PLAIN | {"TANYUAN_PORT": str(port)})
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def healthy(image: Image, port: int) -> bool:
    return image.run(image.health, environment={"TANYUAN_PORT": str(port)})[0] == 0


def test_the_image_holds_what_is_needed_and_nothing_private(image: Image) -> None:
    held = {path.name for path in image.path("/app").iterdir()}
    assert {"server", "scripts", "es_mappings", ".venv"} <= held
    assert not held & {".git", "data", "tests", ".cache"}
    assert ignored(Path(".git/config"), DOCKERFILE)
    assert ignored(Path("data/store"), DOCKERFILE)
    assert ignored(Path("server/web/__pycache__/x.pyc"), DOCKERFILE)
    assert not ignored(Path("server/web/keys.py"), DOCKERFILE)


def test_the_light_image_has_no_torch(image: Image) -> None:
    assert not list(image.path("/app/.venv").glob("lib/*/site-packages/torch"))


def test_the_user_is_not_root_and_may_write_the_data_alone(image: Image) -> None:
    status, output = image.run(["sh", "-c", "id -u; touch /data/x && rm /data/x; touch /app/x"])
    assert status != 0
    assert output.startswith("10001\n")
    assert "/app/x" in output
    assert "/data/x" not in output


def test_it_serves_with_a_key_alone_and_stops_in_order(image: Image) -> None:
    status, output = image.run(image.command, environment=PLAIN)
    assert status == 2
    assert "scripts/keys create" in output

    make = ["scripts/keys", "create", "--name", "admin", "--role", "admin"]
    status, output = image.run(make, environment=PLAIN)
    assert status == 0, output
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert not healthy(image, port)
    with container(image, port) as process:
        deadline = time.monotonic() + 120
        while not healthy(image, port):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)  # the container's process 1, as an engine does
        assert process.wait(30) == 0
    assert not healthy(image, port)
