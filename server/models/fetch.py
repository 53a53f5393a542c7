"""Weights from the model hub, or a mirror that speaks its protocol, into a folder.

The only code of the product that goes out, and only ``scripts/fetch_models`` calls it. Downloads go on
where they stopped, also after the process was killed (huggingface_hub 2.4 starts a file over then), and
a file gets its name only after its checksum was found right: the hub states SHA-256 for large files and
git's blob id for small ones.
"""

import hashlib
import re
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import httpx
from filelock import FileLock, Timeout

from server.errors import InvalidInput, ModelUnavailable
from server.models.weights import SHAPE_FILES, SPARSE_HEAD, is_whole

# 61.8, 69.5 and 70.5 are the C-MTEB retrieval scores of bge-small, -base and -large-zh-v1.5: base is
# within a point of large at a third of its size and time. The reranker is the smallest of its family.
DEFAULT_MODELS = ("BAAI/bge-base-zh-v1.5", "BAAI/bge-reranker-base")
ATTEMPTS = 6  # in a row without a byte
SPARE_BYTES = 100_000_000  # left free on the disk

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_WEIGHTS = (  # the first form that a model comes in
    re.compile(r"model\.safetensors"),
    re.compile(r"model\.safetensors\.index\.json|model-\d+-of-\d+\.safetensors"),
    re.compile(r"pytorch_model\.bin"),
    re.compile(r"pytorch_model\.bin\.index\.json|pytorch_model-\d+-of-\d+\.bin"),
)
# What sentence-transformers' models have beside: how the modules follow each other, and dense layers.
_MODULES = (
    re.compile(r"modules\.json|sentence_bert_config\.json|\d+_(?!Pooling/)\w+/config\.json"),
    re.compile(r"\d+_\w+/model\.safetensors"),
    re.compile(r"\d+_\w+/pytorch_model\.bin"),
)
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

# File name, bytes that are there, bytes in all.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """``digest``: SHA-256, or git's blob id (SHA-1), as hex."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """``downloaded``: bytes that came over the network now."""

    model: str
    revision: str
    folder: Path
    files: tuple[RemoteFile, ...]
    downloaded: int


def fetch(
    model: str,
    models_folder: Path,
    *,
    endpoint: str,
    revision: str = "main",
    progress: Progress | None = None,
    pause: float = 1.0,
) -> Fetched:
    """Bring a model's files up to date in ``models_folder/model``; those that are right are kept.

    Small files come first, so that a folder with weights is whole. ``pause``: seconds before a retry,
    doubled each time that nothing comes. Raises InvalidInput for a name that is none, ModelUnavailable.
    """
    report = progress or _no_report
    if not _ID.fullmatch(model):
        raise InvalidInput(f"{model!r} is no model of the hub; one reads like {DEFAULT_MODELS[0]}.")
    folder = models_folder / model
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            FileLock(folder / ".fetch.lock", timeout=0),
            httpx.Client(
                base_url=endpoint.rstrip("/"), follow_redirects=True, timeout=httpx.Timeout(30)
            ) as client,
        ):
            commit, files = _listing(client, model, revision)
            wanted = _select(files, model)
            missing = [file for file in wanted if not _is_right(folder / file.name, file)]
            _check_room(folder, missing)
            for file in wanted:
                if file not in missing:
                    report(file.name, file.size, file.size)
            downloaded = sum(
                _download(
                    client,
                    f"/{model}/resolve/{quote(commit, safe='')}/{quote(file.name)}",
                    folder,
                    file,
                    report,
                    pause,
                )
                for file in missing
            )
    except Timeout as error:
        raise ModelUnavailable(f"Another process is fetching {model} into {folder}.") from error
    except httpx.InvalidURL as error:
        raise InvalidInput(f"{endpoint!r} is no address of a hub: {error}.") from error
    except OSError as error:
        raise ModelUnavailable(f"{folder} can't be written: {error}.") from error
    if not is_whole(folder):
        raise ModelUnavailable(f"{model} lacks shards that its own index names.")
    return Fetched(
        model=model, revision=commit, folder=folder, files=tuple(wanted), downloaded=downloaded
    )


def _no_report(name: str, done: int, total: int) -> None:
    """Where nobody watches."""


