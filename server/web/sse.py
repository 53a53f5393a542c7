"""Server-sent events: frames, heartbeats while nothing comes, and an end when the reader leaves."""

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from contextvars import copy_context

from flask import Response

MEDIA_TYPE = "text/event-stream"
HEARTBEAT = b": still working\n\n"
HEARTBEAT_SECONDS = 10.0

_WAITING_FRAMES = 64
_LOOK_SECONDS = 0.2


def frame(event: str, data: bytes) -> bytes:
    """One event. ``data`` is JSON, whose line breaks are escaped, so that one line holds it all."""
    return b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"


def respond(
    frames: Generator[bytes, None, None], *, heartbeat_seconds: float = HEARTBEAT_SECONDS
) -> Response:
    """A response that streams ``frames`` and closes them when they end or the reader leaves.

    A thread of its own draws the frames, since a generator that waits can't send heartbeats, and
    a reader who left is only noticed by writing to him.
    """
    waiting: queue.Queue[bytes | None] = queue.Queue(_WAITING_FRAMES)
    left = threading.Event()

    def offer(item: bytes | None) -> bool:
        """Hand an item over; False when nobody takes it any more."""
        while not left.is_set():
            try:
                waiting.put(item, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def draw() -> None:
        with closing(frames):
            for item in frames:
                if not offer(item):
                    return
        offer(None)

    def body() -> Iterator[bytes]:
        while True:
            try:
                item = waiting.get(timeout=heartbeat_seconds)
            except queue.Empty:
                yield HEARTBEAT
                continue
            if item is None:
                return
            yield item

    thread = threading.Thread(
        target=copy_context().run, args=(draw,), name="answer-stream", daemon=True
    )
    thread.start()
    response = Response(body(), content_type=f"{MEDIA_TYPE}; charset=utf-8")
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would hold the events back
    response.call_on_close(left.set)
    return response
