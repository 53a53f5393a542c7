"""The clock of one request: what each stage took, what is missing, and how long is left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from server.hits import Degraded, Stage


@dataclass(frozen=True, slots=True)
class RequestClock:
    """Collects stages and degradations of one request that began at ``began`` and has ``seconds``.

    ``now`` gives seconds, rising.
    """

    now: Callable[[], float]
    began: float
    seconds: float
    stages: list[Stage] = field(default_factory=list)
    degraded: list[Degraded] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = self.now()
        yield
        self.stages.append(Stage(name, round((self.now() - start) * 1000, 3)))

    @property
    def left(self) -> float:
        """Seconds, at least 0."""
        return max(0.0, self.seconds - (self.now() - self.began))
