import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from server.errors import InvalidInput, ModelUnavailable
from server.models import fetch as fetching
from server.models.fetch import Fetched, fetch
from server.models.weights import find
from tests.models.hub import COMMIT, Hub, serve

MODEL = "BAAI/bge-tiny-zh"
WEIGHTS = random.Random(5).randbytes(3_000_000)
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "fetch_models"


@pytest.fixture
def hub() -> Iterator[Hub]:
    files = {
        "README.md": b"# a model",
        "config.json": b'{"hidden_size": 32}',
        "1_Pooling/config.json": b"{}",
        "2_Dense/config.json": b"{}",
        "2_Dense/model.safetensors": b"a layer",
        "2_Dense/pytorch_model.bin": b"the same once more",
        "3_Dense/pytorch_model.bin": b"another layer",
        "modules.json": b"[]",
        "tokenizer.json": b"{}" * 1000,
        "vocab.txt": "差\n旅".encode(),
        "model.safetensors": WEIGHTS,
        "pytorch_model.bin": b"the same once more",
        "onnx/model.onnx": b"and once more",
        "../outside": b"no",
    }
    with serve(Hub(MODEL, files)) as running:
        yield running


def get(hub: Hub, folder: Path) -> Fetched:
    return fetch(MODEL, folder, endpoint=hub.url, pause=0.01)


def test_brings_what_loading_needs_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    fetched = get(hub, tmp_path)
    names = {str(path.relative_to(fetched.folder)) for path in fetched.folder.rglob("*.*")}
    wanted = {"config.json", "1_Pooling/config.json", "tokenizer.json", "vocab.txt"}
    wanted |= {"modules.json", "2_Dense/config.json", "2_Dense/model.safetensors"}
    wanted.add("3_Dense/pytorch_model.bin")
    assert names - {".fetch.lock"} == wanted | {"model.safetensors"}
    assert (fetched.folder / "model.safetensors").read_bytes() == WEIGHTS
    assert fetched.revision == COMMIT
    assert fetched.downloaded == sum(file.size for file in fetched.files)
    assert hub.sent[-1][0] == "model.safetensors"  # a folder with weights is whole
    assert find(MODEL, tmp_path) == fetched.folder


def test_brings_the_head_of_sparse_weights_too(hub: Hub, tmp_path: Path) -> None:
    hub.files |= {
        "sparse_linear.pt": b"a head",
        "colbert_linear.pt": b"another, which nobody reads",
    }
    fetched = get(hub, tmp_path)
    assert (fetched.folder / "sparse_linear.pt").read_bytes() == b"a head"
    assert not (fetched.folder / "colbert_linear.pt").exists()


def test_a_second_run_downloads_nothing(hub: Hub, tmp_path: Path) -> None:
    get(hub, tmp_path)
    hub.sent.clear()
    assert get(hub, tmp_path).downloaded == 0
    assert hub.sent == []


