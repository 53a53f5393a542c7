"""scripts/index_documents as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    own = {
        "TANYUAN_DATA": str(tmp_path / "data"),
        "TANYUAN_EMBEDDER": "none",
        "TANYUAN_RERANKER": "none",
        "TANYUAN_GENERATOR": "none",
    }
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TANYUAN_")}
    return kept | own


def command(*arguments: object) -> list[str]:
    script = ROOT / "scripts" / "index_documents"
    return [sys.executable, str(script), *(str(argument) for argument in arguments)]


def run(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def corpus(folder: Path, size: int) -> Path:
    file = folder / "corpus.jsonl"
    lines = ({"_id": str(n), "title": f"第{n}条", "text": "员工请假。"} for n in range(size))
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_index_and_index_again(tmp_path: Path, environment: dict[str, str]) -> None:
    file = corpus(tmp_path, 100)
    first = run(environment, file, "--collection", "c")
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""  # no bar where there is no terminal
    assert "Indexed 100 documents (100 chunks) into c" in first.stdout
    second = run(environment, file, "--collection", "c", "--json")
    assert second.returncode == 0, second.stderr
    report = json.loads(second.stdout)
    assert (report["indexed"], report["unchanged"], report["failed"]) == (0, 100, [])


def test_failures_are_listed(tmp_path: Path, environment: dict[str, str]) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text('{"id": "a", "text": "x"}\n{"id": "b", "text": 1}\n')
    (tmp_path / "x.pdf").write_bytes(b"%PDF")
    done = run(environment, tmp_path, "--collection", "c", "--acl", "hr, boss")
    assert done.returncode == 1, done.stderr
    assert "Failed: b (some.jsonl, line 2): 'text' must be a string." in done.stdout
    assert "1 .pdf" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("missing", "--collection", "c"),
        (".", "--collection", "Bad Name"),
        (".", "--acl", ",,"),
        (".", "--batch", "0"),
        (".", "--store", "none"),
    ],
)
def test_wrong_use(environment: dict[str, str], tmp_path: Path, arguments: tuple[str, ...]) -> None:
    path = tmp_path / arguments[0]
    done = run(environment, path, *arguments[1:])
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(("index_documents:", "usage:"))


def test_an_interrupt_ends_with_a_summary_and_can_be_resumed(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    file = corpus(tmp_path, 20_000)
    with subprocess.Popen(
        command(file, "--collection", "c", "--batch", 8, "--json"),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        collections = tmp_path / "data" / "store" / "collections"
        deadline = time.monotonic() + 60
        while not any(collections.glob("c*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Stopping after this batch" in err
    assert "Traceback" not in err
    first = json.loads(out)
    assert first["stopped"] == "interrupted by SIGINT"
    assert 0 < first["indexed"] < 20_000
    resumed = run(environment, file, "--collection", "c", "--limit", first["indexed"] + 5, "--json")
    report = json.loads(resumed.stdout)
    assert (report["indexed"], report["unchanged"]) == (5, first["indexed"])
