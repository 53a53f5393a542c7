"""``scripts/test`` fails when a test was left out, and puts tests that need a server last."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def run(folder: Path, test: str) -> "subprocess.CompletedProcess[str]":
    (folder / "test_it.py").write_text(f"import pytest\n{test}\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.strictness", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "-c", "/dev/null", f"--rootdir={folder}", "-v", str(folder)],
        cwd=ROOT,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_passing_tests_pass(tmp_path: Path) -> None:
    assert run(tmp_path, "def test_a(): pass").returncode == 0


def test_no_test_at_all_fails(tmp_path: Path) -> None:
    assert run(tmp_path, "").returncode == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.mark.parametrize(
    "left_out",
    [
        "def test_b(): pytest.skip('no server')",
        "@pytest.mark.skip\ndef test_b(): pass",
        "@pytest.mark.xfail\ndef test_b(): assert False",
        "@pytest.mark.xfail\ndef test_b(): assert True",
        "@pytest.fixture\ndef server(): pytest.skip('none')\ndef test_b(server): pass",
    ],
)
def test_a_test_that_was_left_out_fails(tmp_path: Path, left_out: str) -> None:
    done = run(tmp_path, f"def test_a(): pass\n{left_out}")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "counts as failed here" in done.stdout
    assert "1 passed" in done.stdout.splitlines()[-1]


def test_tests_that_need_a_server_come_last(tmp_path: Path) -> None:
    service = tmp_path / "service.py"
    service.write_text(
        "import pytest\ndef server(): pass\nserver.__module__ = 'tests.services.some'\n"
        "server = pytest.fixture(server)\n"
    )
    done = run(
        tmp_path,
        "from service import server\ndef test_a(server): pass\ndef test_b(): pass\n"
        "class TestC:\n    def test_c(self): pass\n    def test_d(self, server): pass\n",
    )
    assert done.returncode == 0, done.stdout
    ran = [line.split("::")[-1].split()[0] for line in done.stdout.splitlines() if "PASSED" in line]
    assert ran == ["test_b", "test_c", "test_a", "test_d"]
