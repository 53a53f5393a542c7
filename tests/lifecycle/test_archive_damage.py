"""Archives as they are read: the same as was written, whoever it comes from, or an error."""

import gzip
import io
import json
import shutil
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.documents import Document
from server.errors import InvalidInput
from server.lifecycle.archive import MANIFEST, Archive, digest_of
from server.lifecycle.vectors import pack
from tests.lifecycle.archives import (
    documents,
    forge,
    packed,
    rewrite,
    some_documents,
    vectors_of,
    write_archive,
)

NOTES = {"vocabulary": {"dictionary": {"version": 1, "log": []}}, "vocabulary:x:000001": {"a": 1}}


def read(path: Path) -> tuple[list[Document], dict[bytes, bytes]]:
    """Everything in an archive, checked: documents in order, vectors as bytes."""
    with Archive(path) as archive:
        archive.check()
        archive.notes()
        found: list[Document] = []
        vectors: dict[bytes, bytes] = {}
        for part in archive.parts():
            found += part.documents()
            vectors |= {key: each.vector.tobytes() for key, each in part.vectors().items()}
        assert archive.manifest.documents == len(found)
        hashes = {each.id: each.content_hash for each in found}
        assert archive.manifest.digest == digest_of(hashes)
        return found, vectors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    write_archive(folder, some_documents(25), notes=NOTES)
    return folder


@settings(deadline=None)
@given(documents(), st.sampled_from(("", "a.tar", "a.tar.gz", "a.tgz")), st.integers(1, 4))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, written: list[Document], form: str, part: int
) -> None:
    folder = tmp_path_factory.mktemp("archives") / "archive"
    write_archive(folder, written, part=part)
    found, vectors = read(packed(folder, form) if form else folder)
    assert found == written
    assert [each.content_hash for each in found] == [each.content_hash for each in written]
    assert vectors == {key: each.vector.tobytes() for key, each in vectors_of(written).items()}
    shutil.rmtree(folder.parent)


def test_the_digest_depends_on_ids_and_contents_alone() -> None:
    hashes = {each.id: each.content_hash for each in some_documents(20)}
    assert digest_of(dict(sorted(hashes.items(), reverse=True))) == digest_of(hashes)
    assert digest_of({**hashes, "d0": "0" * 64}) != digest_of(hashes)


@pytest.mark.parametrize("form", ["", "a.tar", "a.tar.gz"])
def test_a_flipped_bit_anywhere_is_found(folder: Path, form: str) -> None:
    whole = read(folder)
    random = Random(form)
    for _ in range(150):
        path = packed(folder, form) if form else random.choice(sorted(folder.iterdir()))
        before = path.read_bytes()
        data = bytearray(before)
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        path.write_bytes(data)
        if form:
            with suppress(InvalidInput):  # or a byte that means nothing: padding, a time, an owner
                assert read(path) == whole
        else:
            with pytest.raises(InvalidInput):
                read(folder)
        path.write_bytes(before)
    assert read(folder) == whole


def test_what_is_missing_is_named(folder: Path) -> None:
    (folder / "documents-00002.jsonl").unlink()
    with pytest.raises(InvalidInput, match=r"documents-00002\.jsonl is missing"):
        read(folder)


def test_an_export_that_was_cut_off_is_not_imported(folder: Path) -> None:
    rewrite(folder, lambda manifest: replace(manifest, state="partial"))
    with pytest.raises(InvalidInput, match="cut off"):
        Archive(folder)


def test_an_archive_of_a_newer_program_says_so(folder: Path) -> None:
    rewrite(folder, lambda manifest: replace(manifest, format=2))
    with pytest.raises(InvalidInput, match="Update the program"):
        Archive(folder)


def test_no_archive_at_all(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="There is no archive"):
        Archive(tmp_path / "nothing.tar")
    with pytest.raises(InvalidInput, match=r"has no manifest\.json"):
        Archive(tmp_path)
    (tmp_path / "noise.tar.gz").write_bytes(Random(1).randbytes(5_000))
    with pytest.raises(InvalidInput, match="can't be read"):
        Archive(tmp_path / "noise.tar.gz")


