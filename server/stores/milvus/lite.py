"""Milvus Lite for several processes: the one that holds its files serves the others.

Milvus Lite is a library whose files one process at a time may open. So whoever comes first opens them and
listens on a Unix socket; the others find its address beside the files. When it ends, killed or not, the
system frees the lock, and the next process that has a question opens the files itself.
"""

import atexit
import contextlib
import logging
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from server.errors import StoreUnavailable

if TYPE_CHECKING:
    from server.stores.milvus.lite_server import LiteServer

_log = logging.getLogger(__name__)

_LONGEST_PATH = 100  # bytes; a socket's path may have 107
_PATIENCE = 10.0
_POLL_SECONDS = 0.02
_TEMPORARY = "tanyuan-milvus-"


class Lite:
    """Thread-safe. The socket's folder is for the user of this process alone: it knows no keys."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._address_file = folder / "address"
        self._turn = threading.Lock()
        self._server: LiteServer | None = None
        self._socket: Path | None = None
        self._closed = False

    def address(self) -> str:
        """Of the server that answers now, which may be this process. Raises StoreUnavailable."""
        with self._turn:
            if self._closed:
                raise StoreUnavailable("The store is closed.")
            deadline = time.monotonic() + _PATIENCE
            while True:
                if self._socket is None:
                    self._socket = self._found()
                if self._socket is not None and (self._server or _answers(self._socket)):
                    return f"unix:{quote(str(self._socket))}"
                self._socket = None
                try:
                    self._try_to_serve()
                except OSError as error:
                    raise StoreUnavailable(
                        f"Milvus Lite can't use {self._folder}: {error}. What lies there can be "
                        "deleted; it is made anew."
                    ) from error
                if self._socket is None:
                    if time.monotonic() > deadline:
                        raise StoreUnavailable(
                            f"Another process holds Milvus Lite's files in {self._folder} and does "
                            "not answer. End it, or wait until it is done."
                        )
                    time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        with self._turn:
            self._closed = True
            if self._server is not None:
                self._server.close()
                self._remove_socket(self._socket)
                self._server = None
                atexit.unregister(self.close)

    def _found(self) -> Path | None:
        """The socket that the holder listens on, if there is one."""
        try:
            found = Path(self._address_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if found.is_absolute() else self._folder / found

    def _try_to_serve(self) -> None:
        """Open the files and listen, unless another process has them."""
        from server.stores.milvus.lite_server import LiteServer  # noqa: PLC0415

        self._folder.mkdir(mode=0o700, exist_ok=True)
        old = self._found()
        new = self._folder / "socket"
        if len(bytes(new)) > _LONGEST_PATH:
            new = Path(tempfile.mkdtemp(prefix=_TEMPORARY)) / "socket"
        try:
            # gRPC removes a socket that nobody listens on any more.
            server = LiteServer(self._folder / "data", f"unix:{quote(str(new))}")
        except BlockingIOError:
            if new.parent != self._folder:
                self._remove_socket(new)
            return
        if old not in {None, new}:
            self._remove_socket(old)  # of a process that was killed
        draft = self._folder / ".address"
        draft.write_text(
            "socket" if new.parent == self._folder else str(new),  # the folder may be moved
            encoding="utf-8",
        )
        draft.replace(self._address_file)
        self._server, self._socket = server, new
        atexit.register(self.close)
        _log.info("Milvus Lite serves %s", self._folder)

    def _remove_socket(self, path: Path | None) -> None:
        if path is None:
            return
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        place = path.parent
        if place.name.startswith(_TEMPORARY) and place.parent == Path(tempfile.gettempdir()):
            shutil.rmtree(place, ignore_errors=True)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
