"""Where the files of an archive lie: a folder, or a tar file that is read without being unpacked.

Nothing is ever written, so that no name in an archive can lead anywhere. Every failure to read is
InvalidInput.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import IO, Protocol, cast

from server.errors import InvalidInput

_GZIP = b"\x1f\x8b"
_BLOCK = 1024 * 1024
_MOST_AT_ONCE = 16 * 1024 * 1024  # a tar's header may ask for any memory
# Text shrinks to a tenth or so; what grows by more than this was made to keep a machine busy.
_MAX_GROWTH = 250
_FREE_BYTES = 64 * 1024 * 1024


class Source(Protocol):
    """The files of one archive. Close it."""

    def first(self, most: int) -> bytes:
        """The manifest, of at most so many bytes; to be called first."""

    def expect(self, sizes: Mapping[str, int]) -> None:
        """Which other files there have to be, of how many bytes; to be called second."""

    def all(self) -> Iterator[tuple[str, IO[bytes]]]:
        """Every expected file that is there, each to be read, within ``reading``, before the next is
        asked for."""

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """One expected file."""

    def close(self) -> None: ...


def open_source(path: Path, manifest: str) -> Source:
    """The source of an archive; ``manifest``: the name of the file that says what it holds."""
    if path.is_dir():
        return FolderSource(path, manifest)
    if not path.exists():
        raise InvalidInput(f"There is no archive {path}.", field="archive")
    return TarSource(path, manifest)


def read_at_most(stream: IO[bytes], most: int) -> bytes:
    """The whole stream. Raises InvalidInput where it is longer."""
    blocks, total = [], 0
    while block := stream.read(_BLOCK):
        total += len(block)
        if total > most:
            raise _unreadable(f"a file of it has more than {most:,} bytes")
        blocks.append(block)
    return b"".join(blocks)


def _unreadable(what: object) -> InvalidInput:
    return InvalidInput(f"The archive can't be read: {what}.", field="archive")


@contextmanager
def reading() -> Iterator[None]:
    """Whatever reading raises, as InvalidInput."""
    try:
        yield
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise _unreadable(error) from error


class FolderSource:
    """A folder; what else lies in it is left alone."""

    def __init__(self, folder: Path, manifest: str) -> None:
        self._folder = folder
        self._manifest = manifest
        self._sizes: Mapping[str, int] = {}

    def first(self, most: int) -> bytes:
        if not (self._folder / self._manifest).is_file():
            raise _unreadable(f"{self._folder} has no {self._manifest}, so it is no archive")
        with reading(), self.open(self._manifest) as stream:
            return read_at_most(stream, most)

    def expect(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes

    def all(self) -> Iterator[tuple[str, IO[bytes]]]:
        for name, size in self._sizes.items():
            with reading():
                if not (self._folder / name).is_file():
                    continue
                found = (self._folder / name).stat().st_size
            if found != size:
                raise _unreadable(f"{name} has {found:,} bytes, not {size:,}")
            with self.open(name) as stream:
                yield name, stream

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        path = self._folder / name
        if path.is_symlink():
            raise _unreadable(f"{name} is a link")
        with reading(), path.open("rb") as stream:
            yield stream

    def close(self) -> None:
        pass


class TarSource:
    """A tar file as it lies there, gzipped or not. Holds the manifest first and nothing unnamed."""

    def __init__(self, path: Path, manifest: str) -> None:
        self._manifest = manifest
        self._members: dict[str, tarfile.TarInfo] = {}
        self._sizes: Mapping[str, int] = {}
        with reading():
            self._bytes = path.stat().st_size
            with path.open("rb") as stream:
                packed = stream.read(2) == _GZIP
            raw = gzip.GzipFile(path) if packed else path.open("rb")
            self._stream = _SmallReads(cast("IO[bytes]", raw))
            try:
                self._tar = tarfile.TarFile(fileobj=cast("IO[bytes]", self._stream))
            except BaseException:
                self._stream.close()
                raise

    def first(self, most: int) -> bytes:
        with reading():
            member = self._tar.next()
            if member is None or member.name != self._manifest:
                raise _unreadable(
                    f"{self._manifest} is not the first file in it; if you packed it yourself, "
                    "unpack it and import the folder"
                )
            return read_at_most(self._open(member), most)

    def expect(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes
        total = sum(sizes.values())
        if total > _FREE_BYTES and total > self._bytes * _MAX_GROWTH:
            raise _unreadable(
                f"its {self._bytes:,} bytes would unpack to {total:,}; if that is meant, unpack it "
                "and import the folder"
            )

    def all(self) -> Iterator[tuple[str, IO[bytes]]]:
        yield from self._seen()
        yield from self._unseen()

    def _seen(self) -> Iterator[tuple[str, IO[bytes]]]:
        for name, member in list(self._members.items()):
            with reading():
                yield name, self._open(member)

    def _unseen(self) -> Iterator[tuple[str, IO[bytes]]]:
        while True:
            with reading():
                member = self._tar.next()
            if member is None:
                return
            size = self._sizes.get(member.name)
            if size is None:
                raise _unreadable(f"it holds {member.name[:80]!r}, which its manifest doesn't name")
            if member.size != size or member.name in self._members:
                raise _unreadable(f"{member.name} stands twice or has not {size:,} bytes")
            self._members[member.name] = member
            with reading():
                yield member.name, self._open(member)

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        if name not in self._members:
            for _ in self._unseen():
                pass
        if name not in self._members:
            raise _unreadable(f"{name} is missing")
        with reading(), closing(self._open(self._members[name])) as stream:
            yield stream

    def _open(self, member: tarfile.TarInfo) -> IO[bytes]:
        stream = self._tar.extractfile(member) if member.isreg() and not member.issparse() else None
        if stream is None:
            raise _unreadable(f"{member.name[:80]!r} is a link or no ordinary file")
        return stream

    def close(self) -> None:
        self._tar.close()
        self._stream.close()


class _SmallReads:
    """A stream for tarfile that gives no more at once than an archive of ours ever needs."""

    mode = "rb"

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.name = getattr(stream, "name", "")

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_AT_ONCE:
            raise tarfile.ReadError(f"a header of it asks for {size:,} bytes")
        return self._stream.read(size)

    def seek(self, position: int) -> int:
        return self._stream.seek(position)

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        self._stream.close()
