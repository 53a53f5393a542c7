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
from server.recipes import Recipe
from server.sparse import Embedded, SparseWeights
from server.sparse import pack as pack_sparse
from server.sparse import unpack as unpack_sparse
from server.stores.contract import Store

KEY_BYTES = 32
_PLAIN = ["keys.npy", "vectors.npy"]
_WITH_SPARSE = ["keys.npy", "sizes.npy", "sparse.npy", "vectors.npy"]
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
    title: str,
    chunk: Chunk,
    vector: Vector | None,
    windows: Vectors | None,
    sparse: SparseWeights | None,
) -> Iterator[tuple[str, Embedded]]:
    """By key, what a store has of a chunk, made by this program's windows if any."""
    own, *keys = passages_of(title, chunk, windowed=windows is not None)
    if vector is not None:
        yield own, Embedded(vector, sparse)
    if windows is not None and len(windows) == len(keys):
        yield from zip(keys, map(Embedded, windows), strict=True)


def stored_vectors(
    store: Store, collection: str, recipe: Recipe, documents: Sequence[Document]
) -> dict[str, Embedded] | None:
    """Key (see ``passages_of``) → what a collection has of documents that were read from the store, as
    ``recipe`` makes it.

    A document that is written meanwhile is left out, since its chunks may be of another form of it than
    its title, of which the passages are made. None: the collection's vectors are those of another
    embedder; sparse weights that another head made are left out.
    """
    ids = [document.id for document in documents]
    while True:
        live = store.live(collection, fresh=True)
        if live.recipe.embedder != recipe.embedder:
            return None
        before = store.states(collection, ids)
        try:
            chunks = store.generations.chunks(collection, live.id, ids)
        except GenerationNotFound:  # another was promoted and this one dropped
            continue
        after = store.states(collection, ids)
        if store.live(collection, fresh=True).id == live.id:
            break
    found: dict[str, Embedded] = {}
    for document in documents:
        state = after.get(document.id)
        if state is None or not state.complete or state != before.get(document.id):
            continue
        if state.content_hash != document.content_hash:
            continue
        for each in chunks.get(document.id, ()):
            windows = each.windows if live.recipe.windows == WINDOWS else None
            sparse = each.sparse if live.recipe.sparse == recipe.sparse else None
            kept = kept_vectors(document.title, each.chunk, each.vector, windows, sparse)
            found.update(kept)
    return found


def known_in(store: Store, collection: str, recipe: Recipe) -> KnownVectors | None:
    """The vectors that a collection has of documents, where they are of the recipe's embedder."""
    live = store.live(collection, fresh=True).recipe
    if not recipe.embedder or live.embedder != recipe.embedder:
        return None
    return lambda documents: stored_vectors(store, collection, recipe, documents) or {}


class KeyedVectors(Mapping[str, Embedded]):
    """What was embedded, by passages of which only the keys are known; iterating gives those asked for
    so far."""

    def __init__(self, vectors: Mapping[bytes, Embedded]) -> None:
        self._vectors = vectors
        self._asked: dict[str, Embedded] = {}

    def __getitem__(self, passage: str) -> Embedded:
        if passage not in self._asked:
            self._asked[passage] = self._vectors[key_of(passage)]
        return self._asked[passage]

    def __iter__(self) -> Iterator[str]:
        return iter(self._asked)

    def __len__(self) -> int:
        return len(self._asked)


def pack(vectors: Mapping[bytes, Embedded], dimensions: int) -> bytes:
    """An .npz of ``keys``, uint8 (n, 32), and ``vectors``, float32 (n, dimensions); where there are sparse
    weights also ``sizes``, int32 (n, 1), of each row's bytes (0: it has none), and all their bytes in turn
    (``server.sparse.pack``) as ``sparse``, uint8 (bytes, 1)."""
    keys = np.frombuffer(b"".join(vectors), np.uint8).reshape(-1, KEY_BYTES)
    rows = np.empty((len(vectors), dimensions), np.float32)
    for at, made in enumerate(vectors.values()):
        rows[at] = made.vector
    arrays: dict[str, NDArray[Any]] = {"keys": keys, "vectors": rows}
    sparse = [b"" if made.sparse is None else pack_sparse(made.sparse) for made in vectors.values()]
    if any(sparse):
        arrays["sizes"] = np.array([[len(each)] for each in sparse], np.int32)
        arrays["sparse"] = np.frombuffer(b"".join(sparse), np.uint8).reshape(-1, 1)
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **arrays)
    return packed.getvalue()


def unpack(packed: bytes, dimensions: int) -> dict[bytes, Embedded]:
    """What ``pack`` packed. Needs no more memory than the file has, whatever the file says.

    Raises InvalidInput for anything else than these arrays of these shapes and types, for vectors that
    are not finite and of length 1, and for sparse weights that are none.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as members:
            names = sorted(members.namelist())
            if names not in (_PLAIN, _WITH_SPARSE):
                raise InvalidInput("it holds other arrays than keys and vectors.")
            if any(member.compress_type != zipfile.ZIP_STORED for member in members.infolist()):
                raise InvalidInput("its arrays are compressed, which none of ours are.")
            keys = _array(members, "keys.npy", np.dtype(np.uint8), KEY_BYTES)
            rows = _array(members, "vectors.npy", np.dtype(np.float32), dimensions)
            sparse: Sequence[SparseWeights | None] = [None] * len(rows)
            if names == _WITH_SPARSE:
                sizes = _array(members, "sizes.npy", np.dtype(np.int32), 1)[:, 0]
                sparse = _split(sizes, _array(members, "sparse.npy", np.dtype(np.uint8), 1))
    except _NOT_ARRAYS as error:
        raise InvalidInput(f"it holds no arrays that can be read: {error}.") from error
    if not len(keys) == len(rows) == len(sparse):
        raise InvalidInput(
            f"it has {len(keys)} keys, {len(rows)} vectors and {len(sparse)} sparse weights."
        )
    lengths = np.linalg.norm(rows, axis=1)
    if not (np.abs(lengths - 1.0) <= _LENGTH_TOLERANCE).all():  # False for NaN too
        raise InvalidInput("it holds vectors that are not finite and of length 1.")
    return {
        key.tobytes(): Embedded(row, weights)
        for key, row, weights in zip(keys, rows, sparse, strict=True)
    }


def _split(sizes: NDArray[np.int32], data: NDArray[np.uint8]) -> list[SparseWeights | None]:
    """The sparse weights of each row. Raises InvalidInput."""
    if (sizes < 0).any() or sizes.sum(dtype=np.int64) != len(data):
        raise InvalidInput("its sparse weights have other sizes than it says.")
    whole, start, found = data.tobytes(), 0, list[SparseWeights | None]()
    for size in sizes.tolist():
        weights = unpack_sparse(whole[start : start + size]) if size else None
        if weights is not None and not weights.sound:
            raise InvalidInput("it holds sparse weights that are none.")
        found.append(weights)
        start += size
    return found


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
