"""Vocabulary: a collection's dictionary, synonyms and stop words, as versions that are never changed.

Synonyms and stop words act at query time, so their latest version is in force at once. A new version of
the dictionary is a draft until it is applied; the one in force is what the live recipe names.

The note ``vocabulary`` is the head: by kind the latest version and the log. The lines of a version are a
note of their own, written before the head names it, so that a crash between the two leaves nothing but a
number that is passed over.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal, get_args

from server.analysis.dictionary import UserDictionary
from server.analysis.entries import entries
from server.analysis.normalize import Normalizer
from server.analysis.stopwords import StopWords
from server.analysis.synonyms import Synonyms, normal_rule
from server.errors import (
    InvalidInput,
    NoteConflict,
    StoreUnavailable,
    VersionNotFound,
)
from server.stores.notes import Note, Notes
from server.texts import check_text

Kind = Literal["dictionary", "synonyms", "stop_words"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MAX_LINES = 100_000
MAX_BYTES = 8_000_000  # of a version's lines, so that its note stays well below a note's limit
MAX_LINE_CHARS = 2_500  # a rule of 20 phrases
MAX_COMMENT_CHARS = 500
MAX_AUTHOR_CHARS = 100
SETTINGS_AUTHOR = "TANYUAN_DICTIONARY"

_HEAD = "vocabulary"
_LOGGED = 5_000  # changes that the head remembers; older versions' lines stay
_ATTEMPTS = 200  # of a change that others keep overtaking

_PARSERS: Mapping[Kind, Callable[[Iterable[str]], object]] = MappingProxyType(
    {
        "dictionary": UserDictionary.parse,
        "synonyms": Synonyms.parse,
        "stop_words": StopWords.parse,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One change. ``version`` is from 1 and rises; a crash may leave a number out. ``added`` and
    ``removed`` count lines."""

    version: int
    at: str  # ISO 8601, UTC
    author: str
    comment: str
    added: int
    removed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """The lines of a version; version 0, without lines, before the first change."""

    version: int
    lines: tuple[str, ...] = ()


