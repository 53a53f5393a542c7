"""Which form of a BGE model runs here: FlagEmbedding, or ONNX Runtime over its export, in fp32 or int8."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from server.errors import ConfigurationError
from server.models import exports, weights
from server.models.cores import sums_byte_products
from server.models.exports import Export, ExportUnusable, Kind, Precision
from server.settings import Settings

NO_FLAG_EMBEDDING = (
    "FlagEmbedding is not installed: run scripts/run without --light, or pip install 'tanyuan[bge]'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """``name``: the model's, with its precision where that makes other vectors. ``export``: None where
    FlagEmbedding runs it. ``how``: what runs it, for people. ``sparse``: whether it gives sparse weights,
    which no export does."""

    folder: Path
    name: str
    export: Export | None
    precision: Precision
    how: str
    sparse: bool = False


def split(model: str) -> tuple[str, Precision | None]:
    """A model and the precision that stands behind its name: ``BAAI/bge-base-zh-v1.5@int8``."""
    base, _, stated = model.rpartition("@")
    for precision in get_args(Precision):
        if base and stated == precision:
            return base, precision
    return model, None


def find(kind: Kind, model: str, settings: Settings) -> tuple[Found | None, str]:
    """A model's form that runs here, or None and why there is none.

    By itself int8 is taken for rerankers alone: it changes vectors, and collections would have to be
    rebuilt. Raises ConfigurationError where int8 is asked for and can't be had.
    """
    model, stated = split(model)
    folder = weights.find(model, settings.models_folder)
    if folder is None:
        return None, weights.not_here(model, settings.models_folder)
    wanted = stated or settings.precision
    export, trouble = _export(folder)
    lacks = "; ".join(_lacks_int8(export, trouble))
    if wanted == "int8" and lacks:
        raise ConfigurationError(
            f"{model} is wanted in int8, but {lacks}. Choose TANYUAN_PRECISION=fp32 or auto, or run "
            "scripts/export_onnx."
        )
    int8 = wanted == "int8" or (wanted == "auto" and kind == "reranker" and not lacks)
    flag_embedding = find_spec("FlagEmbedding") is not None and weights.is_whole(folder)
    sparse = kind == "embedder" and (folder / weights.SPARSE_HEAD).is_file()
    whole = (_has_gpu() and wanted != "int8") or (sparse and wanted == "auto")
    if flag_embedding and (export is None or whole):
        how = f"FlagEmbedding runs it{trouble and f' ({trouble})'}"
        return Found(
            folder=folder, name=model, export=None, precision="fp32", how=how, sparse=sparse
        ), ""
    if export is None:
        return None, f"{NO_FLAG_EMBEDDING} (weights lie in {folder}){trouble and f'; {trouble}'}"
    precision: Precision = "int8" if int8 else "fp32"
    return Found(
        folder=folder,
        name=f"{model}@int8" if int8 and kind == "embedder" else model,
        export=export,
        precision=precision,
        how=f"ONNX Runtime runs its export in {precision}",
    ), ""


def _export(folder: Path) -> tuple[Export | None, str]:
    """The export beside a model, or None and what is wrong with it, where there is one."""
    try:
        return exports.find(folder), ""
    except ExportUnusable as error:
        return None, f"its export {error}: scripts/export_onnx makes it anew"


def _lacks_int8(export: Export | None, trouble: str) -> Iterator[str]:
    if export is None:
        yield trouble or "it has no export"
    elif not export.has("int8"):
        yield "its export has none that ranks like FlagEmbedding"
    if not sums_byte_products():
        yield "this CPU has no exact sums of byte products (VNNI)"


def _has_gpu() -> bool:
    """Looks for devices alone: torch takes seconds to ask."""
    return any(Path("/dev").glob("nvidia[0-9]*"))
