"""The calls on a collection's dictionary, synonyms and stop words."""

from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, Field

from server.errors import (
    CollectionNotFound,
    RebuildRunning,
    RecipeMismatch,
    VersionNotFound,
)
from server.lifecycle.preview import MAX_QUERIES, Preview
from server.vocabulary import MAX_COMMENT_CHARS, MAX_LINE_CHARS, Kind, Version
from server.web.operations import Answers, Context, Operation, Reply, operation
from server.web.rebuilds import RebuildView, started
from server.web.schemas import CollectionName, Strict, Text

_TAG = "admin"
_COLLECTION = "/v1/admin/collections/{collection}"
_MAX_CHANGED = 1_000
_MAX_VERSION = 999_999

_Line = Annotated[Text, Field(max_length=MAX_LINE_CHARS)]
_Lines = Annotated[list[_Line], Field(max_length=_MAX_CHANGED, description="Lines of a file.")]
_Comment = Annotated[Text, Field(max_length=MAX_COMMENT_CHARS, description="Why, for the history.")]
_Size = Annotated[int, Field(ge=1, le=1_000, description="How many are wanted.")]
_From = Annotated[
    int, Field(alias="from", ge=0, le=1_000_000, description="How many to pass over.")
]


class LinesParameters(Strict):
    version: int | None = Field(
        default=None, ge=0, le=_MAX_VERSION, description="Which version; unset: the latest."
    )
    size: _Size = 100
    offset: _From = 0


class HistoryParameters(Strict):
    size: _Size = 100
    offset: _From = 0


class VersionOption(Strict):
    version: int | None = Field(
        default=None,
        ge=0,
        le=_MAX_VERSION,
        description="Which version of the dictionary; unset: the latest.",
    )


class LinesView(BaseModel):
    """Lines as they are written in a file."""

    version: int = Field(description="0: nothing was ever written.")
    latest: int
    in_force: int = Field(
        description="The version that acts now; of a dictionary the one applied last, 0: none."
    )
    total: int
    lines: list[str]


class HistoryView(BaseModel):
    total: int
    versions: list[Version]


class ChangeInput(Strict):
    """Lines to remove, then lines to add."""

    add: _Lines = Field(default=[], examples=[["云梯平台 100 nz"]])
    remove: _Lines = Field(default=[])
    comment: _Comment = ""


class RollbackInput(Strict):
    version: int = Field(
        ge=0, le=_MAX_VERSION, description="Whose lines shall be the latest again; 0: none."
    )
    comment: _Comment = ""


class DraftInput(Strict):
    """A version, or the latest with lines removed and added that are not saved."""

    version: int | None = Field(default=None, ge=0, le=_MAX_VERSION)
    add: _Lines = Field(default=[])
    remove: _Lines = Field(default=[])


class ChangeView(BaseModel):
    version: int = Field(description="The latest by now.")
    changed: bool = Field(description="Whether that is a new one.")
    added: int
    removed: int


def _named(name: str, description: str) -> Callable[[Callable[..., Reply]], Callable[..., Reply]]:
    """Gives a view that is made for several kinds its operation's name and description."""

    def name_it(view: Callable[..., Reply]) -> Callable[..., Reply]:
        view.__name__, view.__doc__ = name, description
        return view

    return name_it


