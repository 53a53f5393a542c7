"""Shelf: where fine-tuned models are made and kept, under TANYUAN_MODELS.

A model is made in a scratch folder and moved to its place whole, so that a name never stands for half a
model. Whatever a killed run left in the scratch folder is removed by the next.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from server.errors import ModelUnavailable, RebuildRunning

PLACE = "tuned"
_SCRATCH = ".finetuning"


class Shelf:
    def __init__(self, models_folder: Path) -> None:
        self._models = models_folder
        self._scratch = models_folder / _SCRATCH

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder that is gone afterwards; one at a time. Raises RebuildRunning where another
        fine-tuning goes on, ModelUnavailable where nothing can be written."""
        try:
            self._models.mkdir(parents=True, exist_ok=True)
            with FileLock(self._models / f"{_SCRATCH}.lock", timeout=0):
                shutil.rmtree(self._scratch, ignore_errors=True)
                self._scratch.mkdir()
                try:
                    yield self._scratch
                finally:
                    shutil.rmtree(self._scratch, ignore_errors=True)
        except Timeout as error:
            raise RebuildRunning(
                f"Another fine-tuning goes on in {self._models}; wait for it or stop it."
            ) from error
        except OSError as error:
            raise ModelUnavailable(f"{self._models} can't be written: {error}.") from error

    def place(self, made: Path, name: str) -> Path:
        """Move a whole model to its name, in one step."""
        target = self._models / name
        target.parent.mkdir(parents=True, exist_ok=True)
        for file in made.rglob("*"):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        made.rename(target)
        return target


def new_name(source: str, collection: str, *, at: datetime | None = None) -> str:
    """``tuned/…``: what the model is called below the models folder, by what it was made of and when."""
    short = re.sub(r"[^\w.-]+", "-", re.split(r"[/:]", source)[-1], flags=re.ASCII).strip("-.")
    short = re.sub(r"-\d{8}-\d{6}$", "", short).removesuffix(f"-{collection}")
    stamp = (at or datetime.now(UTC)).strftime("%Y%m%d-%H%M%S")
    return f"{PLACE}/{(short or 'model')[:48]}-{collection}-{stamp}"[:96].rstrip("-.")
