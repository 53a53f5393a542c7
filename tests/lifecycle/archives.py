"""Documents of every kind, and archives made of them without a store."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from server.documents import Document, StoredDocument, passage_text
from server.errors import InvalidInput
from server.lifecycle.archive import MANIFEST, File, Manifest
from server.lifecycle.archive_folder import ArchiveFolder, now, pack_tar
from server.lifecycle.vectors import key_of
from server.recipes import Recipe
from server.sparse import Embedded
from server.texts import check_text
from tests.fakes import FakeEmbedder

RECIPE = Recipe(embedder="fake:1", dimensions=16, analyzer="a", chunker="c", model="fake")
IDS = ("a", "a/b", "中 文", "c:1", '"d"', "文件.md", "e\u2028f", "tab\tid", "𠮷", "x" * 400)
KEYS = ("year", "kind", "部门", "a.b", "flag")


def is_allowed(text: str) -> bool:
    try:
        check_text(text, field="text", max_chars=10_000)
    except InvalidInput:
        return False
    return True


characters = (
    st.characters(exclude_categories=("Cs",))
    | st.sampled_from(
        "差旅报销标准年假，。！？ABC abc 0123\t\n\r\f\x85\u2028\u200d\ufeff😀👩‍🔬𠮷é\\\"'{}<>"
    )
).filter(is_allowed)
texts = st.text(characters, max_size=80)
scalars = (
    st.text(characters, max_size=20)
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
)


@st.composite
def documents(draw: st.DrawFn) -> list[Document]:
    """Some documents with different ids, in no order."""
    names = draw(st.lists(st.sampled_from(IDS), unique=True, max_size=len(IDS)))
    return [
        Document.create(
            id=name,
            text=draw(texts),
            title=draw(st.text(characters, max_size=20)),
            source=draw(st.sampled_from(("", "wiki", "s3://桶/文件"))),
            acl=draw(st.lists(st.sampled_from(("public", "hr", "财务")), max_size=3)),
            metadata=draw(
                st.dictionaries(
                    st.sampled_from(KEYS), scalars | st.lists(scalars, max_size=3), max_size=4
                )
            ),
        )
        for name in names
    ]


def some_documents(count: int, version: int = 0) -> list[Document]:
    return [
        Document.create(
            id=f"d{number}",
            title=f"第{number}条",
            text=f"版本{version}：员工差旅报销第{number}条，😀 {number * 37 % 101} yuan.\n\n# 节\n正文。",
            acl=["hr"] if number % 3 == 0 else [],
            metadata={"number": number, "tags": ["一", 2.5, True]},
        )
        for number in range(count)
    ]


def write_archive(
    folder: Path,
    documents: Sequence[Document],
    *,
    notes: Mapping[str, Any] | None = None,
    with_vectors: bool = True,
    part: int = 10,
) -> Manifest:
    """A whole archive, a vector for each document's title and text."""
    folder.mkdir(exist_ok=True)
    manifest = Manifest(
        product="1",
        state="partial",
        exported_at=now(),
        collection="books",
        description="旧书",
        recipe=RECIPE,
        with_vectors=with_vectors,
    )
    archive = ArchiveFolder(folder, manifest)
    archive.begin(notes or {})
    for at in range(0, len(documents), part):
        some = documents[at : at + part]
        stored = [
            StoredDocument(document=each, revision=3, chunks=1, updated_at=now()) for each in some
        ]
        archive.add(stored, vectors_of(some) if with_vectors else {})
    return archive.finish()


def vectors_of(documents: Sequence[Document]) -> dict[bytes, Embedded]:
    passages = [passage_text(each.title, (), each.text) for each in documents]
    vectors = FakeEmbedder().embed_documents(passages)
    return {
        key_of(passage): Embedded(vector) for passage, vector in zip(passages, vectors, strict=True)
    }


def packed(folder: Path, name: str) -> Path:
    """The archive in a folder as a tar file beside it."""
    path = folder.with_name(name)
    pack_tar(folder, Manifest.from_bytes((folder / MANIFEST).read_bytes()), path)
    return path


def forge(folder: Path, name: str, data: bytes) -> None:
    """Put other bytes in a file's place, with the hash and size that they have."""
    (folder / name).write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()

    def forged(file: File) -> File:
        return replace(file, bytes=len(data), sha256=sha256) if file.name == name else file

    rewrite(folder, lambda manifest: replace(manifest, files=tuple(map(forged, manifest.files))))


def rewrite(folder: Path, change: Callable[[Manifest], Manifest]) -> None:
    """Make the manifest say something else, with the checksum that it then has."""
    stated = json.loads((folder / MANIFEST).read_bytes())
    stated.pop("checksum")
    files = tuple(File(**file) for file in stated.pop("files"))
    recipe = Recipe.from_json(stated.pop("recipe"))
    changed = change(Manifest(**stated, files=files, recipe=recipe))
    (folder / MANIFEST).write_bytes(changed.to_bytes())
