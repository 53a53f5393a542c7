#!/usr/bin/env python3
"""The checkout's virtual environment: made, kept current, and entered.

Every script in this folder begins with it, before it imports anything that must be installed::

    from environment import enter

    enter()  # or enter("bge"), enter("test"): extras of setup.cfg that the script needs

    from server.settings import Settings  # noqa: E402

``enter`` returns at once where the script already runs in a current ``.venv``; else it makes or
renews ``.venv`` (telling of it on stderr) and starts the script again there, with the same arguments.
A script whose ``--help`` should answer before anything is installed parses its arguments first.

Standard library only, and the syntax of older Pythons, so that any Python 3 gets as far as a message
that says what is wrong. ``python scripts/environment.py [EXTRA...]`` only makes the environment.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
UV_VERSION = "0.13.9"
OLDEST_PYTHON = (3, 11)
EXIT_NOT_SET_UP = 3

# Whatever decides which packages are installed; a change of any of them renews the environment.
INPUTS = ("setup.cfg", "pyproject.toml", "constraints.txt")

# uv reads none of pip's settings, so a mirror that pip was told of is passed on (pip config -> uv).
PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}


class SetupFailed(Exception):
    """The environment can't be made; the message says what to do."""


def enter(*extras: str) -> None:
    """Make sure that the caller runs in a current ``.venv`` with these extras installed.

    Either returns, or replaces the process by the same script under ``.venv/bin/python``, or leaves
    with status 3 and a message on stderr. Extras that are installed already stay installed.
    """
    try:
        ensure(*extras)
    except SetupFailed as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(EXIT_NOT_SET_UP)
    except KeyboardInterrupt:
        sys.exit(130)
    if Path(sys.prefix).resolve() == VENV.resolve():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    command = getattr(sys, "orig_argv", [sys.executable, *sys.argv])  # orig_argv came with 3.10
    os.execv(PYTHON, [str(PYTHON), *command[1:]])


def ensure(*extras: str) -> Path:
    """Make or renew ``.venv`` where needed; the path of its Python.

    Takes milliseconds when nothing changed. Safe when several processes start at once (one works, the
    others wait), and after being killed at any point. Raises SetupFailed.
    """
    if not _is_current(extras):
        with _one_at_a_time():
            if not _is_current(extras):
                _install(extras)
    return PYTHON


def _is_current(extras: tuple[str, ...]) -> bool:
    stamp = _read_stamp()
    return stamp.get("state") == _state() and set(extras) <= set(stamp["extras"])


def _state() -> dict[str, str]:
    """What a current environment was made from. A moved checkout and a replaced interpreter count."""
    inputs = hashlib.sha256()
    for name in INPUTS:
        inputs.update((ROOT / name).read_bytes() + b"\0")
    return {
        "inputs": inputs.hexdigest(),
        "root": str(ROOT),
        "interpreter": os.path.realpath(PYTHON),
        "uv": UV_VERSION,
    }


def _stamp_file() -> Path:
    return VENV / "tanyuan.json"


def _read_stamp() -> dict:
    """The stamp of the last finished installation; empty where there is none to rely on."""
    try:
        stamp = json.loads(_stamp_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    usable = PYTHON.exists() and (VENV / "pyvenv.cfg").exists()
    return stamp if usable and isinstance(stamp, dict) and "extras" in stamp else {}


def _write_stamp(stamp: dict) -> None:
    new = _stamp_file().with_suffix(".new")
    new.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    new.replace(_stamp_file())


@contextmanager
def _one_at_a_time():
    """Hold the checkout's lock, which the system drops when its holder dies."""
    with Path(__file__).resolve().open(encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _tell("Waiting for another set-up of this checkout to finish.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _install(extras: tuple[str, ...]) -> None:
    """Install the checkout, editable, with the given extras and those that it has already."""
    previous = _read_stamp()
    wanted = sorted({*extras, *previous.get("extras", ())})
    what = " with " + ", ".join(wanted) if wanted else ""
    _tell(f"Setting up {VENV}{what}; the first time takes up to a few minutes.")
    started = time.monotonic()
    _make_venv()
    # An installation that was cut short may have left half a package that looks whole.
    interrupted = previous.get("state") == "installing"
    _write_stamp({"state": "installing", "extras": previous.get("extras", [])})
    command = [VENV / "bin" / "uv", "pip", "install", "--python", PYTHON, "--compile-bytecode"]
    command += ["--constraints", ROOT / "constraints.txt"]
    command += ["--build-constraints", ROOT / "constraints.txt"]
    if interrupted:
        command.append("--reinstall")
    target = f"{ROOT}[{','.join(wanted)}]" if wanted else str(ROOT)
    _run([*command, "--editable", target], "install the packages", _uv_environment())
    _write_stamp({"state": _state(), "extras": wanted})
    _tell(f"Set up in {time.monotonic() - started:.0f} s.")


def _make_venv() -> None:
    """Bring ``.venv`` to hold a working Python and the pinned uv; leaves a working one as it is."""
    if not _succeeds(PYTHON, "-m", "pip", "--version"):
        _run([_interpreter(), "-m", "venv", "--clear", VENV], "make the virtual environment")
    if _output(VENV / "bin" / "uv", "--version").split()[1:2] != [UV_VERSION]:
        pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--force-reinstall", f"uv=={UV_VERSION}"], "install uv")


def _interpreter() -> str:
    """A Python that is new enough: the running one, else a newer one on PATH."""
    if sys.version_info >= OLDEST_PYTHON:
        return sys.executable
    for minor in range(14, OLDEST_PYTHON[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found:
            return found
    oldest = ".".join(map(str, OLDEST_PYTHON))
    raise SetupFailed(
        f"Python {oldest} or newer is needed, and this is {sys.version.split()[0]}. "
        f"Install one (on Debian and Ubuntu: apt-get install python{oldest}-venv) and run again."
    )


def _uv_environment() -> dict[str, str]:
    """The environment for uv, with pip's registry settings unless uv has its own."""
    environment = dict(os.environ)
    for line in _output(PYTHON, "-m", "pip", "config", "list").splitlines():
        key, _, value = line.partition("=")
        name = PIP_TO_UV.get(key.rpartition(".")[2])
        if name:
            environment.setdefault(name, " ".join(value.strip("'\"").replace("\\n", " ").split()))
    return environment


def _run(command: list, purpose: str, environment: dict[str, str] | None = None) -> None:
    """Run a command with its output on stderr. Raises SetupFailed."""
    line = [str(part) for part in command]
    try:
        # stdout is the script's own: another program may be reading it.
        subprocess.run(
            line, check=True, stdout=sys.stderr, env=environment, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise SetupFailed(f"Can't {purpose}: {error}") from error
    except subprocess.CalledProcessError as error:
        raise SetupFailed(
            f"Can't {purpose}: {Path(line[0]).name} left with status {error.returncode}; its messages "
            "stand above. Where the package registry can't be reached, check the network and the "
            "proxy, or name a mirror in PIP_INDEX_URL. Run again to go on: downloads are kept."
        ) from error


def _succeeds(*command: object) -> bool:
    return _output(*command) != ""


def _output(*command: object) -> str:
    """What a command prints; empty where it fails or doesn't exist."""
    try:
        done = subprocess.run(
            [str(part) for part in command], check=False, capture_output=True, text=True
        )
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        ensure(*sys.argv[1:])
    except SetupFailed as failure:
        print(failure, file=sys.stderr)
        sys.exit(EXIT_NOT_SET_UP)
