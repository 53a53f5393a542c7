"""Threads of our own for engines that compute with OpenMP (torch).

OpenMP keeps a team of helper threads for each thread that calls it. Many callers therefore slow each
other down, and in a forked child the calling thread would wait for ever for a team that did not come
along. So an engine is only called from a few named threads, born in the process that uses them. Jobs
of one name run one after the other, in the order in which they came.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


class Workers:
    def __init__(self, owner: str, *names: str) -> None:
        """To be made before the engine is loaded, which is when OpenMP reads how it shall wait.

        By default idle helpers spin, and where other processes want the cores too (Elasticsearch,
        Ollama) they take them from the ones that work: on 2 busy cores BERT took 400 to 650 ms a query,
        and 20 to 26 with helpers that sleep.
        """
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        self._owner = owner
        self._names = names
        self._start()

    def _start(self) -> None:
        self._threads = {
            name: ThreadPoolExecutor(1, thread_name_prefix=f"{self._owner}-{name}")
            for name in self._names
        }
        self._process = os.getpid()  # last, so that whoever sees it sees the new threads too

    def run(self, name: str, job: Callable[[], Result]) -> Result:
        """Run ``job`` in the thread of that name and wait for it; raises what the job raises.

        Raises RuntimeError when the interpreter is shutting down.
        """
        return self.submit(name, job).result()

    def submit(self, name: str, job: Callable[[], Result]) -> "Future[Result]":
        """As ``run``, without waiting."""
        # Two threads of a new child may both start over: then the later threads stay, and a job
        # that went to the earlier ones is still run.
        if self._process != os.getpid():
            self._start()
        return self._threads[name].submit(job)