def _operations(kind: Kind, segment: str, named: str, added: str) -> tuple[Operation, ...]:
    path = f"{_COLLECTION}/{segment}"
    takes_effect = (
        "It is a draft until it is applied."
        if kind == "dictionary"
        else "It acts on the next searches, within seconds in every process."
    )

    @operation(
        "GET",
        path,
        tag=_TAG,
        permission="admin",
        answers={200: Answers(LinesView, "The lines, in order.")},
        raises=(CollectionNotFound, VersionNotFound),
    )
    @_named(f"get_{kind}", f"Read the collection's {named}, {added} a line.")
    def lines(context: Context, collection: CollectionName, query: LinesParameters) -> Reply:
        vocabulary = context.services.vocabulary
        found = vocabulary.lines(collection, kind, query.version)
        latest = vocabulary.heads(collection)[kind]
        in_force = latest
        if kind == "dictionary":
            in_force = context.services.store.live(collection, fresh=True).recipe.dictionary
        view = LinesView(
            version=found.version,
            latest=latest,
            in_force=in_force,
            total=len(found.lines),
            lines=list(found.lines[query.offset : query.offset + query.size]),
        )
        return Reply(view)

    @operation(
        "GET",
        f"{path}/history",
        tag=_TAG,
        permission="admin",
        answers={200: Answers(HistoryView, "The versions, the latest first.")},
        raises=(CollectionNotFound,),
    )
    @_named(f"get_{kind}_history", f"List who changed the {named}, when, and by how many lines.")
    def history(context: Context, collection: CollectionName, query: HistoryParameters) -> Reply:
        found = context.services.vocabulary.history(collection, kind)
        shown = found[query.offset : query.offset + query.size]
        return Reply(HistoryView(total=len(found), versions=shown))

    @operation(
        "POST",
        path,
        tag=_TAG,
        permission="admin",
        answers={200: Answers(ChangeView, "The change is kept as a new version.")},
        raises=(CollectionNotFound,),
    )
    @_named(f"change_{kind}", f"Add lines to the {named} and remove others.\n{takes_effect}")
    def change(context: Context, collection: CollectionName, body: ChangeInput) -> Reply:
        made = context.services.vocabulary.change(
            collection,
            kind,
            add=body.add,
            remove=body.remove,
            author=_author(context),
            comment=body.comment,
        )
        return Reply(_changed(context, collection, kind, made))

    @operation(
        "POST",
        f"{path}/rollback",
        tag=_TAG,
        permission="admin",
        answers={200: Answers(ChangeView, "The old lines are a new version.")},
        raises=(CollectionNotFound, VersionNotFound),
    )
    @_named(f"roll_back_{kind}", f"Make an old version of the {named} the latest.\n{takes_effect}")
    def roll_back(context: Context, collection: CollectionName, body: RollbackInput) -> Reply:
        made = context.services.vocabulary.roll_back(
            collection, kind, body.version, author=_author(context), comment=body.comment
        )
        return Reply(_changed(context, collection, kind, made))

    return lines, history, change, roll_back


@operation(
    "POST",
    f"{_COLLECTION}/dictionary/preview",
    tag=_TAG,
    permission="admin",
    answers={200: Answers(Preview, "What would change; nothing did.")},
    raises=(CollectionNotFound, VersionNotFound, RecipeMismatch),
)
def preview_dictionary(context: Context, collection: CollectionName, body: DraftInput) -> Reply:
    """Show which documents and which logged queries a dictionary would change, with their words before
    and after. Takes at most some ten seconds, and says if that was too short."""
    services = context.services
    if body.version is not None and not (body.add or body.remove):
        lines = services.vocabulary.lines(collection, "dictionary", body.version).lines
    else:
        lines = services.vocabulary.edited(
            collection, "dictionary", add=body.add, remove=body.remove
        )
    log = services.query_log
    queries = log.recent(collection, MAX_QUERIES) if log is not None else []
    return Reply(services.dictionaries.preview(collection, lines, queries))


@operation(
    "POST",
    f"{_COLLECTION}/dictionary/apply",
    tag=_TAG,
    permission="admin",
    answers={
        202: Answers(RebuildView, "It is under way; ask for it among the rebuilds by its id.")
    },
    raises=(CollectionNotFound, VersionNotFound, RebuildRunning, RecipeMismatch),
)
def apply_dictionary(context: Context, collection: CollectionName, query: VersionOption) -> Reply:
    """Put a version of the dictionary in force: only the documents whose words change are derived
    again. Searches and writes go on."""
    work = context.services.dictionaries.apply(
        collection, by=_author(context), version=query.version
    )
    return Reply(started(context, work), status=202)


OPERATIONS: tuple[Operation, ...] = (
    *_operations("dictionary", "dictionary", "dictionary", "a word"),
    preview_dictionary,
    apply_dictionary,
    *_operations("synonyms", "synonyms", "synonyms", "a rule"),
    *_operations("stop_words", "stop-words", "stop words", "a word"),
)


def _author(context: Context) -> str:
    return context.caller.name or "local admin"


def _changed(context: Context, collection: str, kind: Kind, made: Version | None) -> ChangeView:
    if made is None:
        latest = context.services.vocabulary.heads(collection)[kind]
        return ChangeView(version=latest, changed=False, added=0, removed=0)
    return ChangeView(version=made.version, changed=True, added=made.added, removed=made.removed)
