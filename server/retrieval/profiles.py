"""Profiles: each collection's profile as versions that are never changed, and can be gone back to.

All versions are one note, so that a change is there whole or not at all. A version holds only what
differs from the defaults: what nobody chose follows the defaults of the program.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from server.errors import InvalidInput, NoteConflict, StoreUnavailable, VersionNotFound
from server.retrieval.following import Followed
from server.retrieval.profile import Profile
from server.stores.note_checks import encoded
from server.stores.notes import Note, Notes
from server.texts import check_text

KEY = "profile"  # of the note
KEPT = 200  # versions; the oldest go
MAX_AUTHOR_CHARS = 100
MAX_COMMENT_CHARS = 500
MAX_REPORT_BYTES = 8_000

_ATTEMPTS = 50  # of a change that others keep overtaking


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileVersion:
    """One change. ``version`` is from 1 and rises. ``values``: what differs from the defaults, as
    ``Profile.from_dict`` takes it. ``report``: the key figures of the tuning that it comes from."""

    version: int
    at: str  # ISO 8601, UTC
    author: str
    comment: str
    values: Mapping[str, Any]
    report: Mapping[str, Any] | None = None


class Profiles:
    """Thread-safe, and safe with other processes. ``default``: of collections that have no version.

    Any method may raise CollectionNotFound and StoreUnavailable.
    """

    def __init__(self, notes: Notes, *, default: Profile | None = None) -> None:
        self.default = default or Profile()
        self._notes = notes

    def latest(self, collection: str) -> int:
        """The version in force; 0: none, so that the defaults are."""
        return _latest(self._notes.get(collection, KEY))

    def history(self, collection: str) -> list[ProfileVersion]:
        """The versions that are kept, the latest first."""
        return _log(self._notes.get(collection, KEY))[::-1]

    def version(self, collection: str, number: int | None = None) -> ProfileVersion:
        """A version, or the latest; 0 stands for the defaults. Raises VersionNotFound."""
        log = _log(self._notes.get(collection, KEY))
        if number is None and log:
            return log[-1]
        if not number:
            return ProfileVersion(version=0, at="", author="", comment="", values={})
        for each in log:
            if each.version == number:
                return each
        raise VersionNotFound(
            f"The profile of {collection!r} has no version {number}; its versions name those that "
            f"there are (the last {KEPT} are kept)."
        )

    def profile(self, collection: str, number: int | None = None) -> Profile:
        """The profile of a version, or the one in force.

        Raises VersionNotFound, and InvalidInput for one that this program can't read.
        """
        return Profile.from_dict(self.version(collection, number).values, base=self.default)

    def save(
        self,
        collection: str,
        profile: Profile,
        *,
        author: str,
        comment: str = "",
        report: Mapping[str, Any] | None = None,
        expected: int | None = None,
    ) -> ProfileVersion | None:
        """Put a profile in force as a new version; None where it is in force already.

        ``expected``: the version that must be in force now, or else NoteConflict. Raises InvalidInput.
        """
        values = profile.changes(self.default)
        return self._write(collection, values, author, comment, report, expected)

    def roll_back(
        self, collection: str, number: int, *, author: str, comment: str = ""
    ) -> ProfileVersion | None:
        """A new version with the values of an old one, or with the defaults (0); None where it is in
        force already. Raises VersionNotFound, InvalidInput."""
        old = self.version(collection, number)
        self.profile(collection, number)
        comment = comment or (f"as version {number}" if number else "the defaults")
        return self._write(collection, old.values, author, comment, old.report, None)

    def _write(
        self,
        collection: str,
        values: Mapping[str, Any],
        author: str,
        comment: str,
        report: Mapping[str, Any] | None,
        expected: int | None,
    ) -> ProfileVersion | None:
        check_text(author, field="author", max_chars=MAX_AUTHOR_CHARS)
        check_text(comment, field="comment", max_chars=MAX_COMMENT_CHARS)
        if report is not None and len(encoded(report).encode()) > MAX_REPORT_BYTES:
            raise InvalidInput(f"A report has at most {MAX_REPORT_BYTES:,} bytes.", field="report")
        for _ in range(_ATTEMPTS):
            note = self._notes.get(collection, KEY)
            log = _log(note)
            in_force = _latest(note)
            if expected not in {None, in_force}:
                raise NoteConflict(
                    f"The profile of {collection!r} is at version {in_force} by now, not at "
                    f"{expected}; look at it and try again."
                )
            if values == (log[-1].values if log else {}):
                return None
            made = ProfileVersion(
                version=in_force + 1,
                at=datetime.now(UTC).isoformat(timespec="seconds"),
                author=author,
                comment=comment,
                values=values,
                report=report,
            )
            value = {"log": [asdict(each) for each in [*log, made][-KEPT:]]}
            try:
                self._notes.put(collection, KEY, value, expected=note.version if note else 0)
            except NoteConflict:
                continue
            return made
        raise StoreUnavailable(
            f"The profile of {collection!r} is being changed all the time; try again later."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileInForce:
    """``problem``: why it is the default and not the collection's own; empty where all is well."""

    profile: Profile
    problem: str = ""


class QueryProfiles:
    """Profiles as searches need them: read again at most every ``seconds``. Thread-safe."""

    def __init__(self, notes: Notes, *, default: Profile | None = None, seconds: float) -> None:
        self._notes = notes
        self._profiles = Profiles(notes, default=default)
        self._followed = Followed(self._changed, self._read, seconds=seconds)

    def of(self, collection: str) -> ProfileInForce:
        """The one in force, at most ``seconds`` old, or as last read where the store can't be asked.

        Raises CollectionNotFound, and StoreUnavailable where it was never read.
        """
        return self._followed.of(collection)

    def _changed(self, collection: str) -> int:
        note = self._notes.get(collection, KEY)
        return note.version if note else 0

    def _read(self, collection: str) -> ProfileInForce:
        try:
            return ProfileInForce(profile=self._profiles.profile(collection))
        except InvalidInput as error:  # a newer program's, as a rule
            return ProfileInForce(
                profile=self._profiles.default,
                problem=f"The collection's profile can't be used, so the defaults are ({error.message}). "
                f"To go back to the defaults for good: scripts/tune --collection {collection} "
                "--defaults",
            )


def check_note(value: Mapping[str, Any]) -> None:
    """Raises InvalidInput for a note from elsewhere that holds no versions. What the versions say is
    not looked at: another program's may say what this one does not know."""
    _log(Note(value=value, version=1))


@cache
def _logs() -> TypeAdapter[list[ProfileVersion]]:
    return TypeAdapter(list[ProfileVersion])


def _log(note: Note | None) -> list[ProfileVersion]:
    """Raises InvalidInput for a damaged note."""
    if note is None:
        return []
    try:
        return _logs().validate_python(note.value.get("log"))
    except ValidationError:
        raise InvalidInput("The note of the profile's versions is damaged.") from None


def _latest(note: Note | None) -> int:
    log = _log(note)
    return log[-1].version if log else 0
