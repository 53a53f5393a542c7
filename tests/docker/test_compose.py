"""``docker/compose.yaml`` against the Compose specification's schema, and for what it promises."""

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE = ROOT / "docker" / "compose.yaml"
DOCKERFILE = ROOT / "docker" / "Dockerfile"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text("utf-8"))


def test_it_follows_the_specification() -> None:
    """check-jsonschema carries the Compose specification's schema; nothing is downloaded."""
    checker = Path(sys.executable).with_name("check-jsonschema")
    command = [checker, "--builtin-schema", "vendor.compose-spec", COMPOSE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_service_starts_when_those_it_needs_are_healthy(compose: dict[str, Any]) -> None:
    needed = compose["services"]["server"]["depends_on"]
    assert needed.keys() == {"elasticsearch", "ollama"}
    for name, terms in needed.items():
        assert terms == {"condition": "service_healthy"}
        assert compose["services"][name]["healthcheck"]["test"]


def test_every_volume_and_network_that_is_used_is_declared(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert {volume.partition(":")[0] for volume in service["volumes"]} <= compose[
            "volumes"
        ].keys()
        assert set(service["networks"]) <= compose["networks"].keys()


def test_memory_is_limited_and_images_are_pinned(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["mem_limit"]
        if name != "server":
            assert re.search(r":\d+\.\d+\.\d+$", service["image"])


def test_elasticsearch_and_ollama_reach_nothing_and_are_reached_by_the_server_alone(
    compose: dict[str, Any],
) -> None:
    assert compose["networks"]["back"] == {"internal": True}
    for name in ("elasticsearch", "ollama"):
        assert compose["services"][name]["networks"] == ["back"]
        assert "ports" not in compose["services"][name]
    [published] = compose["services"]["server"]["ports"]
    assert published.startswith("${TANYUAN_PUBLISH:-127.0.0.1:")


def test_what_it_builds_is_there(compose: dict[str, Any]) -> None:
    build = compose["services"]["server"]["build"]
    assert (COMPOSE.parent / build["context"]).resolve() == ROOT
    assert ROOT / build["dockerfile"] == DOCKERFILE
    lines = DockerfileParser(fileobj=io.BytesIO(DOCKERFILE.read_bytes())).structure
    stages = {line["value"].split()[-1] for line in lines if line["instruction"] == "FROM"}
    assert {"light", "bge"} <= stages
    assert build["target"] == "${TANYUAN_VARIANT:-light}"
