"""``scripts/environment.py``: makes .venv once, keeps it current, survives faults, tells what is wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.scripts.checkouts import Checkout, pack


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for name in ("uv", "setuptools"):
        pack(name, folder)
    return folder


@pytest.fixture(scope="module")
def first_starts(
    tmp_path_factory: pytest.TempPathFactory, wheels: Path
) -> tuple[Checkout, list[tuple[int, str, str]]]:
    """A checkout started twice at once, and what came of both starts."""
    checkout = Checkout(tmp_path_factory.mktemp("made") / "checkout", wheels)
    both = [checkout.start() for _ in range(2)]
    ended = [process.communicate(timeout=240) for process in both]
    return checkout, [(p.returncode, *texts) for p, texts in zip(both, ended, strict=True)]


@pytest.fixture(scope="module")
def made(first_starts: tuple[Checkout, object]) -> Checkout:
    """A checkout with its environment made; every test leaves it working, which is what it tests."""
    return first_starts[0]


def test_two_at_once_set_up_once(first_starts: tuple[Checkout, list[tuple[int, str, str]]]) -> None:
    checkout, ended = first_starts
    assert [(status, output) for status, output, _ in ended] == [(0, f"{checkout.venv}|42\n")] * 2
    assert sum("Setting up" in errors for _, _, errors in ended) == 1


def test_a_script_runs_in_the_environment_with_its_arguments(made: Checkout) -> None:
    done = made.run("", "a b", "--flag", "中文")
    assert done.stdout == f"{made.venv}|42||a b|--flag|中文\n"


def test_a_second_start_is_silent_and_takes_well_under_a_second(made: Checkout) -> None:
    times = []
    for _ in range(3):
        started = time.perf_counter()
        done = made.run()
        times.append(time.perf_counter() - started)
        assert (done.returncode, done.stderr) == (0, "")
    assert min(times) < 1


def test_a_script_works_through_a_symbolic_link(made: Checkout, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere"
    link.symlink_to(made.hello)
    assert made.run(script=link).stdout == f"{made.venv}|42\n"


def test_inside_the_environment_nothing_is_started_again(made: Checkout) -> None:
    done = subprocess.run(
        [made.venv / "bin" / "python", made.hello], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == (f"{made.venv}|42\n", "")


def test_a_missing_extra_is_added_and_stays(made: Checkout) -> None:
    [packages] = made.venv.glob("lib/*/site-packages")
    assert not list(packages.glob("setuptools-[89]*.dist-info"))
    assert "with more" in made.run("more").stderr
    assert list(packages.glob("setuptools-[89]*.dist-info"))
    assert made.run().stderr == ""
    (made.root / "constraints.txt").write_text("# changed\n")
    assert "with more" in made.run().stderr


@pytest.mark.parametrize("name", ["setup.cfg", "pyproject.toml", "constraints.txt"])
def test_a_change_of_what_decides_the_packages_renews(made: Checkout, name: str) -> None:
    with (made.root / name).open("a") as file:
        file.write("\n# changed\n")
    done = made.run()
    assert done.returncode == 0
    assert "Setting up" in done.stderr
    assert made.run().stderr == ""


def test_a_moved_checkout_is_set_up_again(made: Checkout) -> None:
    moved = made.root.with_name("moved")
    made.root.rename(moved)
    done = made.run(script=moved / "scripts" / "hello")
    assert done.stdout == f"{moved / '.venv'}|42\n"
    moved.rename(made.root)
    assert made.run().stdout == f"{made.venv}|42\n"


def test_cut_off_by_faults_and_kills_the_next_start_goes_on(wheels: Path, tmp_path: Path) -> None:
    fresh = Checkout(tmp_path / "checkout", wheels)
    nowhere = {"PIP_FIND_LINKS": str(tmp_path), "UV_FIND_LINKS": str(tmp_path)}
    process = fresh.start()
    time.sleep(1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    failed = fresh.run(environment=nowhere)
    assert (failed.returncode, failed.stdout) == (3, "")
    assert "Can't install uv" in failed.stderr
    assert "PIP_INDEX_URL" in failed.stderr
    assert "Traceback" not in failed.stderr

    process = fresh.start()
    time.sleep(2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = fresh.run()
    assert (done.returncode, done.stdout) == (0, f"{fresh.venv}|42\n"), done.stderr


def test_half_a_package_left_by_a_killed_installation_is_mended(made: Checkout) -> None:
    assert made.run("more").returncode == 0
    [package] = made.venv.glob("lib/*/site-packages/setuptools")
    shutil.rmtree(package)
    stamp = made.venv / "tanyuan.json"
    stamp.write_text(json.dumps({"state": "installing", "extras": ["more"]}))
    assert made.run().returncode == 0
    assert (package / "__init__.py").is_file()


@pytest.mark.parametrize("content", ["", "null", '{"state": 1}'])
def test_a_broken_stamp_counts_as_none(made: Checkout, content: str) -> None:
    (made.venv / "tanyuan.json").write_text(content)
    done = made.run()
    assert (done.returncode, done.stdout) == (0, f"{made.venv}|42\n"), done.stderr


def test_an_interpreter_that_is_gone_is_replaced(made: Checkout) -> None:
    for name in ("python", "python3", Path(sys.executable).resolve().name):
        link = made.venv / "bin" / name
        link.unlink(missing_ok=True)
        link.symlink_to("/nowhere/python3")
    assert made.run().stdout == f"{made.venv}|42\n"


def test_pips_mirror_is_passed_to_uv(made: Checkout) -> None:
    configuration = made.root / "setup.cfg"
    before = configuration.read_text()
    mirror = "http://127.0.0.1:9/mirror/simple"
    configuration.write_text(before.replace("py_modules", "install_requires = nowhere\npy_modules"))
    environment = {"UV_OFFLINE": "0", "UV_HTTP_RETRIES": "0", "PIP_INDEX_URL": mirror}
    done = made.run(environment=environment)
    assert done.returncode == 3
    assert "127.0.0.1:9/mirror" in done.stderr, done.stderr
    configuration.write_text(before)
    assert made.run().returncode == 0
