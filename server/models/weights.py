"""Weights on this machine: where they lie and what is in them. Nothing here goes out.

A model is named by its folder (``/models/bge``, ``./bge``, ``~/bge``) or by its id on the hub
(``BAAI/bge-base-zh-v1.5``), which is looked up in the folder of TANYUAN_MODELS, where
``scripts/fetch_models`` puts it, and in the hub's own cache.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# In the order in which transformers looks for them.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# What else decides the numbers that come out: shapes, pooling, tokens.
SHAPE_FILES = (
    "config.json",
    "1_Pooling/config.json",
    "config_sentence_transformers.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "sentencepiece.bpe.model",
)

# What BGE-M3 has beside its weights: the head that makes sparse weights. No part of ``digest``, since it
# makes no difference to vectors.
SPARSE_HEAD = "sparse_linear.pt"

EXPORT = "tanyuan-onnx"  # of the weights to ONNX, beside them or in their place (exports.py)
MANIFEST = "manifest.json"  # of an export, whose last file it is


def find(model: str, models_folder: Path, *, exported: bool = True) -> Path | None:
    """The folder of a model's weights, or None where they are not on this machine, or not whole.

    ``exported``: an export in their place will do.
    """
    if model.startswith(("/", ".", "~")):
        candidates: tuple[Path | None, ...] = (Path(model).expanduser(),)
    else:
        candidates = (models_folder / model, _cached(model))
    return next(
        (
            folder
            for folder in candidates
            if folder and (is_whole(folder) or (exported and is_exported(folder)))
        ),
        None,
    )


def not_here(model: str, models_folder: Path) -> str:
    """What to say of a model that ``find`` does not find."""
    return (
        f"no whole weights of {model} are on this machine: scripts/fetch_models gets them into "
        f"{models_folder}"
    )


def is_exported(folder: Path) -> bool:
    """Whether a folder has a model's shape and an export; whether that is sound, exports.py tells."""
    names = ("config.json", "tokenizer.json", f"{EXPORT}/{MANIFEST}")
    return all((folder / name).is_file() for name in names)


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a model that can be loaded: its shape, its tokenizer, its weights."""
    return all((folder / name).is_file() for name in ("config.json", "tokenizer.json")) and all(
        file.is_file() for file in weight_files(folder) or [folder / "missing"]
    )


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a model's weights, with the index of sharded ones; [] where there are none."""
    for name in WEIGHT_FILES:
        file = folder / name
        if not file.is_file():
            continue
        if name.endswith(".index.json"):
            shards = set(read_json(file).get("weight_map", {}).values())
            return [file, *(folder / str(shard) for shard in sorted(shards))]
        return [file]
    return []


def digest(folder: Path, more: Iterable[str] = ()) -> str:
    """SHA-256, as hex, over the names and contents of all files that decide what a model gives.

    ``more``: files beside those that every model has. Reads some 1.5 GB a second.
    """
    names = dict.fromkeys([*deciding_files(folder), *more])
    return digest_of({name: sha256(folder / name) for name in names})


def digest_of(contents: Mapping[str, str]) -> str:
    """The digest of a folder whose deciding files have these SHA-256, in this order."""
    lines = "".join(f"{name} {content}\n" for name, content in contents.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def deciding_files(folder: Path) -> list[str]:
    """Names of the files that decide what a model gives, the weights first; always in the same order."""
    files = [file.relative_to(folder).as_posix() for file in weight_files(folder)]
    return files + [name for name in SHAPE_FILES if (folder / name).is_file()]


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file; {} where the file is missing, unreadable or something else."""
    value = _read(file)
    return value if isinstance(value, dict) else {}


def read_list(file: Path) -> list[dict[str, Any]]:
    """A JSON list of objects; [] where the file is missing, unreadable or something else."""
    value = _read(file)
    whole = isinstance(value, list) and all(isinstance(each, dict) for each in value)
    return value if whole else []


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def stay_offline() -> None:
    """Keep huggingface_hub, which reads this when it is imported, from ever asking the hub."""
    os.environ["HF_HUB_OFFLINE"] = "1"


def _cached(model: str) -> Path | None:
    """The newest snapshot in the hub's cache (HF_HOME, HF_HUB_CACHE), which its own library finds."""
    stay_offline()
    try:
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - comes with an extra
        from huggingface_hub.errors import HFValidationError  # noqa: PLC0415
    except ImportError:
        return None
    try:
        file = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        return None
    return Path(file).parent if isinstance(file, str) else None
