"""Exports of BGE models to ONNX, checked against FlagEmbedding before anybody can take them.

The only module of the ONNX path that needs FlagEmbedding and torch (the extra ``bge``).
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from server.errors import InvalidInput, ModelUnavailable
from server.models import exports, onnx_graph, weights
from server.models.agreement import STATED, Bounds, Checks, embedder_checks, reranker_checks
from server.models.bge import BgeEmbedder
from server.models.bge_reranker import BgeReranker
from server.models.exports import Export, ExportUnusable, Precision, Stamp
from server.models.tokens import OFFSET_FAMILIES
from server.models.torch_engine import Loaded, TorchEngine

FAMILIES = frozenset({"bert", "xlm-roberta"})
PACKAGES = ("onnx", "onnxruntime", "torch", "transformers", "FlagEmbedding")
STAGES = 5  # that progress tells of, at most
SPARE_BYTES = 100_000_000  # left free on the disk

Floats = NDArray[np.float32]
Progress = Callable[[str], None]  # what is begun


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """``checks`` as in the manifest; ``unchanged``: a fitting export was there already."""

    folder: Path
    kind: exports.Kind
    unchanged: bool
    checks: Mapping[str, Mapping[str, Any]]


def export(
    model_folder: Path,
    texts: Sequence[str],
    *,
    int8: bool = True,
    force: bool = False,
    target: Path | None = None,
    progress: Progress = lambda _: None,
    bounds: Bounds = STATED,
) -> Exported:
    """Export the weights in a folder into ``target`` (the same folder), where a fitting export isn't there.

    ``texts``, long ones in the languages of the documents, are cut to the lengths that are checked. The
    export appears all at once or not at all. Raises InvalidInput for a model of another kind, and
    ModelUnavailable where it can't be loaded or written or doesn't agree with FlagEmbedding.
    """
    target = target or model_folder
    config = _config(model_folder)
    try:
        with _alone(target):
            if not force and (there := _fitting(target, model_folder, int8=int8)):
                return Exported(
                    folder=there.folder, kind=there.kind, unchanged=True, checks=there.checks
                )
            return _Work(model_folder, target, config, texts, progress, bounds).done(int8=int8)
    except OSError as error:
        raise ModelUnavailable(
            f"{target} can't be written: {error}. Name another folder with --to."
        ) from error


def _config(folder: Path) -> dict[str, Any]:
    """The model's configuration. Raises InvalidInput, saying what is not supported."""
    config = weights.read_json(folder / "config.json")
    unsupported = {
        "model_type": config.get("model_type") not in FAMILIES,
        "hidden_act": config.get("hidden_act", "gelu") != "gelu",
        "position_embedding_type": config.get("position_embedding_type", "absolute") != "absolute",
        "is_decoder": bool(config.get("is_decoder")),
    }
    wrong = [f"{name} {config.get(name)!r}" for name, on in unsupported.items() if on]
    if wrong:
        raise InvalidInput(
            f"{folder} holds a model that can't be exported ({', '.join(wrong)}): BGE embedders and "
            "rerankers of BERT's and XLM-RoBERTa's kind can."
        )
    return config


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    target.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(target / ".export.lock", timeout=0):
            yield
    except Timeout as error:
        raise ModelUnavailable(f"Another process is exporting into {target}.") from error


def _fitting(target: Path, model_folder: Path, *, int8: bool) -> Export | None:
    try:
        found = exports.find(target)
    except ExportUnusable:
        return None
    if found is None or (int8 and "int8" not in found.checks):
        return None
    same = target == model_folder or found.digest == weights.digest(model_folder)
    return found if same else None


