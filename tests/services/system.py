"""What the machine must have for the tests' servers: commands and JDKs, found or installed."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

# Where Linux distributions, SDKMAN!, hand-made installations and macOS put JDKs.
_JDK_FOLDERS = (
    ("/usr/lib/jvm", "*"),
    ("~/.sdkman/candidates/java", "*"),
    ("/opt", "*jdk*"),
    ("/Library/Java/JavaVirtualMachines", "*/Contents/Home"),
)


class MissingTool(RuntimeError):
    """A command that the tests need is not there; the message names how to get it."""


def cache_folder() -> Path:
    """Where built and downloaded servers are kept between test sessions."""
    configured = os.environ.get("TANYUAN_TEST_CACHE")
    if configured:
        return Path(configured).expanduser().absolute()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser().absolute() / "tanyuan-test"


def need_command(name: str, *, packages: Sequence[str] = ()) -> Path:
    """The command's path, installed first where it is missing.

    ``packages``: Debian packages that hold it, the first that can be had is taken.
    Raises MissingTool naming the command to run.
    """
    found = shutil.which(name)
    if found is None:
        install(packages or (name,), wanted=f"the command {name}")
        found = shutil.which(name)
    if found is None:
        raise MissingTool(f"The tests need the command {name}; install it and run them again.")
    return Path(found)


def need_jdk(least: int, most: int) -> Path:
    """A JDK's folder, of the lowest major version from ``least`` to ``most``, installed if missing.

    Raises MissingTool.
    """
    found = _jdks(least, most)
    if not found:
        versions = [*range(least, min(most, 25) + 1)]
        install(
            [f"openjdk-{v}-jdk-headless" for v in versions]
            + [f"temurin-{v}-jdk" for v in versions],
            wanted=f"a JDK of version {least} to {most}",
        )
        found = _jdks(least, most)
    if not found:
        raise MissingTool(
            f"The tests need a JDK of version {least} to {most}; install one under /usr/lib/jvm, or "
            "set JAVA_HOME to it, and run them again."
        )
    return found[0]


def _jdks(least: int, most: int) -> list[Path]:
    """JDKs (with a compiler) of these major versions, lowest version first."""
    places = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    for folder, pattern in _JDK_FOLDERS:
        places += sorted(Path(folder).expanduser().glob(pattern))
    versions: dict[Path, int] = {}
    for place in places:
        release = place / "release"
        if not (place / "bin/javac").exists() or not release.is_file():
            continue
        version = re.search(r'^JAVA_VERSION="(\d+)', release.read_text("utf-8"), re.MULTILINE)
        if version and least <= int(version[1]) <= most:
            versions[place.resolve()] = int(version[1])
    return sorted(versions, key=lambda place: (versions[place], str(place)))


def install(packages: Sequence[str], *, wanted: str) -> None:
    """Install the first of the Debian packages that can be had.

    Raises MissingTool naming the command where this process may not, or none can be had.
    """
    advice = f"The tests need {wanted}; get it with: apt-get install {packages[0]}"
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise MissingTool(f"{advice} (as root), or your system's equivalent, and run them again.")
    _update()
    for package in packages:
        policy = _apt("apt-cache", "policy", package).stdout
        if re.search(r"Candidate: (?!\(none\))", policy):
            done = _apt(
                "apt-get",
                "-o",
                "DPkg::Lock::Timeout=300",  # another installation may be running
                "install",
                "-y",
                "--no-install-recommends",
                package,
            )
            if done.returncode == 0:
                return
            raise MissingTool(f"{advice}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    raise MissingTool(f"{advice}. None of {', '.join(packages)} is in this system's packages.")


@cache
def _update() -> None:
    """Refresh the package lists once a session."""
    _apt("apt-get", "update")


def _apt(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=900, check=False
    )
