"""Findings: silent on whatever the chunker makes, and each damage told by its kind."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.documents import Document
from server.lifecycle.findings import Finding, Kind, finding_of, is_sound, judge
from server.stores.audit import Audited, AuditedChunk, Drift
from tests.lifecycle.audited import LEXICAL, RECIPE, sound
from tests.stores.strategies import labelled_documents

PIECES = st.sampled_from(
    ["# 标题\n", "一句话。", "A sentence. ", "\n\n", " ", "\u3000", "\u200b", "- item\n", "x" * 40, "| a |\n"]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=8), max_size=40).map("".join)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    labels = draw(labelled_documents())
    named = labels[0] if labels else {"document_id": "a"}
    document_id = named.pop("document_id")
    title = draw(st.sampled_from(("", "差旅", "Travel")))
    return replace(Document.create(id=document_id, text="", title=title, **named), text=draw(TEXTS))


def kinds(findings: list[Finding]) -> list[Kind]:
    return [finding.kind for finding in findings]


def document(sections: int = 3, **values: object) -> Document:
    text = "\n\n".join(f"## 第{n}节\n\n" + f"第{n}节说明请假的规则。" * 3 for n in range(sections))
    parts = {"title": "手册", "source": "wiki", "acl": ("hr",), "metadata": {"year": 2025}}
    return Document.create(id="a", **{"text": text, **parts, **values})  # type: ignore[arg-type]


AUDITED = sound(document(), revision=3)
CHUNKS = len(AUDITED.chunks)


def with_chunk(number: int, **changes: object) -> Audited:
    """The sound document with one chunk changed."""
    chunks = list(AUDITED.chunks)
    chunks[number] = replace(chunks[number], **changes)  # type: ignore[arg-type]
    return replace(AUDITED, chunks=tuple(chunks))


def moved(number: int, **changes: int | str) -> Audited:
    chunk = AUDITED.chunks[number].chunk
    return with_chunk(number, chunk=replace(chunk, **changes))  # type: ignore[arg-type]


def labels(number: int, old: str, new: str) -> tuple[str, ...]:
    return tuple(term.replace(old, new) for term in AUDITED.chunks[number].labels or ())


def nan() -> np.ndarray:
    vector = np.full(4, 0.5, np.float32)
    vector[1] = np.nan
    return vector


@settings(max_examples=200, deadline=None)
@given(document=documents(), copies=st.booleans(), lexical=st.booleans())
def test_what_a_sound_store_says_gives_no_finding(
    document: Document, copies: bool, lexical: bool
) -> None:
    recipe = LEXICAL if lexical else RECIPE
    audited = sound(document, copies=copies, dimensions=recipe.dimensions)
    assert judge(audited, recipe) == []
    assert all(is_sound(chunk, audited, RECIPE) for chunk in audited.chunks if not lexical)


CHANGES: dict[Kind, Callable[[AuditedChunk], AuditedChunk]] = {
    Kind.WRONG_ACL: lambda c: replace(c, labels=(*(c.labels or ()), "acl\x1fsothers")),
    Kind.STALE_CHUNK: lambda c: replace(c, revision=c.revision - 1),
    Kind.WRONG_TEXT: lambda c: replace(c, chunk=replace(c.chunk, text=c.chunk.text + "x")),
    Kind.MISSING_VECTOR: lambda c: replace(c, vector=None),
    Kind.VECTOR_NOT_FINITE: lambda c: replace(c, vector=np.full(4, np.inf, np.float32)),
    Kind.WRONG_DIMENSIONS: lambda c: replace(c, vector=np.full(3, 0.5, np.float32)),
    Kind.WRONG_LENGTH: lambda c: replace(c, vector=np.zeros(4, np.float32)),
    Kind.WRONG_COPY: lambda c: replace(c, metadata={"year": "1999"}),
}


@settings(max_examples=100, deadline=None)
@given(document=documents(), kind=st.sampled_from(sorted(CHANGES)), data=st.data())
def test_a_change_of_any_chunk_is_found_there_and_nothing_else_is(
    document: Document, kind: Kind, data: st.DataObject
) -> None:
    audited = sound(document)
    if not audited.chunks:
        return
    number = data.draw(st.integers(0, len(audited.chunks) - 1))
    chunks = list(audited.chunks)
    chunks[number] = CHANGES[kind](chunks[number])
    [found] = judge(replace(audited, chunks=tuple(chunks)), RECIPE)
    assert (found.kind, found.document_id, found.position) == (kind, document.id, number)
    assert found.key == f"{document.id}:{number}"
    assert is_sound(chunks[number], audited, RECIPE) is (kind in {Kind.WRONG_ACL, Kind.WRONG_COPY})


DOUBLE = replace(AUDITED.chunks[1], key="other")


@pytest.mark.parametrize(
    ("audited", "expected"),
    [
        (replace(AUDITED, chunks=()), [Kind.DOCUMENT_WITHOUT_CHUNKS]),
        (replace(AUDITED, chunks=(), chunks_expected=0), [Kind.DOCUMENT_WITHOUT_CHUNKS]),
        (replace(AUDITED, chunks=AUDITED.chunks[:-1]), [Kind.MISSING_CHUNK]),
        (replace(AUDITED, chunks=AUDITED.chunks[1:]), [Kind.MISSING_CHUNK]),
        (replace(AUDITED, chunks=AUDITED.chunks[:-1], chunks_expected=CHUNKS - 1), [Kind.UNCOVERED_TEXT]),
        (replace(AUDITED, chunks_expected=CHUNKS - 1), [Kind.SURPLUS_CHUNK]),
        (moved(1, position=-1), [Kind.MISSING_CHUNK, Kind.SURPLUS_CHUNK]),
        (replace(AUDITED, chunks=(*AUDITED.chunks, DOUBLE)), [Kind.DUPLICATE_CHUNK]),
        (replace(AUDITED, level=False), [Kind.NOT_LEVEL]),
        (replace(AUDITED, level=False, chunks_expected=0), [Kind.NOT_LEVEL]),
        (
            replace(AUDITED, level=False, chunks=AUDITED.chunks[1:], chunks_expected=0),
            [Kind.MISSING_CHUNK, Kind.NOT_LEVEL],
        ),
        (replace(AUDITED, content_hash="0"), [Kind.DAMAGED_DOCUMENT]),
        (replace(AUDITED, content_hash="0", chunks=(), complete=False), [Kind.DAMAGED_DOCUMENT]),
        (replace(AUDITED, content_hash=""), []),
        (replace(AUDITED, complete=False), [Kind.INCOMPLETE_WRITE]),
        (replace(AUDITED, complete=False, chunks=()), [Kind.INCOMPLETE_WRITE]),
        (with_chunk(1, vector=np.full((1, 4), 0.5, np.float32)), [Kind.WRONG_DIMENSIONS]),
        (with_chunk(1, vector=nan()), [Kind.VECTOR_NOT_FINITE]),
        (with_chunk(0, vector=np.full(4, 0.6, np.float32)), [Kind.WRONG_LENGTH]),
        (with_chunk(1, title="Handbuch"), [Kind.WRONG_COPY]),
        (with_chunk(1, source=""), [Kind.WRONG_COPY]),
        (with_chunk(1, metadata={"year": 2024}), [Kind.WRONG_COPY]),
        (with_chunk(1, labels=labels(1, "year", "day")), [Kind.WRONG_COPY]),
        (with_chunk(1, labels=labels(1, "shr", "spublic")), [Kind.WRONG_ACL]),
        (with_chunk(1, labels=()), [Kind.WRONG_ACL, Kind.WRONG_COPY]),
        (moved(1, start=0), [Kind.WRONG_TEXT]),
        (moved(1, start=-5), [Kind.WRONG_TEXT]),
        (moved(2, text="另一段"), [Kind.WRONG_TEXT]),
    ],
)  # fmt: skip
def test_each_damage_is_told_by_its_kind(audited: Audited, expected: list[Kind]) -> None:
    assert kinds(judge(audited, RECIPE)) == expected


def test_a_vector_where_the_recipe_has_none() -> None:
    assert kinds(judge(AUDITED, LEXICAL)) == [Kind.UNEXPECTED_VECTOR] * CHUNKS


def test_an_acl_that_is_shown_to_others_comes_first_and_names_both() -> None:
    audited = with_chunk(2, labels=labels(2, "shr", "spublic"), vector=None)
    audited = replace(audited, chunks=(*audited.chunks, DOUBLE), level=False)
    first, *others = judge(audited, RECIPE)
    assert first.kind is Kind.WRONG_ACL
    assert first.detail == "It is shown to public; the document says hr."
    assert kinds(others) == [Kind.DUPLICATE_CHUNK, Kind.MISSING_VECTOR, Kind.NOT_LEVEL]


def test_of_a_duplicate_the_chunk_of_the_present_revision_under_its_own_id_stays() -> None:
    stale = replace(AUDITED.chunks[1], revision=2)
    own = replace(AUDITED.chunks[1], key="other")
    findings = judge(
        replace(AUDITED, chunks=(AUDITED.chunks[0], stale, own, *AUDITED.chunks[2:])), RECIPE
    )
    duplicate = next(each for each in findings if each.kind is Kind.DUPLICATE_CHUNK)
    assert duplicate.key == stale.key
    for chunks in ((*AUDITED.chunks, own), (own, *AUDITED.chunks)):
        [duplicate] = judge(replace(AUDITED, chunks=chunks), RECIPE)
        assert duplicate.key == "other"


def test_chunks_without_a_document() -> None:
    nothing = replace(AUDITED, document=None, revision=0, chunks_expected=0)
    assert kinds(judge(nothing, RECIPE)) == [Kind.CHUNK_WITHOUT_DOCUMENT] * CHUNKS
    assert judge(replace(nothing, chunks=(), complete=False), RECIPE) == []
    deleted = replace(AUDITED, document=None, revision=4, chunks=())
    assert judge(deleted, RECIPE) == []
    cut_off = replace(deleted, complete=False, chunks=AUDITED.chunks[:1])
    expected = [Kind.CHUNK_WITHOUT_DOCUMENT, Kind.INCOMPLETE_WRITE]
    assert kinds(judge(cut_off, RECIPE)) == expected


def test_half_written_chunks_are_not_judged_but_for_who_may_see_them() -> None:
    audited = with_chunk(1, revision=2, labels=labels(1, "shr", "spublic"))
    assert kinds(judge(replace(audited, complete=False), RECIPE)) == [
        Kind.WRONG_ACL,
        Kind.INCOMPLETE_WRITE,
    ]


def test_a_document_without_text_needs_chunks_only_for_its_title() -> None:
    for text in ("", " \n\u3000"):
        assert judge(sound(document(0, text=text, title="")), RECIPE) == []
        titled = sound(document(0, text=text, title="差旅"))
        assert judge(titled, RECIPE) == []
        bare = replace(titled, chunks=(), chunks_expected=0)
        assert kinds(judge(bare, RECIPE)) == [Kind.DOCUMENT_WITHOUT_CHUNKS]


def test_a_stores_own_finding() -> None:
    found = finding_of(Drift("text index", "surplus", "a:b:12", "There is no such chunk."))
    assert (found.kind, found.document_id, found.position) == (Kind.STORE_DRIFT, "a:b", 12)
    assert found.detail == "text index, surplus: There is no such chunk."
    whole = finding_of(Drift("counts", "damaged", "", "5 instead of 4."))
    assert (whole.document_id, whole.position) == ("", None)
