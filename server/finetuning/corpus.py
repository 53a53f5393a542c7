"""Corpus: the chunks of a collection's live generation, in memory, as models read them."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from server.documents import Chunk, heading_path, passage_text
from server.stores.contract import OwnedChunk

_NEAR = 0.8  # share of the shorter text's bigrams that a near duplicate has too


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk with its document's title."""

    chunk: Chunk
    title: str

    @property
    def path(self) -> str:
        return heading_path(self.title, self.chunk.headings)

    @property
    def whole(self) -> str:
        """As the index has it: the heading path, then the text."""
        return passage_text(self.title, self.chunk.headings, self.chunk.text)

    @property
    def bare(self) -> str:
        """The text without its headings, which would give away a question that was made of them."""
        headings = {self.title, *self.chunk.headings}
        lines = self.chunk.text.splitlines()
        while lines and (lines[0].strip().lstrip("#").strip() in headings or not lines[0].strip()):
            lines.pop(0)
        return "\n".join(lines).strip()

    def read(self, *, bare: bool) -> str:
        return self.bare if bare else self.whole


class Corpus:
    """``pieces``: by chunk id, a document's together and in their order."""

    def __init__(self, chunks: Iterable[OwnedChunk]) -> None:
        self.pieces: dict[str, Piece] = {
            each.chunk.id: Piece(each.chunk, each.title) for each in chunks
        }

    @cached_property
    def by_document(self) -> Mapping[str, tuple[str, ...]]:
        """Document id → its chunks' ids."""
        found: dict[str, list[str]] = {}
        for chunk_id, piece in self.pieces.items():
            found.setdefault(piece.chunk.document_id, []).append(chunk_id)
        return {key: tuple(chunk_ids) for key, chunk_ids in found.items()}

    def digests(self, document_ids: Iterable[str]) -> set[str]:
        """Of the texts of documents, to find them where they stand elsewhere too."""
        return {
            digest(self.pieces[chunk_id].chunk.text)
            for document_id in document_ids
            for chunk_id in self.by_document.get(document_id, ())
        }


def digest(text: str) -> str:
    """The same for texts that differ in white space and case only."""
    return hashlib.sha256("".join(text.lower().split()).encode()).hexdigest()[:24]


def bigrams(text: str) -> frozenset[str]:
    squeezed = "".join(text.lower().split())
    return frozenset(squeezed[at : at + 2] for at in range(len(squeezed) - 1))


def is_near(one: frozenset[str], other: frozenset[str], *, share: float = _NEAR) -> bool:
    """Whether the shorter text stands in the other but for a few words (an older version, a copy)."""
    shorter = min(len(one), len(other))
    return shorter > 0 and len(one & other) >= share * shorter
