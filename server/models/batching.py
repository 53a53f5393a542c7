"""Work of several callers in one pass of an engine.

On a CPU a pass over one query is spent on reading the weights, and on a GPU on starting kernels, so that a
few queries in one pass cost little more than one. Whoever finds the engine idle goes at once and alone;
those who come while it is busy go together in the next pass. DECISIONS.md has figures, and which engines
gain nothing by it.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.models.workers import Workers

Rows = NDArray[np.float32]


class _Job(NamedTuple):
    """What one caller waits for."""

    items: Sequence[Any]
    rows: "Future[Rows]"


class Batching:
    """The passes of an engine, shared by all who call ``run``. Thread-safe, also after a fork.

    ``forward``: the engine; a row (a vector, a score) for each item, which depends on that item alone.
    ``joins(items, more)``: whether one pass over all of these is better than two.
    """

    def __init__(
        self,
        workers: Workers,
        forward: Callable[[Sequence[Any]], Rows],
        joins: Callable[[Sequence[Any], Sequence[Any]], bool],
    ) -> None:
        self._workers = workers
        self._forward = forward
        self._joins = joins
        # By process, too: a child must not do what its parent's callers wait for.
        self._waiting: dict[tuple[int, str], deque[_Job]] = {}

    def run(self, worker: str, items: Sequence[Any]) -> Rows:
        """A caller's rows, in the order of its items, from a pass of that worker which others may share.

        Who came first is in the next pass, and others join it in the order in which they came, as long
        as ``joins`` says so. A caller with much to do calls once a batch, and so stands behind the others
        each time.

        Raises what ``forward`` raises for these items alone, and RuntimeError when the interpreter is
        shutting down.
        """
        waiting = self._waiting.setdefault((os.getpid(), worker), deque())
        job = _Job(items, Future())
        waiting.append(job)
        # A turn for each job takes at least the oldest, so none is left after the last. A turn whose own
        # job went with others before has less to do, or nothing; nobody waits for it.
        self._workers.submit(worker, partial(self._turn, waiting))
        return job.rows.result()

    def _turn(self, waiting: deque[_Job]) -> None:
        """Only ever called in the one worker, so that nobody else takes from what waits."""
        if not waiting:
            return
        jobs = [waiting.popleft()]
        try:
            items = list(jobs[0].items)
            while waiting and self._joins(items, waiting[0].items):
                jobs.append(waiting.popleft())
                items += jobs[-1].items
            if len(jobs) == 1 or not self._together(jobs, items):
                for job in jobs:
                    self._alone(job)
        finally:  # a caller must not wait for ever, whatever happens here
            for job in jobs:
                if not job.rows.done():
                    job.rows.set_exception(RuntimeError("the pass was cut off"))

    def _alone(self, job: _Job) -> None:
        try:
            job.rows.set_result(self._pass(job.items))
        except Exception as error:  # noqa: BLE001 - its caller's
            job.rows.set_exception(error)

    def _together(self, jobs: Sequence[_Job], items: Sequence[Any]) -> bool:
        """False where the pass fails, be it of one item or of their number: then each caller's items
        are to go alone, so that they fail nobody else."""
        try:
            rows = self._pass(items)
        except Exception:  # noqa: BLE001 - shows again where it belongs
            return False
        start = 0
        for job in jobs:
            end = start + len(job.items)
            job.rows.set_result(rows[start:end])
            start = end
        return True

    def _pass(self, items: Sequence[Any]) -> Rows:
        rows = self._forward(items)
        if len(rows) != len(items):
            raise RuntimeError(f"the engine gave {len(rows)} rows for {len(items)} items")
        return rows
