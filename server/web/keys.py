"""API keys: a small SQLite file in the data folder, shared by the server and ``scripts/keys``.

A token is 256 random bits and only its SHA-256 is kept, so the file gives no token away and a plain
hash is enough (there is nothing to guess). Every look-up reads the file, so a key made or revoked by
the script counts at the running server's next request.
"""

import hashlib
import re
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, get_args

from server.documents import check_group
from server.errors import ConfigurationError, InvalidInput

Role = Literal["admin", "writer", "reader", "portal"]

FILE_NAME = "keys.sqlite"

_NAME = re.compile(r"[^\W_][\w.@-]{0,63}")
_TABLE = """
create table if not exists keys (
    hash text primary key, name text not null unique, role text not null, groups text not null,
    created_at text not null, revoked_at text
) strict
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key without its token. ``revoked_at`` None: it is valid. Times are ISO 8601, UTC."""

    name: str
    role: Role
    groups: tuple[str, ...]
    created_at: str
    revoked_at: str | None = None


class Keys:
    """The keys of one data folder; thread-safe, and safe with several processes.

    Raises ConfigurationError when the file can't be used: a server that can't read its keys lets
    nobody in.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def in_folder(cls, data: Path) -> "Keys":
        return cls(data / FILE_NAME)

    def exist(self) -> bool:
        """Whether a key was ever made; revoking the last one doesn't open the server again."""
        if not self._path.exists():
            return False
        with self._connect() as connection:
            return connection.execute("select 1 from keys limit 1").fetchone() is not None

    def find(self, token: str) -> Key | None:
        """The valid key of a token, or None."""
        if not self._path.exists():
            return None
        with self._connect() as connection:
            row = connection.execute(
                "select * from keys where hash = ? and revoked_at is null",
                (_hash(token),),
            ).fetchone()
        return _key(row) if row else None

    def create(self, *, name: str, role: Role, groups: Sequence[str] = ()) -> str:
        """Make a key and return its token, which is shown this once. Raises InvalidInput."""
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                f"A key's name has 1 to 64 letters, digits, '_', '-', '.' or '@'; got {name[:80]!r}.",
                field="name",
            )
        if role not in get_args(Role):
            raise InvalidInput(f"role must be one of {', '.join(get_args(Role))}.", field="role")
        checked = ",".join(sorted({check_group(group) for group in groups}))
        token = f"ty_{secrets.token_urlsafe(32)}"
        self._create_file()
        with self._connect() as connection:
            try:
                connection.execute(
                    "insert into keys values (?, ?, ?, ?, ?, null)",
                    (_hash(token), name, role, checked, _now()),
                )
            except sqlite3.IntegrityError:
                raise InvalidInput(
                    f"There is a key named {name!r} already (a revoked one keeps its name too); "
                    "choose another name.",
                    field="name",
                ) from None
        return token

    def all(self) -> list[Key]:
        """Every key by name, revoked ones too."""
        if not self._path.exists():
            return []
        with self._connect() as connection:
            rows = connection.execute("select * from keys order by name").fetchall()
        return [_key(row) for row in rows]

    def revoke(self, name: str) -> Key:
        """Make a key invalid at once and return it. Raises InvalidInput where there is none."""
        if self._path.exists():
            with self._connect() as connection:
                row = connection.execute(
                    "update keys set revoked_at = coalesce(revoked_at, ?) where name = ? "
                    "returning *",
                    (_now(), name),
                ).fetchone()
            if row:
                return _key(row)
        raise InvalidInput(
            f"There is no key named {name!r}; see `scripts/keys list`.", field="name"
        )

    def _create_file(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch(mode=0o600)
        except OSError as error:
            raise self._unusable(error) from error

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=5)) as connection, connection:
                connection.execute(_TABLE)
                yield connection
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> ConfigurationError:
        return ConfigurationError(f"The key file {self._path} can't be used: {error}.")


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    host = host.strip("[]").partition("%")[0].rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def check_binding(host: str, keys: Keys) -> None:
    """Refuse to listen to other machines while there is no key. Raises ConfigurationError."""
    if not is_loopback(host) and not keys.exist():
        raise ConfigurationError(
            f"TANYUAN_HOST is {host}, which other machines can reach, but there is no API key yet. "
            "Make one first: scripts/keys create --name admin --role admin"
        )


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _key(row: tuple[str, str, Role, str, str, str | None]) -> Key:
    _, name, role, groups, created_at, revoked_at = row
    return Key(
        name=name,
        role=role,
        groups=tuple(group for group in groups.split(",") if group),
        created_at=created_at,
        revoked_at=revoked_at,
    )