def first_line(folder: Path, **changes: object) -> bytes:
    lines = (folder / "documents-00001.jsonl").read_bytes().splitlines(keepends=True)
    fields = json.loads(lines[0]) | changes
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n" + b"".join(lines[1:])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"text": "another"}, "is not the document that was exported"),
        ({"text": 3}, "'text' must be a string"),
        ({"acl": "public"}, "'acl' must be a list"),
        ({"id": "../../etc/passwd"}, "path part"),
        ({"text": "\x00"}, r"U\+0000"),
        ({"metadata": {"a": {"b": 1}}}, r"metadata\.a"),
        ({"extra": 1}, "Unknown field"),
        ({"content_hash": None}, "is not the document that was exported"),
    ],
)
def test_lines_are_not_believed(folder: Path, changes: dict[str, object], said: str) -> None:
    forge(folder, "documents-00001.jsonl", first_line(folder, **changes))
    with pytest.raises(InvalidInput, match=said):
        read(folder)


@pytest.mark.parametrize("line", [b"{", b"[]\n", b"\xff\n", b"[" * 100_000 + b"\n", b"{}"])
def test_lines_that_are_no_json_objects(folder: Path, line: bytes) -> None:
    forge(folder, "documents-00001.jsonl", line)
    with pytest.raises(InvalidInput, match=r"documents-00001\.jsonl, line 1"):
        read(folder)


def test_counts_are_compared(folder: Path) -> None:
    lines = (folder / "documents-00001.jsonl").read_bytes().splitlines(keepends=True)
    forge(folder, "documents-00001.jsonl", b"".join(lines[1:]))
    with pytest.raises(InvalidInput, match="holds 9 documents, not 10"):
        read(folder)
    rewrite(folder, lambda manifest: replace(manifest, documents=24))
    with pytest.raises(InvalidInput, match="counts other documents"):
        Archive(folder)


@pytest.mark.parametrize(
    "name", ["../documents-00001.jsonl", "/etc/passwd", "documents-00001.jsonl\x00", "x", MANIFEST]
)
def test_a_manifest_names_no_other_files(folder: Path, name: str) -> None:
    rewrite(
        folder,
        lambda manifest: replace(
            manifest, files=(*manifest.files, replace(manifest.files[0], name=name, entries=0))
        ),
    )
    with pytest.raises(InvalidInput, match="which no archive has"):
        Archive(folder)


def test_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    part = folder / "documents-00001.jsonl"
    part.rename(tmp_path / "elsewhere")
    part.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match="is a link"):
        read(folder)


@pytest.mark.parametrize("value", [["a"], "x", 3])
def test_notes_are_not_believed(folder: Path, value: object) -> None:
    forge(folder, "notes.json", json.dumps({"vocabulary": value}).encode())
    with pytest.raises(InvalidInput, match="no note of a vocabulary"):
        read(folder)
    forge(folder, "notes.json", json.dumps({"profile": {"log": value}}).encode())
    with pytest.raises(InvalidInput, match="holds a profile that is none"):
        read(folder)
    forge(folder, "notes.json", json.dumps({"lock:rebuild": {}}).encode())
    with pytest.raises(InvalidInput, match="no note of a vocabulary"):
        read(folder)


# Vectors -------------------------------------------------------------------------------------------


