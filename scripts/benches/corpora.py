"""Judged collections for benches: a folder's documents, and the questions asked of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from server.documents import Document
from server.evaluation.dataset import Dataset

SETS = "folder in BEIR form, or FOLDER:QUERIES to ask another file's questions"


@dataclass(frozen=True)
class Corpus:
    """A folder's documents, and by name the sets of questions asked of them."""

    documents: Sequence[Document]
    sets: dict[str, Dataset] = field(default_factory=dict)

    @property
    def titled(self) -> bool:
        return any(document.title for document in self.documents)

    def texts(self, *, titles: bool) -> list[tuple[str, str]]:
        """(id, text) of each document, or its title and text as one."""
        return [
            (each.id, f"{each.title}\n{each.text}" if titles else each.text)
            for each in self.documents
        ]


def read(sets: Sequence[str]) -> list[Corpus]:
    """Each folder once, with all that is asked of it. Raises InvalidInput."""
    corpora: dict[Path, Corpus] = {}
    for named in sets:
        place, _, asked = named.partition(":")
        folder, queries = Path(place), Path(asked) if asked else None
        name = folder.resolve().name
        if queries:
            other = queries.resolve().parent.name
            name += f", {queries.stem if other == name else f'questions of {other}'}"
        dataset = Dataset.load(folder, queries=queries)
        if folder not in corpora:
            corpora[folder] = Corpus(list(dataset.documents()))
        corpora[folder].sets[name] = dataset
    return list(corpora.values())
