import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.models import weights

ROOT = Path(__file__).resolve().parents[2]


def model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


def test_a_model_is_found_by_its_folder_or_its_id(tmp_path: Path) -> None:
    folder = model(tmp_path / "models" / "BAAI" / "bge")
    assert weights.find("BAAI/bge", tmp_path / "models") == folder
    assert weights.find(str(folder), tmp_path) == folder
    assert weights.find("BAAI/other", tmp_path / "models") is None
    assert weights.find(str(tmp_path / "none"), tmp_path) is None
    assert weights.find("no id at all", tmp_path) is None


def test_a_folder_near_the_working_folder_or_home_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model(tmp_path / "bge")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights.find("./bge", tmp_path / "models") == Path("bge")
    assert weights.find("~/bge", tmp_path / "models") == tmp_path / "bge"


def test_the_hubs_own_cache_is_looked_into(tmp_path: Path) -> None:
    cache = tmp_path / "hub" / "models--BAAI--bge"
    folder = model(cache / "snapshots" / ("a" * 40))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("a" * 40)
    # The hub's library reads HF_HOME when it is imported, so a process of its own is needed.
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            "from pathlib import Path; from server.models import weights;"
            "print(weights.find('BAAI/bge', Path('none')))",
        ],
        cwd=ROOT,
        env=os.environ | {"HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str(folder)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_is_not_whole_is_not_found(tmp_path: Path, missing: str) -> None:
    folder = model(tmp_path / "BAAI" / "bge")
    (folder / missing).unlink()
    assert weights.find("BAAI/bge", tmp_path) is None


def test_shards_must_all_be_there(tmp_path: Path) -> None:
    folder = model(tmp_path / "bge")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "1", "b": "2"}}')
    (folder / "1").touch()
    assert not weights.is_whole(folder)
    (folder / "2").touch()
    assert weights.is_whole(folder)


def test_the_digest_follows_what_decides_and_nothing_else(tmp_path: Path) -> None:
    folder = model(tmp_path / "bge")
    first = weights.digest(folder)
    (folder / "README.md").write_text("changed")
    (folder / "pytorch_model.bin").write_text("not loaded beside safetensors")
    assert weights.digest(folder) == first
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        (folder / name).write_text('{"changed": 1}')
        assert weights.digest(folder) != first
        first = weights.digest(folder)


def test_a_file_that_is_no_json_object_counts_as_empty(tmp_path: Path) -> None:
    for content in (b"[1]", b"\xff", b"{", b""):
        (tmp_path / "config.json").write_bytes(content)
        assert weights.read_json(tmp_path / "config.json") == {}
    assert weights.read_json(tmp_path / "none.json") == {}
