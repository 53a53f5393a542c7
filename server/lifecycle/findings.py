"""Findings: what is wrong with a document and its chunks, judged by what the store says of itself."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from server.documents import Document, Vectors
from server.ingest.windows import FINGERPRINT as WINDOWS
from server.ingest.windows import windows as windows_of
from server.recipes import Recipe
from server.sparse import SparseWeights
from server.stores.audit import Audited, AuditedChunk, Drift
from server.stores.filters import encode_value, labels_of
from server.stores.windows import are_sound

_LENGTH_TOLERANCE = 1e-3  # of a vector's length, as stores check it when they take it
_SEPARATOR = "\x1f"  # between key and value of a label term, in every store


class Kind(StrEnum):
    """Kinds of damage, the worst first. Values are stable: programs may rely on them."""

    WRONG_ACL = "wrong_acl"  # a chunk is shown to other groups than its document says
    DAMAGED_DOCUMENT = "damaged_document"  # it is not what was put, so nothing can be made of it
    CHUNK_WITHOUT_DOCUMENT = "chunk_without_document"
    DOCUMENT_WITHOUT_CHUNKS = "document_without_chunks"
    INCOMPLETE_WRITE = "incomplete_write"  # a write or a delete was cut off
    STALE_CHUNK = "stale_chunk"  # of another revision than the document has
    MISSING_CHUNK = "missing_chunk"
    SURPLUS_CHUNK = "surplus_chunk"  # at a position that the document does not have
    DUPLICATE_CHUNK = "duplicate_chunk"
    WRONG_TEXT = "wrong_text"  # not what stands in the document from start to end
    UNCOVERED_TEXT = "uncovered_text"  # a part of the document lies in no chunk
    MISSING_VECTOR = "missing_vector"
    VECTOR_NOT_FINITE = "vector_not_finite"
    WRONG_DIMENSIONS = "wrong_dimensions"
    WRONG_LENGTH = "wrong_length"  # of a vector, which is to be 1
    UNEXPECTED_VECTOR = "unexpected_vector"  # the recipe has no embedder
    MISSING_WINDOWS = "missing_windows"  # vectors of a chunk's sentence windows
    WRONG_WINDOWS = "wrong_windows"  # damaged, of another shape, or the recipe has none
    MISSING_SPARSE = "missing_sparse"  # sparse weights of a chunk
    WRONG_SPARSE = "wrong_sparse"  # damaged, or the recipe has none
    WRONG_COPY = "wrong_copy"  # title, source, metadata or labels kept with a chunk
    NOT_LEVEL = "not_level"  # not marked as done in the live generation
    STORE_DRIFT = "store_drift"  # a part of the store does not say what the others say


_SEVERITY = {kind: place for place, kind in enumerate(Kind)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One damage. ``position``: of the chunk, None where the document as a whole is meant.
    ``key``: the chunk's own, as ``Audits.remove`` takes it, empty where none is meant; no part of what
    the finding says, since a chunk that is put again has another."""

    kind: Kind
    document_id: str
    detail: str
    position: int | None = None
    key: str = field(default="", compare=False)

    @property
    def place(self) -> tuple[int, str, int]:
        """Sorts findings: the worst kind first, then by document and position."""
        position = -1 if self.position is None else self.position
        return _SEVERITY[self.kind], self.document_id, position

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind.value,
            "document_id": self.document_id or None,
            "position": self.position,
            "detail": self.detail,
        }


def judge(audited: Audited, recipe: Recipe) -> list[Finding]:
    """What is wrong with a document and its chunks in a generation of ``recipe``, the worst first.

    Of a write that is incomplete its chunks are not judged, but for who may see them: they may be
    half of the old revision and half of the new one. Of a document that is damaged itself nothing
    else is said.
    """
    document = audited.document
    if document is None:
        found = list(_orphans(audited))
    elif audited.content_hash not in {"", document.content_hash}:
        detail = "It is not what was put. Delete it and put it again, or restore a backup."
        found = [_of(audited, Kind.DAMAGED_DOCUMENT, detail)]
    elif not audited.complete:
        detail = f"The write of revision {audited.revision} was not finished."
        found = [_of(audited, Kind.INCOMPLETE_WRITE, detail), *_wrong_acls(audited, document)]
    else:
        found = [
            *_wrong_acls(audited, document),
            *_wrong_places(audited, document),
            *(each for chunk in audited.chunks for each in _wrong_chunk(chunk, audited, document)),
            *(each for chunk in audited.chunks for each in _wrong_vector(chunk, recipe)),
            *(each for chunk in audited.chunks for each in _wrong_windows(chunk, recipe)),
            *(each for chunk in audited.chunks for each in _wrong_sparse(chunk, recipe)),
        ]
        if not audited.level:
            found.append(_of(audited, Kind.NOT_LEVEL, "It is not marked level."))
    return sorted(found, key=lambda finding: finding.place)


