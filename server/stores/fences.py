"""Waiting for a fence, and lifting one whose maker is gone."""

import time
from collections.abc import Callable

from server.stores.generations import Generation

MAKER_SECONDS = 10.0  # after which whoever made a fence lifts it and tries again later
LIFT_SECONDS = 20.0  # after which whoever waits takes the maker for dead
_PAUSE_SECONDS = 0.05


def await_unfenced(
    live: Callable[[], Generation],
    lift: Callable[[str], bool],
    *,
    seconds: float = LIFT_SECONDS,
) -> Generation:
    """The live generation when no fence stands. ``live`` must read it afresh.

    The clock is the waiter's own and starts anew with every new fence, so no two machines' clocks are
    compared.
    """
    fence, since = "", time.monotonic()
    while True:
        generation = live()
        if not generation.fence:
            return generation
        if generation.fence != fence:
            fence, since = generation.fence, time.monotonic()
        if time.monotonic() - since > seconds:
            lift(fence)
        else:
            time.sleep(_PAUSE_SECONDS)
