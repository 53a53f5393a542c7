"""Who calls, what they may do, and which documents they may see."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

from flask import Request

from server.documents import PUBLIC, Document, check_group
from server.errors import Forbidden, InvalidInput, Unauthorized
from server.texts import check_text
from server.web.keys import Key, Keys, Role, is_loopback

Permission = Literal["read", "write", "admin"]

# Writing is not limited by groups: a writer may put or delete any document, but reads its own groups'.
ALLOWED: Mapping[Role, frozenset[Permission]] = MappingProxyType(
    {
        "admin": frozenset({"read", "write", "admin"}),
        "writer": frozenset({"read", "write"}),
        "reader": frozenset({"read"}),
        "portal": frozenset({"read"}),
    }
)

USER_HEADER = "X-Tanyuan-User"
GROUPS_HEADER = "X-Tanyuan-Groups"

_MAX_GROUPS = 1_000
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """``groups`` None: may see everything. ``user``: whom a portal speaks for, for the log."""

    name: str
    role: Role
    groups: frozenset[str] | None
    user: str = ""

    def require(self, permission: Permission) -> None:
        """Raises Forbidden."""
        if permission not in ALLOWED[self.role]:
            raise Forbidden(f"A key with the role {self.role} may not do this ({permission}).")

    def may_see(self, document: Document) -> bool:
        return self.groups is None or not self.groups.isdisjoint(document.acl)


def identify(request: Request, keys: Keys) -> Caller:
    """The caller of a request. Raises Unauthorized, Forbidden, InvalidInput."""
    if not keys.exist():
        check_local(request)
        _refuse_stated_groups(request)
        return Caller(name="", role="admin", groups=None)
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized(
            "An API key is needed: send it as `Authorization: Bearer ty_…`. "
            "scripts/keys create makes one."
        )
    key = keys.find(token.strip())
    if key is None:
        raise Unauthorized("The API key is unknown or was revoked.")
    if key.role == "portal":
        return _portal_caller(request, key)
    _refuse_stated_groups(request)
    groups = None if key.role == "admin" else frozenset({*key.groups, PUBLIC})
    return Caller(name=key.name, role=key.role, groups=groups)


def check_local(request: Request) -> None:
    """Without a key anyone who gets here is admin, so only people at this machine may get here.

    A page of another site, open in a browser here, can send requests to loopback too: under its own
    name (DNS rebinding, seen by the Host header) or across sites (seen by Origin and Sec-Fetch-Site).
    Raises Unauthorized or Forbidden.
    """
    if not is_loopback(request.remote_addr or ""):
        raise Unauthorized(
            "The server has no API key yet, so it serves only its own machine. "
            "Make one there: scripts/keys create --name admin --role admin"
        )
    if any(name in request.headers for name in _FORWARDED):
        raise Forbidden(
            "A proxy forwards to this server, which has no API key yet and so would take everyone "
            "for the admin. Make one: scripts/keys create --name admin --role admin"
        )
    if not is_loopback(_host_name(request.host)):
        raise Forbidden(
            "Without an API key the server answers only to names of this machine, such as "
            "localhost or 127.0.0.1."
        )
    if request.method not in _SAFE_METHODS:
        site = request.headers.get("Sec-Fetch-Site", "none")
        origin = request.headers.get("Origin")
        if site not in {"same-origin", "none"} or (
            origin and urlsplit(origin).netloc.lower() != request.host.lower()
        ):
            raise Forbidden("A page of another site may not call a server that has no API key.")


def _portal_caller(request: Request, key: Key) -> Caller:
    """Groups as the trusted backend states them; a portal key that has groups can't go beyond them."""
    header = _utf8(request.headers.get(GROUPS_HEADER, ""), GROUPS_HEADER)
    stated = frozenset(check_group(part.strip()) for part in header.split(",") if part.strip())
    if len(stated) > _MAX_GROUPS:
        raise InvalidInput(f"More than {_MAX_GROUPS} groups.", field=GROUPS_HEADER)
    if key.groups:
        stated &= frozenset(key.groups)
    user = _utf8(request.headers.get(USER_HEADER, ""), USER_HEADER)
    check_text(user, field=USER_HEADER, max_chars=200)
    return Caller(name=key.name, role="portal", groups=stated | {PUBLIC}, user=user)


def _refuse_stated_groups(request: Request) -> None:
    """Headers that look as if they limited what is seen, and don't, would be a trap."""
    for name in (USER_HEADER, GROUPS_HEADER):
        if name in request.headers:
            raise Forbidden(f"{name} is only for keys with the role portal.")


def _utf8(value: str, name: str) -> str:
    """A header's value as UTF-8 (WSGI hands bytes over as Latin-1)."""
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        raise InvalidInput(f"{name} is not UTF-8.", field=name) from None


def _host_name(host: str) -> str:
    """A Host header without its port."""
    return host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
