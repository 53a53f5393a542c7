"""Milvus Lite served on a socket. Imported by the process that holds the files only."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from milvus_lite.db import MilvusLite
from milvus_lite.exceptions import DataDirLockedError
from pymilvus.grpc_gen import milvus_pb2_grpc

_THREADS = 10
_MOST_BYTES = 256 * 1024 * 1024  # of a message, as Milvus Lite's own server has it
_STOP_SECONDS = 2.0


class _Database(MilvusLite):  # type: ignore[misc]
    """Milvus Lite with its collections opened and removed by one thread at a time.

    Two that open the same one side by side would each get their own memory and log.
    """

    def __init__(self, folder: str) -> None:
        self._opening = threading.RLock()
        super().__init__(folder)

    def create_collection(self, *arguments: Any, **named: Any) -> Any:
        with self._opening:
            return super().create_collection(*arguments, **named)

    def get_collection(self, *arguments: Any, **named: Any) -> Any:
        with self._opening:
            return super().get_collection(*arguments, **named)

    def drop_collection(self, *arguments: Any, **named: Any) -> None:
        with self._opening:
            super().drop_collection(*arguments, **named)


class LiteServer:
    """Raises BlockingIOError when another process holds the files, OSError when it can't serve."""

    def __init__(self, folder: Path, address: str) -> None:
        try:
            self._database = _Database(str(folder))
        except DataDirLockedError as error:
            raise BlockingIOError(str(error)) from error
        try:
            self._server = grpc.server(
                ThreadPoolExecutor(_THREADS, thread_name_prefix="milvus-lite"),
                options=[
                    ("grpc.max_receive_message_length", _MOST_BYTES),
                    ("grpc.max_send_message_length", _MOST_BYTES),
                ],
            )
            milvus_pb2_grpc.add_MilvusServiceServicer_to_server(
                MilvusServicer(self._database), self._server
            )
            try:
                self._server.add_insecure_port(address)
            except RuntimeError as error:
                raise OSError(f"{address} can't be listened on: {error}") from error
            self._server.start()
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Answers what was asked, writes what is in memory to its files and lets go of them."""
        with contextlib.suppress(RuntimeError):  # the interpreter is on its way out
            self._server.stop(_STOP_SECONDS).wait()
        self._database.close()
