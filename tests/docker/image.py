"""Build and run a Dockerfile's target without a Docker engine, in a clean root folder.

Every instruction is carried out: COPY through the .dockerignore into the root, RUN and CMD by chroot in
namespaces of their own, under the image's environment, folder and user. What differs from an engine:
the base image is this system's own /usr, /lib and /etc, read-only, and the Python that runs the tests
(so the base must be a Python image, and its version is not checked); the network is the host's; uv's
cache is shared, so that nothing is downloaded twice. Needs root, or user namespaces with sub-ids.
"""

import fnmatch
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dockerfile_parse import DockerfileParser

_SYSTEM = ("usr", "bin", "sbin", "lib", "lib64", "etc")
_PREFIX = Path(sys.base_prefix)
_REGISTRY_VARIABLES = ("PIP_", "UV_", "SSL_", "REQUESTS_", "HTTP_", "HTTPS_", "NO_PROXY")


class BuildFailed(AssertionError):
    """An instruction can't be carried out."""


@dataclass
class Image:
    """A root folder with what an image's configuration holds."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)

    def path(self, inside: str) -> Path:
        """Where a path of the image lies; relative ones start at its folder."""
        return self.root / os.path.normpath(Path("/", self.workdir, inside))[1:]

    def start(
        self,
        command: Sequence[str] = (),
        *,
        environment: Mapping[str, str] | None = None,
        read_only: bool = True,
    ) -> "subprocess.Popen[str]":
        """Start a command (the image's own by default) with its output piped, its stderr in stdout.

        With ``read_only`` only volumes and /tmp can be written, as under `docker run --read-only`.
        """
        line = list(command) or self.command
        return subprocess.Popen(
            self._enter(line, environment or {}, read_only=read_only),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        read_only: bool = True,
        timeout: float = 300,
    ) -> tuple[int, str]:
        """Run a command to its end: status and output."""
        process = self.start(command, environment=environment, read_only=read_only)
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, output

    def _enter(
        self, command: Sequence[str], environment: Mapping[str, str], *, read_only: bool
    ) -> list[str]:
        root = shlex.quote(str(self.root))
        steps = ["set -e", f"mount --bind {root} {root}"]
        sources = [*(Path("/") / name for name in _SYSTEM), _PREFIX, Path("/dev")]
        for source in dict.fromkeys(sources):
            inside = self.root / source.relative_to("/")
            if source.is_symlink() and source.parent == Path("/"):
                if not inside.is_symlink():
                    inside.symlink_to(source.readlink())
            elif source.is_dir() and not source.parent.is_relative_to("/usr"):
                inside.mkdir(parents=True, exist_ok=True)
                steps.append(f"mount --rbind {source} {shlex.quote(str(inside))}")
                if source != Path("/dev"):
                    steps.append(f"mount -o remount,bind,ro {shlex.quote(str(inside))}")
        for name in ("proc", "tmp", "root"):
            (self.root / name).mkdir(exist_ok=True)
        steps += [f"mount -t proc proc {root}/proc", f"mount -t tmpfs -o mode=1777 tmp {root}/tmp"]
        if read_only:
            for volume in self.volumes:
                kept = shlex.quote(str(self.path(volume)))
                steps.append(f"mount --bind {kept} {kept}")
            steps.append(f"mount -o remount,bind,ro {root}")
        else:
            cache = _uv_cache()
            (self.root / "uv-cache").mkdir(exist_ok=True)
            steps.append(f"mount --bind {shlex.quote(str(cache))} {root}/uv-cache")
        variables = {
            "PATH": f"{_PREFIX}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": "/root",
            **self.environment,
            **environment,
        }
        inner = ["chroot", f"--userspec={self.user}", "--groups=", str(self.root), "env", "-i"]
        inner += [f"{key}={value}" for key, value in variables.items()]
        inner += ["sh", "-c", f'cd {shlex.quote(self.workdir)} && exec "$@"', "sh", *command]
        steps.append("exec " + shlex.join(inner))
        own = [] if os.geteuid() == 0 else ["--user", "--map-root-user", "--map-auto"]
        namespaces = ["--mount", "--pid", "--fork", "--kill-child=TERM", "--propagation", "private"]
        return ["unshare", *own, *namespaces, "sh", "-c", "\n".join(steps)]


def _uv_cache() -> Path:
    cache = Path(os.environ.get("UV_CACHE_DIR") or Path.home() / ".cache" / "uv")
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def build(dockerfile: Path, target: str, *, context: Path, folder: Path) -> Image:
    """Build a target, and the stages that it stands on, each in a root of its own in ``folder``.

    Raises BuildFailed naming the instruction.
    """
    stages = _stages(dockerfile)
    built: dict[str, Image] = {}

    def stage(name: str) -> Image:
        if name not in built:
            base, instructions = stages[name]
            image = Image(root=folder / name)
            if base in stages:
                image = _child(stage(base), image.root)
            else:
                image.root.mkdir(parents=True)
                image.root.chmod(0o755)
            for instruction, value in instructions:
                _carry_out(image, instruction, value, context, dockerfile, stage)
            built[name] = image
        return built[name]

    return stage(target)


def _stages(dockerfile: Path) -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Stage name → its base and its instructions."""
    stages: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    parser = DockerfileParser(fileobj=io.BytesIO(dockerfile.read_bytes()))
    for line in parser.structure:
        instruction, value = line["instruction"], line["value"]
        if instruction == "FROM":
            base, _, name = value.split()
            stages[name] = (base, [])
        elif instruction != "COMMENT":
            stages[name][1].append((instruction, value))
    return stages


def _child(base: Image, root: Path) -> Image:
    subprocess.run(["cp", "-a", str(base.root), str(root)], check=True)
    return Image(
        root=root,
        environment=dict(base.environment),
        workdir=base.workdir,
        user=base.user,
        command=base.command,
        health=base.health,
        volumes=list(base.volumes),
    )


def _carry_out(image, instruction, value, context, dockerfile, stage) -> None:
    match instruction:
        case "ENV":
            image.environment |= dict(part.split("=", 1) for part in shlex.split(value))
        case "WORKDIR":
            image.workdir = value
            image.path(value).mkdir(parents=True, exist_ok=True)
        case "RUN":
            registry = {
                key: text
                for key, text in os.environ.items()
                if key.upper().startswith(_REGISTRY_VARIABLES)
            }
            status, output = image.run(
                ["sh", "-c", value],
                environment=registry | {"UV_CACHE_DIR": "/uv-cache"},
                read_only=False,
            )
            if status:
                raise BuildFailed(f"RUN {value}: status {status}\n{output[-4000:]}")
        case "COPY":
            _copy(image, value, context, dockerfile, stage)
        case "USER":
            image.user = value
        case "VOLUME":
            image.volumes += value.split()
        case "CMD":
            image.command = json.loads(value)
        case "HEALTHCHECK":
            image.health = json.loads(value.partition("CMD ")[2])
        case "ARG" | "EXPOSE" | "STOPSIGNAL":
            pass  # nothing to do without an engine
        case _:
            raise BuildFailed(f"{instruction} is unknown here; teach tests/docker/image.py.")


def _copy(image: Image, value: str, context: Path, dockerfile: Path, stage) -> None:
    *sources, destination = value.split()
    origin = None
    if sources[0].startswith("--from="):
        origin = stage(sources.pop(0).removeprefix("--from="))
    target = image.path(destination)
    for source in sources:
        found = origin.path(source) if origin else context / source
        if not found.exists():
            raise BuildFailed(f"COPY {value}: there is no {source}")
        into = target / found.name if destination.endswith("/") else target
        into.parent.mkdir(parents=True, exist_ok=True)
        if origin:  # the other stage is done with it, so its files may be shared
            subprocess.run(["cp", "-al", str(found), str(into)], check=True)
            continue
        files = [found] if found.is_file() else sorted(p for p in found.rglob("*") if p.is_file())
        kept = [file for file in files if not ignored(file.relative_to(context), dockerfile)]
        if not kept:
            raise BuildFailed(f"COPY {value}: the .dockerignore leaves out all of {source}")
        for file in kept:
            place = into if found.is_file() else into / file.relative_to(found)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)


def ignored(path: Path, dockerfile: Path) -> bool:
    """Whether the .dockerignore beside the Dockerfile leaves the path out; the last match counts."""
    out = False
    for line in dockerfile.with_name(f"{dockerfile.name}.dockerignore").read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        positive = pattern.removeprefix("!")
        if any(_matches(part, positive) for part in (path, *path.parents[:-1])):
            out = not pattern.startswith("!")
    return out


def _matches(path: Path, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatchcase(path.name, pattern.removeprefix("**/"))
    parts, wanted = path.parts, pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))