def _listing(client: httpx.Client, model: str, revision: str) -> tuple[str, list[RemoteFile]]:
    """The commit that a revision stands for, and its files."""
    path = f"/api/models/{model}/revision/{quote(revision, safe='')}"
    try:
        response = client.get(path, params={"blobs": "true"})
    except httpx.HTTPError as error:
        raise ModelUnavailable(
            f"{client.base_url} can't be reached ({error or type(error).__name__}). Name a mirror with "
            "--endpoint, or copy the model's folder from another machine into the models folder."
        ) from error
    _check(response, f"model {model}")
    try:
        answer = response.json()
        return str(answer["sha"]), [_remote_file(sibling) for sibling in answer["siblings"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelUnavailable(
            f"{client.base_url} does not answer like a model hub ({error!r})."
        ) from error


def _remote_file(sibling: dict[str, Any]) -> RemoteFile:
    large = sibling.get("lfs") or {}
    file = RemoteFile(
        name=str(sibling["rfilename"]),
        size=int(large.get("size", sibling["size"])),
        digest=str(large.get("sha256") or sibling["blobId"]),
    )
    if not _DIGEST.fullmatch(file.digest) or file.size < 0:
        raise ValueError(f"no checksum of {file.name}")
    return file


def _check(response: httpx.Response, what: str) -> None:
    if response.status_code in {401, 403, 404}:
        raise ModelUnavailable(
            f"{response.url.host} has no open {what} (status {response.status_code}): check "
            "the name and the revision."
        )
    if response.status_code not in {200, 206}:
        raise ModelUnavailable(f"{response.url.host} answered with status {response.status_code}.")


def _select(files: Sequence[RemoteFile], model: str) -> list[RemoteFile]:
    """What loading needs, small files first: one form of the weights, no ONNX, no duplicates."""
    by_name = {file.name: file for file in files}
    shape = [by_name[name] for name in (*SHAPE_FILES, SPARSE_HEAD) if name in by_name]
    for form in _WEIGHTS:
        weights = [file for file in files if form.fullmatch(file.name)]
        if any(PurePosixPath(file.name).suffix != ".json" for file in weights):
            break
    else:
        weights = []
    if not weights or not {"config.json", "tokenizer.json"} <= by_name.keys():
        raise ModelUnavailable(f"{model} has no weights in a form that can be loaded here.")
    modules = [file for file in files if _is_of_module(file.name, by_name)]
    return [*shape, *modules, *sorted(weights, key=lambda file: (file.size, file.name))]


def _is_of_module(name: str, there: Collection[str]) -> bool:
    shape, safe, pickled = (pattern.fullmatch(name) is not None for pattern in _MODULES)
    other = f"{name.rpartition('/')[0]}/model.safetensors"
    return shape or safe or (pickled and other not in there)


def _is_right(path: Path, file: RemoteFile) -> bool:
    """Whether a file is there with the stated size and checksum."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    if len(file.digest) == 64:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == file.digest
    content = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return blob.hexdigest() == file.digest


def _check_room(folder: Path, missing: Sequence[RemoteFile]) -> None:
    parts = [_part(folder, file) for file in missing]
    there = sum(part.stat().st_size for part in parts if part.is_file())
    needed = sum(file.size for file in missing) - there
    free = shutil.disk_usage(folder).free
    if missing and needed + SPARE_BYTES > free:
        raise ModelUnavailable(
            f"{folder} has room for {free / 1e9:,.1f} GB and {needed / 1e9:,.1f} GB are to come; make "
            "room, or name another folder with TANYUAN_MODELS."
        )


def _part(folder: Path, file: RemoteFile) -> Path:
    """Where a file grows; the digest in its name keeps two versions apart."""
    return folder / f"{file.name}.{file.digest[:12]}.part"


def _download(
    client: httpx.Client,
    url: str,
    folder: Path,
    file: RemoteFile,
    progress: Progress,
    pause: float,
) -> int:
    """Fetch one file, going on from what is there; return the bytes that came."""
    target, part = folder / file.name, _part(folder, file)
    target.parent.mkdir(parents=True, exist_ok=True)
    downloaded, wrong, in_vain = 0, 0, 0
    while in_vain < ATTEMPTS:
        came, failure = _append(client, url, part, file, progress)
        downloaded += came
        if part.is_file() and part.stat().st_size >= file.size:
            if _is_right(part, file):
                part.replace(target)
                return downloaded
            # Perhaps what was there before was damaged; once more from nothing tells.
            part.unlink()
            failure = f"its checksum is not the stated {file.digest[:12]}…"
            wrong += 1
            if wrong == 2:
                break
            continue
        in_vain = 0 if came else in_vain + 1
        time.sleep(pause * 2**in_vain)
    raise ModelUnavailable(
        f"{file.name} could not be fetched from {client.base_url}: {failure}. Run the command again: it "
        "goes on where it stopped."
    )


def _append(
    client: httpx.Client, url: str, part: Path, file: RemoteFile, progress: Progress
) -> tuple[int, str]:
    """Write what is still missing of a file behind what is there.

    Returns the bytes that came and why no more did.
    """
    there = part.stat().st_size if part.is_file() else 0
    if part.is_file() and there >= file.size:
        return 0, ""
    # Without compression, so that byte positions are those of the file.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={there}-"} if there else {})
    came = 0
    try:
        with client.stream("GET", url, headers=headers) as response:
            if response.status_code >= 500 or response.status_code == 429:
                return 0, f"status {response.status_code}"
            _check(response, f"file {file.name}")
            if response.status_code == 200:  # the server knows no ranges: from the start
                there = 0
            with part.open("r+b" if part.is_file() else "wb") as stream:
                stream.truncate(there)
                stream.seek(there)
                for (
                    block
                ) in response.iter_raw():  # a fixed size would hold bytes back and lose them
                    if there + came + len(block) > file.size:
                        return came, "more bytes came than stated"
                    came += len(block)
                    stream.write(block)
                    progress(file.name, there + came, file.size)
    except httpx.HTTPError as error:
        return came, str(error) or type(error).__name__
    return came, "the connection ended early"
