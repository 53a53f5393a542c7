"""Exports of BGE models to ONNX: where they lie, what they promise, whether they still hold.

An export is the folder ``tanyuan-onnx`` beside a model's own files, made by ``scripts/export_onnx``. Its
``manifest.json``, written last, states the weights that it was made of and all its files; a folder
without one is none. Nothing heavy is imported here.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from server.models import weights
from server.models.weights import EXPORT, MANIFEST

Kind = Literal["embedder", "reranker"]
Precision = Literal["fp32", "int8"]

FORMAT = 1  # of the folder and of the graphs in it; another one is refused
TOKENIZER, WORDS, POSITIONS, TYPES = "tokenizer.json", "words.npy", "positions.npy", "types.npy"
TABLES = (TOKENIZER, WORDS, POSITIONS, TYPES)


class ExportUnusable(Exception):
    """An export that can't be used; the message says why, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """A file as it was: equal size and time of change mean that it need not be read again."""

    size: int
    changed: int  # nanoseconds
    sha256: str

    @classmethod
    def of(cls, file: Path) -> "Stamp":
        stat = file.stat()
        return cls(stat.st_size, stat.st_mtime_ns, weights.sha256(file))

    def fits(self, file: Path) -> bool:
        """Reads the file only where its time of change is another one, as in a copy."""
        try:
            stat = file.stat()
            return stat.st_size == self.size and (
                stat.st_mtime_ns == self.changed or weights.sha256(file) == self.sha256
            )
        except OSError:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """``digest``: of the weights it was made of, as ``weights.digest`` has it. ``checks``: what was
    measured against FlagEmbedding, by precision; what has ``usable`` false is not served.
    ``padding``: the token id that counts for no position, where a family has that. ``types``: whether the
    model tells the second text of a pair by token types.
    """

    folder: Path
    kind: Kind
    digest: str
    checks: Mapping[str, Mapping[str, Any]]
    padding: int | None
    types: bool

    def has(self, precision: Precision) -> bool:
        return bool(self.checks.get(precision, {}).get("usable"))

    @property
    def tokenizer(self) -> Path:
        return self.folder / TOKENIZER

    def graph(self, precision: Precision) -> Path:
        return self.folder / f"{precision}.onnx"


def find(model_folder: Path) -> Export | None:
    """The export beside a model; None where there is none. Raises ExportUnusable, saying why."""
    folder = model_folder / EXPORT
    if not folder.is_dir():
        return None
    manifest = weights.read_json(folder / MANIFEST)
    try:
        if manifest["format"] != FORMAT:
            raise ExportUnusable(f"is of format {manifest['format']}, not {FORMAT}")
        source, files = (
            {name: Stamp(**stamp) for name, stamp in manifest[part].items()}
            for part in ("source", "files")
        )
        export = Export(
            folder=folder,
            kind=manifest["kind"],
            digest=weights.digest_of({name: stamp.sha256 for name, stamp in source.items()}),
            checks=manifest["checks"],
            padding=manifest["padding"],
            types=manifest["types"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ExportUnusable(f"has no whole {MANIFEST} (damaged, or cut short)") from error
    damaged = [name for name, stamp in files.items() if not stamp.fits(folder / name)]
    if damaged or not {*TABLES, "fp32.onnx"} <= files.keys():
        raise ExportUnusable(f"is damaged ({', '.join(damaged) or 'files are missing'})")
    _check_source(model_folder, source)
    return export


def _check_source(model_folder: Path, source: Mapping[str, Stamp]) -> None:
    """The model's files must be those that were exported; the weights themselves may be absent."""
    there = weights.deciding_files(model_folder)
    if not weights.weight_files(model_folder):
        source = {name: stamp for name, stamp in source.items() if name in weights.SHAPE_FILES}
    other = {name for name in there if name not in source}
    other |= {name for name, stamp in source.items() if not stamp.fits(model_folder / name)}
    if other:
        raise ExportUnusable(f"was made of other weights ({', '.join(sorted(other))} differ)")


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """``source`` and ``files`` of the manifest map names to stamps."""
    stamps = {
        part: {name: asdict(stamp) for name, stamp in manifest[part].items()}
        for part in ("source", "files")
    }
    content = json.dumps({"format": FORMAT, **manifest, **stamps}, ensure_ascii=False, indent=1)
    (folder / MANIFEST).write_text(content, encoding="utf-8")