def finding_of(drift: Drift) -> Finding:
    """A store's own finding in the same form."""
    document_id, _, position = drift.chunk_id.rpartition(":")
    return Finding(
        kind=Kind.STORE_DRIFT,
        document_id=document_id,
        position=int(position) if document_id and position.isdigit() else None,
        detail=f"{drift.part}, {drift.kind}: {drift.detail}",
    )


def is_sound(chunk: AuditedChunk, audited: Audited, recipe: Recipe) -> bool:
    """Whether a chunk's vector is of its document's present text, and one that a store takes."""
    return (
        audited.document is not None
        and chunk.vector is not None
        and not list(_wrong_chunk(chunk, audited, audited.document, copies=False))
        and not list(_wrong_vector(chunk, recipe))
    )


def wrong_windows(text: str, rows: Vectors | None, recipe: Recipe) -> str:
    """What is wrong with the vectors of the windows of a chunk's text, empty where nothing is."""
    if recipe.windows not in {"", WINDOWS}:
        return ""  # of another version of this program, which alone can tell
    wanted = len(windows_of(text)) if recipe.windows else 0
    if rows is None:
        return f"There are none of its {wanted} windows." if wanted else ""
    if rows.shape != (wanted, recipe.dimensions):
        return f"The shape is {rows.shape}, not {(wanted, recipe.dimensions)}."
    return "" if are_sound(rows) else "They are not finite and of length 1."


def wrong_sparse(sparse: SparseWeights | None, recipe: Recipe) -> str:
    """What is wrong with the sparse weights of a chunk, empty where nothing is."""
    if not recipe.sparse:
        return "" if sparse is None else "The recipe has none."
    if sparse is None:
        return "There are none."
    return "" if sparse.sound else "They are damaged."


def label_terms(document: Document) -> set[str]:
    """What filters find a document's chunks by: a term a key, and one a key and value."""
    labels = labels_of(document)
    pairs = {f"{key}{_SEPARATOR}{value}" for key, values in labels.items() for value in values}
    return pairs | labels.keys()


def _of(audited: Audited, kind: Kind, detail: str) -> Finding:
    return Finding(kind=kind, document_id=audited.document_id, detail=detail)


def _at(chunk: AuditedChunk, kind: Kind, detail: str) -> Finding:
    return Finding(
        kind=kind,
        document_id=chunk.chunk.document_id,
        position=chunk.chunk.position,
        key=chunk.key,
        detail=detail,
    )


def _orphans(audited: Audited) -> Iterator[Finding]:
    for chunk in audited.chunks:
        detail = "The document was deleted." if audited.revision else "There is no such document."
        yield _at(chunk, Kind.CHUNK_WITHOUT_DOCUMENT, detail)
    if audited.revision and not audited.complete:
        yield _of(audited, Kind.INCOMPLETE_WRITE, "Its delete was not finished.")


def _wrong_acls(audited: Audited, document: Document) -> Iterator[Finding]:
    prefix = f"acl{_SEPARATOR}"
    wanted = {f"{prefix}{encode_value(group)}" for group in document.acl}
    for chunk in audited.chunks:
        if chunk.labels is None:
            continue
        shown = {term for term in chunk.labels if term.startswith(prefix)}
        if shown != wanted:
            groups, says = _groups(shown, prefix), ", ".join(document.acl) or "nobody"
            detail = f"It is shown to {groups}; the document says {says}."
            yield _at(chunk, Kind.WRONG_ACL, detail)


def _groups(terms: set[str], prefix: str) -> str:
    """Without the letter that names a value's type."""
    return ", ".join(sorted(term.removeprefix(prefix)[1:] for term in terms)) or "nobody"


def _wrong_places(audited: Audited, document: Document) -> Iterator[Finding]:
    """Which positions are empty, taken twice or too many, and what text lies in none."""
    at: dict[int, list[AuditedChunk]] = {}
    for chunk in audited.chunks:
        at.setdefault(chunk.chunk.position, []).append(chunk)
    expected = range(audited.chunks_expected)
    if not audited.level:  # then nobody has said how many there are
        expected = range(1 + max(at, default=-1))
    recorded = f"Chunks expected: {len(expected)}."
    blank = not document.text.strip()
    if not audited.chunks and (expected or document.title or not blank):
        yield _of(audited, Kind.DOCUMENT_WITHOUT_CHUNKS, recorded)
        return
    for position in expected:
        if position not in at:
            yield Finding(
                kind=Kind.MISSING_CHUNK,
                document_id=audited.document_id,
                position=position,
                detail=recorded,
            )
    for position, chunks in at.items():
        if position not in expected:
            for chunk in chunks:
                yield _at(chunk, Kind.SURPLUS_CHUNK, recorded)
            continue
        for chunk in sorted(chunks, key=lambda each: _rank(each, audited))[1:]:
            yield _at(chunk, Kind.DUPLICATE_CHUNK, "Another stands at its position.")
    whole = all(position in at for position in expected)
    present = all(chunk.revision == audited.revision for chunk in audited.chunks)
    gap = _first_gap(document.text, audited.chunks) if whole and present else None
    if gap is not None:
        detail = f"The text from character {gap} lies in no chunk."
        yield _of(audited, Kind.UNCOVERED_TEXT, detail)


