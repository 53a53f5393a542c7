"""Run a function in a forked child of this process, with a time limit."""

import os
import pickle
import select
import signal
import warnings
from collections.abc import Callable
from typing import Any


def in_child(function: Callable[[], Any], *, seconds: float = 30) -> Any:
    """What the function returns in a child; fails when the child hangs, raises or dies."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of every fork of a process with threads, which is what is tested here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            answer = ("value", function())
        except BaseException as error:  # noqa: BLE001 - a child must not run on into the tests
            answer = ("error", repr(error))
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        ready, _, _ = select.select([pipe], [], [], seconds)
        if not ready:
            os.kill(child, signal.SIGKILL)
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    assert ready, f"the child was still busy after {seconds} s"
    assert content, f"the child died with status {status}"
    kind, value = pickle.loads(content)
    assert kind == "value", value
    return value