def test_a_changed_or_damaged_file_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    folder = get(hub, tmp_path).folder
    (folder / "model.safetensors").write_bytes(bytes(len(WEIGHTS)))
    (folder / "config.json").write_bytes(b'{"hidden_size": 33}')
    hub.sent.clear()
    get(hub, tmp_path)
    assert [name for name, _, _ in hub.sent] == ["config.json", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_an_interrupted_download_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after["model.safetensors"] = [1_000_000, 500_000]
    fetched = get(hub, tmp_path)
    starts = [start for name, start, _ in hub.sent if name == "model.safetensors"]
    assert starts == [0, 1_000_000, 1_500_000]
    assert (fetched.folder / "model.safetensors").read_bytes() == WEIGHTS
    assert fetched.downloaded == sum(file.size for file in fetched.files)


def test_another_process_goes_on_where_one_gave_up(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after["model.safetensors"] = [300_000, *[0] * fetching.ATTEMPTS]
    with pytest.raises(ModelUnavailable, match="goes on where it stopped"):
        get(hub, tmp_path)
    assert find(MODEL, tmp_path) is None
    hub.sent.clear()
    hub.cut_after.clear()
    get(hub, tmp_path)
    assert hub.sent == [("model.safetensors", 300_000, 206)]


def test_a_server_without_ranges_starts_over(hub: Hub, tmp_path: Path) -> None:
    hub.ranges = False
    hub.cut_after["model.safetensors"] = [1_000_000]
    assert (get(hub, tmp_path).folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_passing_failure_is_tried_again(hub: Hub, tmp_path: Path) -> None:
    hub.failures = [503, 429]
    assert get(hub, tmp_path).downloaded > len(WEIGHTS)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_wrong_checksum_is_refused(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.corrupt[name] = 100
    with pytest.raises(ModelUnavailable, match="checksum"):
        get(hub, tmp_path)
    assert not (tmp_path / MODEL / name).exists()
    assert len([sent for sent in hub.sent if sent[0] == name]) == 2
    hub.corrupt[name] = 1  # damaged once on the way: fetched again
    get(hub, tmp_path)
    assert find(MODEL, tmp_path)


def test_more_bytes_than_stated_are_refused(hub: Hub, tmp_path: Path) -> None:
    hub.stated_sizes["model.safetensors"] = 1000
    with pytest.raises(ModelUnavailable, match="could not be fetched"):
        get(hub, tmp_path)
    assert find(MODEL, tmp_path) is None


def test_a_full_disk_is_told_before_anything_is_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.stated_sizes["model.safetensors"] = 10**15
    with pytest.raises(ModelUnavailable, match="TANYUAN_MODELS"):
        get(hub, tmp_path)
    assert hub.sent == []


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_model_that_is_not_there_or_not_open_is_named(
    hub: Hub, tmp_path: Path, status: int
) -> None:
    hub.info_status = status
    with pytest.raises(ModelUnavailable, match=f"{MODEL} .status {status}"):
        get(hub, tmp_path)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"sha": "c", "siblings": [{"rfilename": "config.json", "size": 1}]}',
    ],
)
def test_an_answer_that_is_not_a_hubs_is_named(hub: Hub, tmp_path: Path, body: bytes) -> None:
    hub.info_body = body
    with pytest.raises(ModelUnavailable, match="hub"):
        get(hub, tmp_path)


def test_a_model_without_weights_is_named(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"], hub.files["pytorch_model.bin"]
    with pytest.raises(ModelUnavailable, match="no weights"):
        get(hub, tmp_path)


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_sharded_weights_come_whole(hub: Hub, tmp_path: Path, ending: str) -> None:
    del hub.files["model.safetensors"], hub.files["pytorch_model.bin"]
    stem = {"safetensors": "model", "bin": "pytorch_model"}[ending]
    shards = [f"{stem}-0000{number}-of-00002.{ending}" for number in (1, 2)]
    hub.files |= {shard: shard.encode() for shard in shards}
    index = {"weight_map": dict(zip("ab", shards, strict=True))}
    hub.files[f"{stem}.{ending}.index.json"] = json.dumps(index).encode()
    folder = get(hub, tmp_path).folder
    assert all((folder / shard).read_bytes() == shard.encode() for shard in shards)
    del hub.files[shards[1]]
    shutil.rmtree(folder)
    with pytest.raises(ModelUnavailable, match="shards"):
        get(hub, tmp_path)


@pytest.mark.parametrize("model", ["bge", "../../etc", "a/b/c", "/models/bge", "BAAI/", "a/.."])
def test_a_name_that_is_no_model_is_refused(hub: Hub, tmp_path: Path, model: str) -> None:
    with pytest.raises(InvalidInput, match="BAAI/bge-base-zh"):
        fetch(model, tmp_path, endpoint=hub.url)


def test_a_hub_that_is_not_reached_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(ModelUnavailable, match="mirror"):
        fetch(MODEL, tmp_path, endpoint=closed)
    with pytest.raises((ModelUnavailable, InvalidInput)):
        fetch(MODEL, tmp_path, endpoint="not an address")


def test_two_processes_do_not_fetch_into_one_folder(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / MODEL).mkdir(parents=True)
    with (
        FileLock(tmp_path / MODEL / ".fetch.lock"),
        pytest.raises(ModelUnavailable, match="Another process"),
    ):
        get(hub, tmp_path)


def test_a_folder_that_cannot_be_written_is_named(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelUnavailable, match="can't be written"):
        get(hub, tmp_path / "file")


def run_script(hub: Hub, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TANYUAN_DATA": str(folder), "HF_ENDPOINT": hub.url}
    return subprocess.run(
        [sys.executable, SCRIPT, *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_script_fetches_and_says_what_it_did(hub: Hub, tmp_path: Path) -> None:
    plain = run_script(hub, tmp_path, MODEL)
    assert plain.returncode == 0, plain.stderr
    assert "3 MB" in plain.stdout
    assert "Restart" in plain.stdout
    told = run_script(hub, tmp_path, MODEL, "BAAI/missing", "--json")
    assert told.returncode == 1
    first, second = map(json.loads, told.stdout.splitlines())
    assert first["downloaded"] == 0
    assert first["folder"] == str(tmp_path / "models" / MODEL)
    assert second["code"] == "model_unavailable"
    assert run_script(hub, tmp_path, "nonsense").returncode == 2
