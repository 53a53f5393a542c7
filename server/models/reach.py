"""Which hosts may be asked: those of this machine and its network, and what TANYUAN_OFFLINE excepts.

A host is judged by what is written, never by what a name server says of it: that can change, and asking
would go out already.
"""

import ipaddress
import re
from collections.abc import Set

from server.errors import ConfigurationError

# Reserved for private networks, or for this machine: RFC 6761, RFC 6762, RFC 8375, and ICANN's .internal.
LOCAL_SUFFIXES = (".localhost", ".local", ".home.arpa", ".internal")
_HEXADECIMAL = re.compile(r"0x[0-9a-f]*")


def is_local(host: str) -> bool:
    """Whether a host is on this machine or a private network.

    An address is if it is a loopback, private or link-local one. A name is if it has no dot, as
    containers and hosts of one network call each other, or ends in one of LOCAL_SUFFIXES.
    """
    name = host.lower().rstrip(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        # Numbers such as 134744072 or 0x8080808 are addresses to some resolvers.
        number = not re.search(r"[a-z]", name) or bool(_HEXADECIMAL.fullmatch(name))
        return bool(name) and not number and ("." not in name or name.endswith(LOCAL_SUFFIXES))
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_link_local or address.is_private


def check_reach(host: str, *, setting: str, exceptions: Set[str] | None, asker: str) -> None:
    """Raise ConfigurationError where ``host``, which ``setting`` names, may not be asked.

    ``exceptions``: hosts that may be all the same; None: any. ``asker``: what would ask, for people.
    """
    host = host.lower().rstrip(".")
    if exceptions is None or host in exceptions or is_local(host):
        return
    raise ConfigurationError(
        f"{asker} would send the text of all documents and queries to {host} ({setting}), which is "
        "neither on this machine nor on a private network, and TANYUAN_OFFLINE keeps them here. "
        f"TANYUAN_OFFLINE={','.join(sorted({*exceptions, host}))} allows it; otherwise choose another "
        "embedder, such as e5."
    )
