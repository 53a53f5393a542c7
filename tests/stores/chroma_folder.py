"""Copies in ChromaDB seen from outside: their folders, notes, and an engine that always asks them."""

import json
from pathlib import Path
from typing import Any

from server.stores.chroma.engine import ChromaEngine


def eager(folder: Path) -> ChromaEngine:
    """ChromaDB is asked at every search, however few the vectors, once it has all of them."""
    return ChromaEngine(folder / "chroma", exact=0, tail=0, patience=60)


def copies(folder: Path) -> list[Path]:
    return sorted((folder / "chroma").glob("*/*/copy-*"))


def note(copy: Path) -> dict[str, Any]:
    """What the copy says of itself while it is whole."""
    found: dict[str, Any] = json.loads((copy / "sound.json").read_text(encoding="utf-8"))
    return found
