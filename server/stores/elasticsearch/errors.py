"""Elasticsearch's errors, of whole requests and of single items, as the product's own."""

import re
from collections.abc import Mapping
from typing import Any

from elasticsearch import ApiError, TransportError
from elasticsearch.exceptions import ConnectionTimeout, SSLError

from server.errors import (
    CollectionNotFound,
    ConfigurationError,
    InvalidInput,
    RevisionConflict,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
    TanyuanError,
)

_REASON_CHARS = 300  # a reason may quote what was sent
_COLLECTION = re.compile(r"\.([a-z0-9][a-z0-9_-]*)\.(?:documents|chunks|notes)\b")
_CLAUSES = re.compile(r"maxClauseCount is set to (\d+)")
_TIMEOUTS = frozenset(
    {"process_cluster_event_timeout_exception", "timeout_exception", "receive_timeout_exception"}
)
# The block that Elasticsearch sets past the flood-stage watermark, and what a full disk gives.
_FULL = ("flood-stage", "read-only-allow-delete", "No space left on device")

_REPOSITORY = frozenset(
    {
        *("repository_exception", "repository_missing_exception", "snapshot_missing_exception"),
        *("repository_verification_exception", "snapshot_restore_exception"),
    }
)
_NO_ALIAS = ("[require_alias] request flag is [true]", "required alias [")


class Busy(StoreUnavailable):
    """The server's queues are full; the same request may be sent again after a pause."""


class VersionConflict(RevisionConflict):
    """A newer write of the same id is there."""


class AlreadyExists(TanyuanError):
    """The index is there."""


class NoAlias(TanyuanError):
    """The alias that was to be written through, or taken away, is not there."""


class TooManyClauses(InvalidInput):
    """The query has more terms than the node takes: ``limit``."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The query has more than {limit:,} terms; make it shorter.")
        self.limit = limit


def from_exception(error: Exception, address: str) -> TanyuanError:
    """The error of a whole request to ``address``, which holds no credentials."""
    if isinstance(error, ConnectionTimeout):
        return StoreTimeout(f"Elasticsearch at {address} did not answer in time; try again later.")
    if isinstance(error, SSLError):
        return StoreUnavailable(
            f"Elasticsearch at {address} shows a certificate that can't be trusted; set "
            "TANYUAN_ELASTICSEARCH_CA to the file of its certificate authority."
        )
    if isinstance(error, ApiError):
        body = error.body
        cause = body.get("error", "") if isinstance(body, Mapping) else str(body)
        return from_cause(error.meta.status, cause)
    if isinstance(error, TransportError):
        return StoreUnavailable(
            f"Elasticsearch at {address} can't be reached; check that it runs and "
            "TANYUAN_ELASTICSEARCH_URL."
        )
    return StoreUnavailable(f"{address} answers, but not as Elasticsearch does.")


def from_cause(status: int, cause: Mapping[str, Any] | str) -> TanyuanError:
    """The error of a request, a search or a bulk item, from its status and ``error`` object."""
    kind, reason = _describe(cause)
    return _from_reason(status, kind, reason) or _from_status(status, kind, reason)


def _from_reason(status: int, kind: str, reason: str) -> TanyuanError | None:
    """The error that the type or the reason tells by itself."""
    clauses = _CLAUSES.search(reason)
    if clauses:
        return TooManyClauses(int(clauses[1]))
    if any(sign in reason for sign in _FULL):
        return StoreFull(
            "Elasticsearch takes no more writes: its disk is full or past the flood-stage "
            "watermark. Free or add room; it takes writes again by itself."
        )
    missing = _from_names(kind, reason)
    if missing:
        return missing
    if kind in _REPOSITORY:
        return InvalidInput(f"Elasticsearch can't use the repository or snapshot ({reason}).")
    if kind == "security_exception" or status == 401:
        return StoreUnavailable(
            "Elasticsearch refuses the credentials or what they may do; check "
            "TANYUAN_ELASTICSEARCH_API_KEY, or TANYUAN_ELASTICSEARCH_USER and _PASSWORD."
        )
    return None


def _from_names(kind: str, reason: str) -> TanyuanError | None:
    """The error about indices and aliases that are, or are not, there."""
    if kind == "aliases_not_found_exception" or any(sign in reason for sign in _NO_ALIAS):
        return NoAlias(reason[:_REASON_CHARS])
    if kind == "index_not_found_exception":
        found = _COLLECTION.search(reason)
        return no_collection(found[1] if found else reason[:_REASON_CHARS])
    if kind == "resource_already_exists_exception" or "more than one write index" in reason:
        return AlreadyExists(reason)
    return None


def _from_status(status: int, kind: str, reason: str) -> TanyuanError:
    said = f"{kind}: {reason[:_REASON_CHARS]}" if kind else reason[:_REASON_CHARS]
    if status == 409:
        return VersionConflict("Another write of the same document won; read it and try again.")
    if kind in _TIMEOUTS or status in {408, 504}:
        return StoreTimeout(f"Elasticsearch did not finish in time ({said}); try again later.")
    if status == 429:
        return Busy(f"Elasticsearch is too busy ({said}); try again later.")
    if status in {400, 413}:
        return InvalidInput(f"Elasticsearch refuses the request ({said}).")
    if status == 406:
        return ConfigurationError(
            f"The server does not speak Elasticsearch's version 8 or 9 ({said})."
        )
    return StoreUnavailable(f"Elasticsearch can't serve now (HTTP {status}; {said}).")


def _describe(cause: Mapping[str, Any] | str) -> tuple[str, str]:
    """(type, reason with the reasons below it)."""
    if not isinstance(cause, Mapping):
        return "", str(cause)
    below = [cause.get("caused_by"), *cause.get("root_cause", ())]
    below += [failure.get("reason") for failure in cause.get("failed_shards", ())]
    reasons = [str(cause.get("reason", "")), *(_describe(each)[1] for each in below if each)]
    return str(cause.get("type", "")), " · ".join(dict.fromkeys(filter(None, reasons)))


def no_collection(name: str) -> CollectionNotFound:
    return CollectionNotFound(f"There is no collection {name!r}.")
