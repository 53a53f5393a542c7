"""Whether the server is alive, and whether it can serve."""

from server import __version__
from server.web.operations import Answers, Context, Operation, Reply, operation
from server.web.schemas import Alive, ReadinessReport


@operation(
    "GET",
    "/healthz",
    tag="health",
    permission=None,
    answers={200: Answers(Alive, "The process answers.")},
)
def alive(context: Context) -> Reply:  # noqa: ARG001 - every view takes it
    """Whether the process is alive; asks nothing of the store or the models."""
    return Reply(Alive(status="ok"))


@operation(
    "GET",
    "/readyz",
    tag="health",
    permission=None,
    answers={
        200: Answers(ReadinessReport, "The server can serve; a component that can't says why."),
        503: Answers(ReadinessReport, "The store can't serve now."),
    },
)
def ready(context: Context) -> Reply:
    """Whether the server can serve, by component, with what was chosen and why.

    A missing embedder, reranker or generator does not make it unready: responses then name what is
    missing in `degraded`.
    """
    components = context.services.components()
    is_ready = components["store"].ready
    readiness = ReadinessReport(ready=is_ready, version=__version__, components=components)
    return Reply(readiness, status=200 if is_ready else 503)


OPERATIONS: tuple[Operation, ...] = (alive, ready)