def saved(**arrays: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def compressed() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(
        stream, keys=np.zeros((1, 32), np.uint8), vectors=np.zeros((1_000_000, 16), np.float32)
    )
    return stream.getvalue()


def claiming(shape: str) -> bytes:
    """An array whose header asks for more than the file has."""
    keys = io.BytesIO()
    np.save(keys, np.zeros((1, 32), np.uint8))
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    vectors = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as members:
        members.writestr("keys.npy", keys.getvalue())
        members.writestr("vectors.npy", vectors)
    return stream.getvalue()


KEY = np.zeros((1, 32), np.uint8)
ROW = np.eye(1, 16, dtype=np.float32)


@pytest.mark.parametrize(
    "data",
    [
        saved(keys=KEY, vectors=np.array([[object()] * 16], dtype=object)),
        saved(keys=KEY, vectors=ROW.astype(np.float64)),
        saved(keys=KEY, vectors=ROW[:, :8]),
        saved(keys=KEY, vectors=ROW[0]),
        saved(keys=KEY, vectors=np.asfortranarray(np.repeat(ROW, 2, axis=0))),
        saved(keys=KEY[:, :8], vectors=ROW),
        saved(keys=np.repeat(KEY, 2, axis=0), vectors=ROW),
        saved(keys=KEY, vectors=np.full_like(ROW, np.nan)),
        saved(keys=KEY, vectors=np.full_like(ROW, np.inf)),
        saved(keys=KEY, vectors=ROW * 2),
        saved(keys=KEY, vectors=ROW, more=ROW),
        saved(keys=KEY),
        claiming("(1000000000000, 16)"),
        claiming("(-1, 16)"),
        claiming("(1, 16)"),
        claiming("(__import__('os'), 16)"),
        compressed(),
        b"",
        b"PK",
    ],
)
def test_vectors_are_not_believed(folder: Path, data: bytes) -> None:
    forge(folder, "vectors-00001.npz", data)
    tracemalloc.start()
    with pytest.raises(InvalidInput, match=r"vectors-00001\.npz"):
        read(folder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000


def test_no_vectors_at_all(tmp_path: Path) -> None:
    assert pack({}, 16)
    write_archive(tmp_path, some_documents(3), with_vectors=False)
    assert read(tmp_path) == (some_documents(3), {})


# Tar files -----------------------------------------------------------------------------------------


def tar_of(folder: Path, change: Callable[[tarfile.TarInfo], None], name: str) -> Path:
    """A tar file of an archive in which one member is another than it should be."""
    path = folder.with_name("changed.tar")
    with tarfile.open(path, "w") as tar:
        for file in [folder / MANIFEST, *sorted(folder.glob("[!m]*"))]:
            member = tarfile.TarInfo(file.name)
            member.size = file.stat().st_size
            if file.name == name:
                change(member)
            tar.addfile(member, io.BytesIO(file.read_bytes()) if member.isreg() else None)
    return path


def renamed(name: str) -> Callable[[tarfile.TarInfo], None]:
    def change(member: tarfile.TarInfo) -> None:
        member.name = name

    return change


def of_type(kind: bytes) -> Callable[[tarfile.TarInfo], None]:
    def change(member: tarfile.TarInfo) -> None:
        member.type, member.linkname = kind, "/etc/passwd"

    return change


def test_a_tar_file_made_by_hand_is_read(folder: Path) -> None:
    def unchanged(_: tarfile.TarInfo) -> None:
        pass

    assert read(tar_of(folder, unchanged, "")) == read(folder)


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        (renamed("../notes.json"), "notes.json", "doesn't name"),
        (renamed("/etc/notes.json"), "notes.json", "doesn't name"),
        (renamed("a/manifest.json"), MANIFEST, "is not the first file"),
        (of_type(tarfile.SYMTYPE), "notes.json", "link"),
        (of_type(tarfile.LNKTYPE), "notes.json", "link"),
        (of_type(tarfile.CHRTYPE), "notes.json", "link"),
        (of_type(tarfile.SYMTYPE), MANIFEST, "link"),
    ],
)
def test_members_are_not_believed(
    folder: Path, change: Callable[[tarfile.TarInfo], None], name: str, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        read(tar_of(folder, change, name))


def test_a_member_larger_than_stated_is_not_read(folder: Path) -> None:
    (folder / "notes.json").write_bytes(b" " * 50_000_000)
    with pytest.raises(InvalidInput, match="stands twice or has not"):
        read(packed(folder, "a.tar.gz"))


def test_an_archive_that_would_fill_the_machine_is_refused(folder: Path) -> None:
    forge(folder, "documents-00001.jsonl", b" " * 300_000_000)
    path = packed(folder, "bomb.tar.gz")
    assert path.stat().st_size < 1_000_000
    tracemalloc.start()
    with pytest.raises(InvalidInput, match="would unpack to"):
        Archive(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000


def test_a_header_that_asks_for_memory_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("manifest.json")
    header.type, header.size = tarfile.XHDTYPE, 2_000_000_000
    path = tmp_path / "header.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(header.tobuf())
        stream.write(b"\0" * 40_000_000)
    with pytest.raises(InvalidInput, match="can't be read"):
        Archive(path)
