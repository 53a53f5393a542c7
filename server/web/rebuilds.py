"""The calls that make generations of a collection, watch them, and go back."""

import logging
import threading
from dataclasses import asdict
from typing import Annotated

from pydantic import BaseModel, Field

from server.errors import (
    CollectionNotFound,
    GenerationNotFound,
    RebuildNotFound,
    RebuildRunning,
    RecipeMismatch,
    TanyuanError,
)
from server.lifecycle.lock import ChangeLock
from server.lifecycle.progress import Kind, Rebuild, Rebuilds, State
from server.lifecycle.rebuild import Work
from server.recipes import Recipe
from server.stores.generations import GenerationState
from server.web.operations import Answers, Context, Operation, Reply, operation
from server.web.schemas import CollectionName, Strict

RebuildId = Annotated[
    str,
    Field(
        pattern="^[a-z0-9-]{1,40}$",
        description="The rebuild's id.",
        examples=["20261124t101500000000-3f2a"],
    ),
]

_TAG = "admin"
_COLLECTION = "/v1/admin/collections/{collection}"
_log = logging.getLogger(__name__)


class RebuildView(BaseModel):
    """A rebuild, a roll back or a dictionary change."""

    id: str
    collection: str
    kind: Kind
    state: State
    running: bool = Field(description="Whether a process is at it, as far as can be told.")
    done: int = Field(description="Documents that are in the new generation.")
    total: int
    embedded: int = Field(description="Passages that the embedder was asked for.")
    reused: int = Field(description="Passages whose vectors were taken over.")
    generation: str
    replaced: str = Field(description="The generation that was live when it began.")
    by: str = Field(description="The API key's name, or who called the script.")
    started_at: str = Field(description="ISO 8601, UTC.")
    updated_at: str = Field(description="ISO 8601, UTC.")
    seconds: float = Field(description="Time of work, over all its runs.")
    error: str = Field(description="Why it failed, or empty.")


class RebuildList(BaseModel):
    rebuilds: list[RebuildView]


class GenerationView(BaseModel):
    """A physical index and what made it."""

    id: str
    edition: int = Field(description="How often its dictionary was changed in place, from 1.")
    state: GenerationState
    created_at: str = Field(description="ISO 8601, UTC.")
    recipe: Recipe


class GenerationList(BaseModel):
    generations: list[GenerationView]


class RollbackOptions(Strict):
    generation: str | None = Field(
        default=None,
        pattern="^[0-9]{1,12}$",
        description="The generation to go back to; unset: the one that was live before.",
    )


@operation(
    "POST",
    f"{_COLLECTION}/rebuilds",
    tag=_TAG,
    permission="admin",
    answers={202: Answers(RebuildView, "It is under way; ask for it by its id.")},
    raises=(CollectionNotFound, RebuildRunning, RecipeMismatch),
)
def start_rebuild(context: Context, collection: CollectionName) -> Reply:
    """Make a new generation by the server's settings, and let it take the place of the live one.

    Searches and writes go on. A rebuild that was cut off is gone on with where it was making the
    same; else it is dropped and begun anew.
    """
    work = context.services.rebuilder.rebuild(collection, by=context.caller.name or "local admin")
    return Reply(started(context, work), status=202)


@operation(
    "GET",
    f"{_COLLECTION}/rebuilds",
    tag=_TAG,
    permission="admin",
    answers={200: Answers(RebuildList, "The latest first.")},
    raises=(CollectionNotFound,),
)
def list_rebuilds(context: Context, collection: CollectionName) -> Reply:
    """List the rebuilds, roll backs and dictionary changes of a collection."""
    records = Rebuilds(context.services.store.notes, collection).all()
    return Reply(RebuildList(rebuilds=[_view(context, record) for record in records]))


@operation(
    "GET",
    f"{_COLLECTION}/rebuilds/{{rebuild_id}}",
    tag=_TAG,
    permission="admin",
    answers={200: Answers(RebuildView, "How far it is.")},
    raises=(CollectionNotFound, RebuildNotFound),
)
def get_rebuild(context: Context, collection: CollectionName, rebuild_id: RebuildId) -> Reply:
    """Watch a rebuild."""
    record = Rebuilds(context.services.store.notes, collection).get(rebuild_id)
    return Reply(_view(context, record))


@operation(
    "DELETE",
    f"{_COLLECTION}/rebuilds",
    tag=_TAG,
    permission="admin",
    answers={200: Answers(RebuildList, "Those that were given up.")},
    raises=(CollectionNotFound, RebuildRunning),
)
def abandon_rebuilds(context: Context, collection: CollectionName) -> Reply:
    """Stop the rebuild that runs, wherever it runs, give up those that were cut off, and remove what
    they made. The live generation stays."""
    records = context.services.rebuilder.abandon(collection)
    return Reply(RebuildList(rebuilds=[_view(context, record) for record in records]))


@operation(
    "GET",
    f"{_COLLECTION}/generations",
    tag=_TAG,
    permission="admin",
    answers={200: Answers(GenerationList, "The oldest first.")},
    raises=(CollectionNotFound,),
)
def list_generations(context: Context, collection: CollectionName) -> Reply:
    """List the generations: the live one, what is kept for a roll back, what is being made."""
    found = context.services.store.generations.all(collection)
    views = [
        GenerationView(
            id=each.id,
            edition=each.edition,
            state=each.state,
            created_at=each.created_at,
            recipe=each.recipe,
        )
        for each in found
    ]
    return Reply(GenerationList(generations=views))


@operation(
    "POST",
    f"{_COLLECTION}/rollback",
    tag=_TAG,
    permission="admin",
    answers={202: Answers(RebuildView, "It is under way; ask for it by its id.")},
    raises=(CollectionNotFound, GenerationNotFound, RebuildRunning, RecipeMismatch),
)
def roll_back(context: Context, collection: CollectionName, query: RollbackOptions) -> Reply:
    """Make an old generation live again, with everything that was written since."""
    work = context.services.rebuilder.roll_back(
        collection, by=context.caller.name or "local admin", to=query.generation
    )
    return Reply(started(context, work), status=202)


OPERATIONS: tuple[Operation, ...] = (
    start_rebuild,
    list_rebuilds,
    get_rebuild,
    abandon_rebuilds,
    list_generations,
    roll_back,
)


def started(context: Context, work: Work) -> RebuildView:
    """Let it run in a thread. Should the server end, the next rebuild goes on with it."""
    view = _view(context, work.record)
    threading.Thread(target=_run, args=(work,), name="rebuild", daemon=True).start()
    return view


def _run(work: Work) -> None:
    try:
        record = work.run()
    except TanyuanError as error:
        _log.warning("%s %s: %s", work.record.kind, work.record.id, error.message)
    else:
        _log.info("%s %s of %s: %s", record.kind, record.id, record.collection, record.state)


def _view(context: Context, record: Rebuild) -> RebuildView:
    running = False
    if not record.ended:
        lock = ChangeLock(context.services.store.notes, record.collection)
        running = bool(lock.holder())
    return RebuildView(**asdict(record), running=running)