class _Work:
    """One export, in a folder that nobody takes for one until it is renamed."""

    def __init__(
        self,
        model_folder: Path,
        target: Path,
        config: dict[str, Any],
        texts: Sequence[str],
        progress: Progress,
        bounds: Bounds,
    ) -> None:
        self._model_folder = model_folder
        self._target = target
        self._texts = texts
        self._progress = progress
        self._bounds = bounds
        self._part = target / f".{weights.EXPORT}.part"
        classifies = any("Classification" in kind for kind in config.get("architectures") or ())
        self._kind: exports.Kind = "reranker" if classifies else "embedder"
        self._adapter = self._open(None)

    def done(self, *, int8: bool) -> Exported:
        try:
            return self._done(int8=int8)
        except BaseException:
            shutil.rmtree(self._part, ignore_errors=True)
            raise

    def _done(self, *, int8: bool) -> Exported:
        shutil.rmtree(self._part, ignore_errors=True)  # of one that was killed
        self._check_room()
        self._part.mkdir()
        self._progress("reading the weights")
        source = {
            name: Stamp.of(self._model_folder / name)
            for name in weights.deciding_files(self._model_folder)
        }
        engine = cast(TorchEngine, self._adapter.engine)  # which it is without an export
        made = self._write(engine.loaded(), source, int8=int8)
        checks = self._checks(made, int8=int8)
        for precision, found in checks.items():
            if not found["usable"]:
                for file in self._part.glob(f"{precision}.*"):
                    file.unlink()
        self._finish(made, source, checks)
        folder = self._target / weights.EXPORT
        return Exported(folder=folder, kind=self._kind, unchanged=False, checks=checks)

    def _open(
        self, made: Export | None, precision: Precision = "fp32"
    ) -> BgeEmbedder | BgeReranker:
        kind = BgeReranker if self._kind == "reranker" else BgeEmbedder
        return kind(self._model_folder, export=made, precision=precision)

    def _check_room(self) -> None:
        files = weights.weight_files(self._model_folder)
        needed = 2 * sum(file.stat().st_size for file in files)  # 4 bytes a weight, and 1
        free = shutil.disk_usage(self._target).free
        if needed + SPARE_BYTES > free:
            raise ModelUnavailable(
                f"{self._target} has room for {free / 1e9:,.1f} GB and the export takes up to "
                f"{needed / 1e9:,.1f} GB; make room, or name another folder with --to."
            )

    def _write(self, loaded: Loaded, source: Mapping[str, Stamp], *, int8: bool) -> Export:
        state = loaded.model.model.state_dict()

        def tensor(name: str) -> Floats:
            values: Floats = state[name].float().numpy()
            return values

        config = loaded.model.model.config  # with the defaults that config.json leaves out
        shape = self._shape(config, state)
        rows = f"{shape.prefix}embeddings"
        self._progress("writing the tables")
        for name, file in (
            ("word_embeddings", exports.WORDS),
            ("position_embeddings", exports.POSITIONS),
            ("token_type_embeddings", exports.TYPES),
        ):
            np.save(self._part / file, tensor(f"{rows}.{name}.weight"))
        backend = loaded.tokenizer.backend_tokenizer
        (self._part / exports.TOKENIZER).write_text(backend.to_str(), encoding="utf-8")
        for precision in ("fp32", "int8") if int8 else ("fp32",):
            self._progress(f"writing the graph in {precision}")
            onnx_graph.write(
                shape, tensor, self._part / f"{precision}.onnx", int8=precision == "int8"
            )
        offset = config.model_type in OFFSET_FAMILIES
        return Export(
            folder=self._part,
            kind=self._kind,
            digest=weights.digest_of({name: stamp.sha256 for name, stamp in source.items()}),
            checks={},
            padding=int(config.pad_token_id) if offset else None,
            types="token_type_ids" in loaded.tokenizer.model_input_names,
        )

    def _shape(self, config: Any, state: Mapping[str, Any]) -> onnx_graph.Shape:
        prefix = ""
        head: onnx_graph.Head = "score"
        if isinstance(self._adapter, BgeEmbedder):
            head = "mean" if self._adapter.pooling == "mean" else "cls"
        else:
            prefix = "bert." if config.model_type == "bert" else "roberta."
            out = "classifier.weight" if prefix == "bert." else "classifier.out_proj.weight"
            if len(state[out]) != 1:
                raise InvalidInput(
                    f"{self._model_folder} gives {len(state[out])} numbers a pair, not one."
                )
        return onnx_graph.Shape(
            hidden=int(config.hidden_size),
            layers=int(config.num_hidden_layers),
            heads=int(config.num_attention_heads),
            epsilon=float(config.layer_norm_eps),
            prefix=prefix,
            head=head,
        )

    def _checks(self, made: Export, *, int8: bool) -> dict[str, Checks]:
        """Raises ModelUnavailable where single precision doesn't give FlagEmbedding's values."""
        precisions: list[Precision] = ["fp32", "int8"] if int8 else ["fp32"]
        others = {precision: self._open(made, precision) for precision in precisions}
        self._progress("checking against FlagEmbedding")
        compare: Any = (
            embedder_checks if isinstance(self._adapter, BgeEmbedder) else reranker_checks
        )
        checks: dict[str, Checks] = compare(self._adapter, others, self._texts, self._bounds)
        if not checks["fp32"]["usable"]:
            raise ModelUnavailable(
                f"The export of {self._model_folder} does not give FlagEmbedding's values "
                f"({checks['fp32']}): nothing was kept. Please report it."
            )
        return checks

    def _finish(
        self, made: Export, source: Mapping[str, Stamp], checks: Mapping[str, Checks]
    ) -> None:
        files = {file.name: Stamp.of(file) for file in sorted(self._part.iterdir())}
        for file in self._part.iterdir():
            _sync(file)
        manifest = {
            "kind": self._kind,
            "padding": made.padding,
            "types": made.types,
            "opset": onnx_graph.OPSET,
            "versions": {name: version(name) for name in PACKAGES},
            "checks": checks,
            "source": source,
            "files": files,
        }
        exports.write_manifest(self._part, manifest)
        _sync(self._part / weights.MANIFEST)
        if self._target != self._model_folder:
            for name in weights.SHAPE_FILES:
                if (self._model_folder / name).is_file():
                    (self._target / name).parent.mkdir(exist_ok=True)
                    shutil.copy2(self._model_folder / name, self._target / name)
        folder, old = self._target / weights.EXPORT, self._target / f".{weights.EXPORT}.old"
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        self._part.rename(folder)
        _sync(self._target)
        shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
