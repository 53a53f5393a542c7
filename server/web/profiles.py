"""The calls on a collection's profile: what decides how it is searched."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from server.errors import CollectionNotFound, InvalidInput, NoteConflict, VersionNotFound
from server.retrieval.profile import Profile
from server.retrieval.profiles import MAX_COMMENT_CHARS, ProfileVersion
from server.web.operations import Answers, Context, Operation, Reply, operation
from server.web.schemas import CollectionName, Strict, Text

_TAG = "admin"
_PATH = "/v1/admin/collections/{collection}/profile"
_MAX_VERSION = 999_999


def _whole(value: Any) -> Profile:
    """A profile of the values given and the defaults of all others."""
    if not isinstance(value, dict):
        raise ValueError("It is a JSON object.")  # noqa: TRY004 - pydantic reports no TypeError
    try:
        return Profile.from_dict(value)
    except InvalidInput as error:
        raise ValueError(error.message) from None


_Profile = Annotated[
    Profile,
    BeforeValidator(_whole),
    Field(
        description="What differs from the defaults; {}: the defaults.",
        examples=[{"fusion": {"vector": 2.0}, "field_weights": {"title_words": 0.5}}],
    ),
]
_Comment = Annotated[
    Text, Field(max_length=MAX_COMMENT_CHARS, description="Why, for the versions.")
]
_Version = Annotated[int, Field(ge=0, le=_MAX_VERSION)]


class ProfileParameters(Strict):
    version: int | None = Field(
        default=None,
        ge=0,
        le=_MAX_VERSION,
        description="Which version; 0: the defaults; unset: the one in force.",
    )


class VersionsParameters(Strict):
    size: int = Field(default=100, ge=1, le=1_000, description="How many are wanted.")
    offset: int = Field(
        default=0, alias="from", ge=0, le=1_000_000, description="How many to pass over."
    )


class ProfileInput(Strict):
    profile: _Profile
    comment: _Comment = ""
    if_version: _Version | None = Field(
        default=None, description="The version that must be in force now; otherwise 409."
    )


class ProfileRollback(Strict):
    version: _Version = Field(description="Which is to be in force again; 0: the defaults.")
    comment: _Comment = ""


class ProfileView(BaseModel):
    version: int = Field(description="0: the defaults.")
    in_force: int = Field(description="The version that searches use.")
    profile: dict[str, Any] = Field(description="All values.")
    changes: dict[str, Any] = Field(description="Those that differ from the defaults.")
    at: str = Field(description="ISO 8601, UTC; empty for the defaults.")
    author: str
    comment: str
    report: dict[str, Any] | None = Field(
        description="The key figures of the tuning that it comes from."
    )


class VersionsView(BaseModel):
    total: int
    versions: list[ProfileVersion]


class ProfileChanged(BaseModel):
    version: int = Field(description="The one in force by now; 0: the defaults.")
    changed: bool = Field(description="Whether that is a new one.")


@operation(
    "GET",
    _PATH,
    tag=_TAG,
    permission="admin",
    answers={200: Answers(ProfileView, "The profile.")},
    raises=(CollectionNotFound, VersionNotFound),
)
def get_profile(context: Context, collection: CollectionName, query: ProfileParameters) -> Reply:
    """Read a collection's profile: field weights and fusion."""
    profiles = context.services.profiles
    found = profiles.version(collection, query.version)
    view = ProfileView(
        version=found.version,
        in_force=profiles.latest(collection),
        profile=profiles.profile(collection, found.version).as_dict(),
        changes=dict(found.values),
        at=found.at,
        author=found.author,
        comment=found.comment,
        report=dict(found.report) if found.report is not None else None,
    )
    return Reply(view)


@operation(
    "PUT",
    _PATH,
    tag=_TAG,
    permission="admin",
    answers={200: Answers(ProfileChanged, "It is in force.")},
    raises=(CollectionNotFound, NoteConflict),
)
def put_profile(context: Context, collection: CollectionName, body: ProfileInput) -> Reply:
    """Put a profile in force, as a new version.
    It acts on the next searches, within seconds in every process. A request's own `fusion` goes before
    it."""
    made = context.services.profiles.save(
        collection,
        body.profile,
        author=_author(context),
        comment=body.comment,
        expected=body.if_version,
    )
    return Reply(_changed(context, collection, made))


@operation(
    "GET",
    f"{_PATH}/versions",
    tag=_TAG,
    permission="admin",
    answers={200: Answers(VersionsView, "The versions, the latest first.")},
    raises=(CollectionNotFound,),
)
def get_profile_versions(
    context: Context, collection: CollectionName, query: VersionsParameters
) -> Reply:
    """List who changed the profile, when, why and to what."""
    found = context.services.profiles.history(collection)
    shown = found[query.offset : query.offset + query.size]
    return Reply(VersionsView(total=len(found), versions=shown))


@operation(
    "POST",
    f"{_PATH}/rollback",
    tag=_TAG,
    permission="admin",
    answers={200: Answers(ProfileChanged, "The old profile is in force as a new version.")},
    raises=(CollectionNotFound, VersionNotFound),
)
def roll_back_profile(context: Context, collection: CollectionName, body: ProfileRollback) -> Reply:
    """Put an old version of the profile in force, or the defaults.
    It acts on the next searches, within seconds in every process."""
    made = context.services.profiles.roll_back(
        collection, body.version, author=_author(context), comment=body.comment
    )
    return Reply(_changed(context, collection, made))


OPERATIONS: tuple[Operation, ...] = (
    get_profile,
    put_profile,
    get_profile_versions,
    roll_back_profile,
)


def _author(context: Context) -> str:
    return context.caller.name or "local admin"


def _changed(context: Context, collection: str, made: ProfileVersion | None) -> ProfileChanged:
    if made is None:
        in_force = context.services.profiles.latest(collection)
        return ProfileChanged(version=in_force, changed=False)
    return ProfileChanged(version=made.version, changed=True)