def _rank(chunk: AuditedChunk, audited: Audited) -> tuple[bool, bool]:
    """Of several at one position the least is the one to stay."""
    return chunk.revision != audited.revision, chunk.key != chunk.chunk.id


def _first_gap(text: str, chunks: Sequence[AuditedChunk]) -> int | None:
    """Where text that is not blank begins that no chunk holds."""
    covered = 0
    spans = sorted((each.chunk.start, each.chunk.end) for each in chunks)
    for start, end in [*spans, (len(text), len(text))]:
        between = text[covered : max(covered, start)]
        if between.strip():
            return covered + len(between) - len(between.lstrip())
        covered = max(covered, end)
    return None


def _wrong_chunk(
    chunk: AuditedChunk, audited: Audited, document: Document, *, copies: bool = True
) -> Iterator[Finding]:
    if chunk.revision != audited.revision:
        detail = f"It is of revision {chunk.revision}, the document has {audited.revision}."
        yield _at(chunk, Kind.STALE_CHUNK, detail)
        return
    start, end = chunk.chunk.start, chunk.chunk.end
    if not 0 <= start <= end or chunk.chunk.text != document.text[start:end]:
        detail = f"Characters {start} to {end} of the document are another text."
        yield _at(chunk, Kind.WRONG_TEXT, detail)
    wrong = _wrong_copies(chunk, document) if copies else []
    if wrong:
        yield _at(chunk, Kind.WRONG_COPY, f"Not as in the document: {', '.join(wrong)}.")


def _wrong_copies(chunk: AuditedChunk, document: Document) -> list[str]:
    """Which copies kept with a chunk differ from its document, ``acl`` left out."""
    wrong = []
    if chunk.title not in {None, document.title}:
        wrong.append("title")
    if chunk.source not in {None, document.source}:
        wrong.append("source")
    if chunk.metadata is not None and _listed(chunk.metadata) != _listed(document.metadata):
        wrong.append("metadata")
    if chunk.labels is not None:
        kept, wanted = set(chunk.labels), label_terms(document)
        prefix = f"acl{_SEPARATOR}"
        if any(not term.startswith(prefix) for term in kept ^ wanted):
            wrong.append("labels")
    return wrong


def _listed(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """With lists as lists, whichever kind a store gives."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in metadata.items()}


def _wrong_vector(chunk: AuditedChunk, recipe: Recipe) -> Iterator[Finding]:
    vector = chunk.vector
    if vector is None:
        if recipe.dimensions:
            yield _at(chunk, Kind.MISSING_VECTOR, f"The recipe has {recipe.dimensions} dimensions.")
    elif not recipe.dimensions:
        detail = f"It has the shape {vector.shape}, the recipe has no embedder."
        yield _at(chunk, Kind.UNEXPECTED_VECTOR, detail)
    elif vector.shape != (recipe.dimensions,):
        detail = f"The shape is {vector.shape}, the recipe has {recipe.dimensions} dimensions."
        yield _at(chunk, Kind.WRONG_DIMENSIONS, detail)
    elif not np.isfinite(vector).all():
        yield _at(chunk, Kind.VECTOR_NOT_FINITE, "It holds NaN or infinity.")
    else:
        length = math.sqrt(float(np.dot(vector.astype(np.float64), vector.astype(np.float64))))
        if abs(length - 1.0) > _LENGTH_TOLERANCE:
            yield _at(chunk, Kind.WRONG_LENGTH, f"Its length is {length:g}.")


def _wrong_windows(chunk: AuditedChunk, recipe: Recipe) -> Iterator[Finding]:
    detail = wrong_windows(chunk.chunk.text, chunk.windows, recipe)
    if detail:
        kind = Kind.MISSING_WINDOWS if chunk.windows is None else Kind.WRONG_WINDOWS
        yield _at(chunk, kind, detail)


def _wrong_sparse(chunk: AuditedChunk, recipe: Recipe) -> Iterator[Finding]:
    detail = wrong_sparse(chunk.sparse, recipe)
    if detail:
        yield _at(chunk, Kind.MISSING_SPARSE if chunk.sparse is None else Kind.WRONG_SPARSE, detail)
