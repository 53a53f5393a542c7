"""The manifest of a model that was fine-tuned here, in its folder: where it comes from and what it gained."""

import json
from pathlib import Path
from typing import Any

from server.models.weights import read_json

MANIFEST = "tanyuan.json"


def read(folder: Path) -> dict[str, Any]:
    """{} where the model was not fine-tuned here."""
    return read_json(folder / MANIFEST)


def write(folder: Path, manifest: dict[str, Any]) -> None:
    text = json.dumps(manifest, ensure_ascii=False, indent=1, sort_keys=True)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def temperature(folder: Path) -> float | None:
    """Of the loss that the model was fine-tuned with; None where the manifest says none."""
    stated = read(folder).get("temperature")
    return float(stated) if isinstance(stated, int | float) and stated > 0 else None