class Vocabulary:
    """Thread-safe, and safe with other processes: of two who change at once both get their change in.

    Any method may raise CollectionNotFound and StoreUnavailable.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def heads(self, collection: str) -> dict[Kind, int]:
        """The latest version by kind; 0: there is none."""
        head = self._notes.get(collection, _HEAD)
        return {kind: _latest(head, kind) for kind in KINDS}

    def lines(self, collection: str, kind: Kind, version: int | None = None) -> Lines:
        """The lines of a version, or of the latest. Raises VersionNotFound."""
        head = self._notes.get(collection, _HEAD)
        if version is None:
            version = _latest(head, kind)
        if version == 0:
            return Lines(version=0)
        note = self._notes.get(collection, _key(kind, version)) if version > 0 else None
        if note is None or not _is_named(head, kind, version):
            raise VersionNotFound(
                f"The {_named(kind)} of {collection!r} has no version {version}; its history names "
                "those that there are."
            )
        return Lines(version=version, lines=tuple(note.value["lines"]))

    def history(self, collection: str, kind: Kind) -> list[Version]:
        """Every change, the latest first."""
        log = _log(self._notes.get(collection, _HEAD), kind)
        return [Version(**entry) for entry in reversed(log)]

    def change(
        self,
        collection: str,
        kind: Kind,
        *,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        author: str,
        comment: str = "",
    ) -> Version | None:
        """Remove lines, then add others, as one new version; None where nothing would change.

        A word of the dictionary has one line: adding it again changes its frequency, and to remove it
        the word is enough. Lines to remove that are not there are passed over. Raises InvalidInput,
        naming the line, before anything is written.
        """
        edit = _Edit(kind, add, remove)
        return self._write(collection, kind, edit.of, author, comment)

    def replace(
        self,
        collection: str,
        kind: Kind,
        lines: Sequence[str],
        *,
        author: str,
        comment: str = "",
    ) -> Version | None:
        """Make these lines the whole content; None where they are that already."""
        new = [line.strip("\ufeff \t\r\n") for line in lines]
        return self._write(
            collection, kind, lambda _: [line for line in new if line], author, comment
        )

    def roll_back(
        self, collection: str, kind: Kind, version: int, *, author: str, comment: str = ""
    ) -> Version | None:
        """A new version with the lines of an old one; None where those are the latest already.

        Raises VersionNotFound.
        """
        old = list(self.lines(collection, kind, version).lines)
        return self._write(
            collection, kind, lambda _: old, author, comment or f"as version {version}"
        )

    def edited(
        self, collection: str, kind: Kind, *, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> tuple[str, ...]:
        """The lines that ``change`` would make, without making them. Raises InvalidInput."""
        new = _Edit(kind, add, remove).of(self.lines(collection, kind).lines)
        _check(kind, new)
        return tuple(new)

    def dictionary(self, collection: str, version: int | None = None) -> UserDictionary:
        """A version of the dictionary, or the latest. Raises VersionNotFound."""
        return UserDictionary.parse(self.lines(collection, "dictionary", version).lines)

    def _write(
        self,
        collection: str,
        kind: Kind,
        edit: Callable[[Sequence[str]], list[str]],
        author: str,
        comment: str,
    ) -> Version | None:
        check_text(author, field="author", max_chars=MAX_AUTHOR_CHARS)
        check_text(comment, field="comment", max_chars=MAX_COMMENT_CHARS)
        for _ in range(_ATTEMPTS):
            head = self._notes.get(collection, _HEAD)
            old = self.lines(collection, kind, _latest(head, kind)).lines
            new = edit(old)
            _check(kind, new)
            if list(old) == new:
                return None
            number = self._put_lines(collection, kind, _latest(head, kind) + 1, new)
            made = Version(
                version=number,
                at=datetime.now(UTC).isoformat(timespec="seconds"),
                author=author,
                comment=comment,
                added=len(set(new) - set(old)),
                removed=len(set(old) - set(new)),
            )
            try:
                self._notes.put(
                    collection, _HEAD, _with(head, kind, made), expected=head.version if head else 0
                )
            except NoteConflict:
                self._notes.delete(collection, _key(kind, number))
            else:
                return made
        raise StoreUnavailable(
            f"The {_named(kind)} of {collection!r} is being changed all the time; try again later."
        )

    def _put_lines(self, collection: str, kind: Kind, number: int, lines: list[str]) -> int:
        """Under the first free number, since a killed change may have left one taken."""
        while True:
            try:
                self._notes.put(collection, _key(kind, number), {"lines": lines}, expected=0)
            except NoteConflict:
                number += 1
            else:
                return number


def seed(dictionary: UserDictionary) -> dict[str, Mapping[str, Any]]:
    """Notes for a new collection whose first version of the dictionary is this one; none without
    words."""
    if not dictionary.words:
        return {}
    lines = dictionary.lines()
    made = Version(
        version=1,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        author=SETTINGS_AUTHOR,
        comment="",
        added=len(lines),
        removed=0,
    )
    return {_HEAD: _with(None, "dictionary", made), _key("dictionary", 1): {"lines": lines}}


class _Edit:
    """Lines to remove and to add, by what tells one entry of a kind from another."""

    def __init__(self, kind: Kind, add: Sequence[str], remove: Sequence[str]) -> None:
        self._kind = kind
        self._identity = _Identity(kind)
        _check(kind, [*add, *remove] if kind != "dictionary" else add)
        self._add = {self._identity.of(line): line for _, line in entries(add)}
        self._remove = {self._identity.of(line) for _, line in entries(remove)}

    def of(self, old: Sequence[str]) -> list[str]:
        kept = [line for line in old if self._identity.of(line) not in self._remove]
        present = {self._identity.of(line) for line in kept}
        new = [line for identity, line in self._add.items() if identity not in present]
        if self._kind == "dictionary":  # what a line says beside the word: its frequency
            kept = [self._add.get(self._identity.of(line), line) for line in kept]
        return kept + new


class _Identity:
    """The dictionary's word, the stop word, or the rule, as normalised text has it; a note is itself."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._normalizer = Normalizer()

    def of(self, line: str) -> str:
        if line.startswith("#"):
            return line
        if self._kind == "synonyms":
            return normal_rule(line, self._normalizer)
        word = line.split(maxsplit=1)[0] if self._kind == "dictionary" else line
        return self._normalizer.normalize(word).text.strip()


def _check(kind: Kind, lines: Sequence[str]) -> None:
    """Raises InvalidInput for lines that the kind's parser refuses, or too many."""
    if len(lines) > MAX_LINES:
        raise InvalidInput(f"There are at most {MAX_LINES:,} lines.", field=kind)
    for number, line in enumerate(lines, 1):
        check_text(line, field=f"line {number}", max_chars=MAX_LINE_CHARS)
        if len(line.splitlines()) > 1:
            raise InvalidInput(f"line {number} holds a line break.", field=kind)
    if sum(len(line.encode()) for line in lines) > MAX_BYTES:
        raise InvalidInput(f"The lines have more than {MAX_BYTES:,} bytes in all.", field=kind)
    _PARSERS[kind](lines)


def _latest(head: Note | None, kind: Kind) -> int:
    return int(head.value.get(kind, {}).get("version", 0)) if head else 0


def _log(head: Note | None, kind: Kind) -> list[Mapping[str, Any]]:
    return list(head.value.get(kind, {}).get("log", [])) if head else []


def _is_named(head: Note | None, kind: Kind, version: int) -> bool:
    """Whether the head knows a version, which it doesn't where a change was killed midway."""
    logged = [int(entry["version"]) for entry in _log(head, kind)]
    return version in logged or (len(logged) == _LOGGED and 0 < version < logged[0])


def _with(head: Note | None, kind: Kind, made: Version) -> dict[str, Any]:
    """The head's value with one more change."""
    value = dict(head.value) if head else {}
    log = [*_log(head, kind), asdict(made)]
    value[kind] = {"version": made.version, "log": log[-_LOGGED:]}
    return value


def _key(kind: Kind, version: int) -> str:
    return f"vocabulary:{kind}:{version:06}"


def _named(kind: Kind) -> str:
    return {"dictionary": "dictionary", "synonyms": "synonyms", "stop_words": "stop words"}[kind]
