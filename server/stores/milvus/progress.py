"""How far one generation's rows in Milvus are level with the database."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

_FILE = "level.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """``name``: the Milvus collection. ``index``: the index's type and metric. ``level``: the database's
    sequence up to which it has everything. ``target``: another than the level while a process takes rows
    over up to there; one that finds it so under the lock knows that it was killed or failed.

    ``rows``: how many there are at the level. ``born``: the sequence when they were begun, whose removals
    they never needed. ``loose``: how many of them came since the last flush. ``deletions``: how often
    rows were deleted, each counted before. ``partial``: a document has more labels than a row takes, so
    that filters are not asked of Milvus.
    """

    name: str
    index: str
    born: int = 0
    level: int = 0
    target: int = 0
    rows: int = 0
    loose: int = 0
    deletions: int = 0
    partial: bool = False

    @property
    def whole(self) -> bool:
        return self.level == self.target


def read(folder: Path) -> Progress | None:
    """None where there is none, or it can't be understood: the rows are then taken over anew."""
    try:
        return Progress(**json.loads((folder / _FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write(folder: Path, progress: Progress) -> None:
    """At once, so that a reader sees the old one or the new one."""
    draft = folder / f".{_FILE}"
    draft.write_text(json.dumps(asdict(progress)), encoding="utf-8")
    draft.replace(folder / _FILE)


def names(collections: Path) -> set[str]:
    """The Milvus collections that a store's folders stand for."""
    found = (read(file.parent) for file in collections.glob(f"*/generations/*/milvus/{_FILE}"))
    return {progress.name for progress in found if progress is not None}
