"""Vectors that are taken along, so that nothing is embedded twice: by passage, packed and unpacked."""

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.documents import Chunk, Document, Vector, Vectors
from server.errors import GenerationNotFound, InvalidInput
from server.ingest.derivation import KnownVectors
from server.ingest.windows import FINGERPRINT as WINDOWS
from server.ingest.windows import passages_of
from server.stores.contract import Store

KEY_BYTES = 32
_LENGTH_TOLERANCE = 1e-3
_NOT_ARRAYS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    ValueError,
    EOFError,
    NotImplementedError,  # a compression that this Python doesn't have
    RuntimeError,  # encrypted
)


def key_of(passage: str) -> bytes:
    """SHA-256 of a passage's key (see ``passages_of``)."""
    return hashlib.sha256(passage.encode()).digest()


def kept_vectors(
    title: str, chunk: Chunk, vector: Vector | None, windows: Vectors | None
) -> Iterator[tuple[str, Vector]]:
    """Key → vector, of what a store has of a chunk, made by this program's windows if any."""
    own, *keys = passages_of(title, chunk, windowed=windows is not None)
    if vector is not None:
        yield own, vector
    if windows is not None and len(windows) == len(keys):
        yield from zip(keys, windows, strict=True)


def stored_vectors(
    store: Store, collection: str, embedder: str, documents: Sequence[Document]
) -> dict[str, Vector] | None:
    """Key (see ``passages_of``) → vector, of documents as they were read from the store.

    A document that is written meanwhile is left out, since its chunks may be of another form of it than
    its title, of which the passages are made. None: the collection's vectors are those of another
    embedder.
    """
    ids = [document.id for document in documents]
    while True:
        live = store.live(collection, fresh=True)
        if live.recipe.embedder != embedder:
            return None
        before = store.states(collection, ids)
        try:
            chunks = store.generations.chunks(collection, live.id, ids)
        except GenerationNotFound:  # another was promoted and this one dropped
            continue
        after = store.states(collection, ids)
        if store.live(collection, fresh=True).id == live.id:
            break
    found: dict[str, Vector] = {}
    for document in documents:
        state = after.get(document.id)
        if state is None or not state.complete or state != before.get(document.id):
            continue
        if state.content_hash != document.content_hash:
            continue
        for each in chunks.get(document.id, ()):
            windows = each.windows if live.recipe.windows == WINDOWS else None
            found.update(kept_vectors(document.title, each.chunk, each.vector, windows))
    return found


def known_in(store: Store, collection: str, embedder: str) -> KnownVectors | None:
    """The vectors that a collection has of documents, where they are of that embedder."""
    if not embedder or store.live(collection, fresh=True).recipe.embedder != embedder:
        return None
    return lambda documents: stored_vectors(store, collection, embedder, documents) or {}


class KeyedVectors(Mapping[str, Vector]):
    """Vectors by passages of which only the keys are known; iterating gives those asked for so far."""

    def __init__(self, vectors: Mapping[bytes, Vector]) -> None:
        self._vectors = vectors
        self._asked: dict[str, Vector] = {}

    def __getitem__(self, passage: str) -> Vector:
        if passage not in self._asked:
            self._asked[passage] = self._vectors[key_of(passage)]
        return self._asked[passage]

    def __iter__(self) -> Iterator[str]:
        return iter(self._asked)

    def __len__(self) -> int:
        return len(self._asked)


def pack(vectors: Mapping[bytes, Vector], dimensions: int) -> bytes:
    """An .npz of ``keys``, uint8 (n, 32), and ``vectors``, float32 (n, dimensions)."""
    keys = np.frombuffer(b"".join(vectors), np.uint8).reshape(-1, KEY_BYTES)
    rows = np.empty((len(vectors), dimensions), np.float32)
    for at, vector in enumerate(vectors.values()):
        rows[at] = vector
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, keys=keys, vectors=rows)
    return packed.getvalue()


def unpack(packed: bytes, dimensions: int) -> dict[bytes, Vector]:
    """What ``pack`` packed. Needs no more memory than the file has, whatever the file says.

    Raises InvalidInput for anything else than these two arrays of these shapes and types, and for
    vectors that are not finite and of length 1.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as members:
            if sorted(members.namelist()) != ["keys.npy", "vectors.npy"]:
                raise InvalidInput("it holds other arrays than keys and vectors.")
            if any(member.compress_type != zipfile.ZIP_STORED for member in members.infolist()):
                raise InvalidInput("its arrays are compressed, which none of ours are.")
            keys = _array(members, "keys.npy", np.dtype(np.uint8), KEY_BYTES)
            rows = _array(members, "vectors.npy", np.dtype(np.float32), dimensions)
    except _NOT_ARRAYS as error:
        raise InvalidInput(f"it holds no arrays that can be read: {error}.") from error
    if len(keys) != len(rows):
        raise InvalidInput(f"it has {len(keys)} keys and {len(rows)} vectors.")
    lengths = np.linalg.norm(rows, axis=1)
    if not (np.abs(lengths - 1.0) <= _LENGTH_TOLERANCE).all():  # False for NaN too
        raise InvalidInput("it holds vectors that are not finite and of length 1.")
    return {key.tobytes(): row for key, row in zip(keys, rows, strict=True)}


def _array(members: zipfile.ZipFile, name: str, dtype: "np.dtype[Any]", width: int) -> NDArray[Any]:
    """One array, by hand: its header could ask for any memory, or for objects to be unpickled."""
    with members.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise InvalidInput(f"{name} has a version of NumPy's format that none of ours has.")
        shape, by_columns, found = np.lib.format.read_array_header_1_0(stream)
        if found != dtype or by_columns or len(shape) != 2 or shape[1] != width:
            raise InvalidInput(f"{name} is {found} {shape}, not {dtype} (n, {width}).")
        data = stream.read()
    if len(data) != shape[0] * width * dtype.itemsize:
        raise InvalidInput(f"{name} has other data than its header says.")
    return np.frombuffer(data, dtype).reshape(shape)
