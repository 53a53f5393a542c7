"""A tiny checkout with the real ``scripts/environment.py``, installed from wheels on this machine."""

import base64
import hashlib
import os
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

_SETUP = """[metadata]
name = tiny
version = 1
[options]
py_modules = tiny
[options.extras_require]
more =
    setuptools>=77
"""
_BUILD = '[build-system]\nrequires = ["setuptools>=77"]\nbuild-backend = "setuptools.build_meta"\n'
_SCRIPT = """#!/usr/bin/env python3
import sys
from environment import enter
enter(*filter(None, sys.argv[1:2]))
import tiny
print(sys.prefix, tiny.VALUE, *sys.argv[1:], sep="|")
"""


class Checkout:
    """A checkout whose only script, ``scripts/hello [EXTRA [ARGUMENT...]]``, enters the environment.

    It prints the prefix that it runs in, a value of the installed package, and its arguments.
    """

    def __init__(self, folder: Path, wheels: Path) -> None:
        self.root = folder
        self.hello = folder / "scripts" / "hello"
        self.venv = folder / ".venv"
        self.hello.parent.mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "environment.py", self.hello.parent)
        self.hello.write_text(_SCRIPT)
        self.hello.chmod(0o755)
        (folder / "setup.cfg").write_text(_SETUP)
        (folder / "pyproject.toml").write_text(_BUILD)
        (folder / "constraints.txt").write_text("")
        (folder / "tiny.py").write_text("VALUE = 42\n")
        # No index is asked, so the test leaves the machine nowhere.
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheels),
            "UV_OFFLINE": "1",
            "UV_FIND_LINKS": str(wheels),
            "UV_CACHE_DIR": str(wheels / "cache"),
        }

    def start(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        script: Path | None = None,
    ) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [str(script or self.hello), *arguments],
            cwd="/",
            env=self.environment | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        script: Path | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        with self.start(*arguments, environment=environment, script=script) as process:
            output, errors = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def pack(name: str, folder: Path) -> Path:
    """The wheel of an installed distribution, made again from its files."""
    installed = distribution(name)
    wheel = installed.read_text("WHEEL") or ""
    tag = next(line.partition(": ")[2] for line in wheel.splitlines() if line.startswith("Tag: "))
    target = folder / f"{name}-{installed.version}-{tag}.whl"
    information = f"{name}-{installed.version}.dist-info"
    left_out = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
    record = []
    with zipfile.ZipFile(target, "w") as archive:
        for file in installed.files or ():
            path = Path(str(installed.locate_file(file)))
            if file.suffix == ".pyc" or file.name in left_out or not path.is_file():
                continue
            inside = str(file)
            if inside.startswith("../"):
                if file.parent.name != "bin":
                    continue
                inside = f"{name}-{installed.version}.data/scripts/{file.name}"
            content = path.read_bytes()
            entry = zipfile.ZipInfo(inside)
            entry.external_attr = path.stat().st_mode << 16
            archive.writestr(entry, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            record.append(f"{inside},sha256={digest.decode()},{len(content)}\n")
        record.append(f"{information}/RECORD,,\n")
        archive.writestr(f"{information}/RECORD", "".join(record))
    return target
