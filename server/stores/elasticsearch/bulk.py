"""Bulk requests: bounded in bytes, every item's outcome looked at, refused items sent again."""

import json
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from server.errors import CollectionNotFound, TanyuanError
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.errors import Busy, NoAlias, from_cause, no_collection

_MAX_BODY = 10_000_000  # bytes of one request; a single operation may be larger
_TRIES = 6
_FIRST_PAUSE = 0.1  # seconds; doubled at every try


@dataclass(frozen=True, slots=True)
class Operation:
    """One item: ``action`` is index, create, update or delete; ``body`` its source, if it has one."""

    action: str
    meta: Mapping[str, Any]
    body: Mapping[str, Any] | None = None

    def lines(self) -> bytes:
        parts = (
            [{self.action: self.meta}]
            if self.body is None
            else [{self.action: self.meta}, self.body]
        )
        return b"\n".join(
            json.dumps(part, ensure_ascii=False, separators=(",", ":")).encode() for part in parts
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item. ``result``: created, updated, deleted, not_found or noop."""

    error: TanyuanError | None = None
    result: str = ""
    seq_no: int = -1
    primary_term: int = -1


def send(
    client: Client, target: str, operations: Iterable[Operation], *, through_alias: bool = True
) -> list[Outcome]:
    """The outcomes, in order. A request that fails as a whole fails its items and those after it.

    ``target`` is an alias, without which an item's error is NoAlias; or an index, for deletes, which
    Elasticsearch does not keep to aliases.
    """
    outcomes: list[Outcome] = []
    failure: TanyuanError | None = None
    for group in _groups(operations):
        if failure is None:
            try:
                outcomes += _send_group(client, target, group, through_alias)
                continue
            except TanyuanError as error:
                failure = error
        outcomes += [Outcome(error=failure)] * len(group)
    return outcomes


def send_records(
    client: Client, alias: str, collection: str, operations: Iterable[Operation]
) -> list[Outcome]:
    """The same to an alias that a collection always has. Raises CollectionNotFound."""
    outcomes = send(client, alias, operations)
    if any(isinstance(outcome.error, NoAlias) for outcome in outcomes):
        raise no_collection(collection)
    return outcomes


def _groups(operations: Iterable[Operation]) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    size = 0
    for operation in operations:
        lines = operation.lines()
        if group and size + len(lines) > _MAX_BODY:
            yield group
            group, size = [], 0
        group.append(lines)
        size += len(lines)
    if group:
        yield group


def _send_group(
    client: Client, target: str, group: list[bytes], through_alias: bool
) -> list[Outcome]:
    """Send until no item is refused for want of room in a queue, or _TRIES are used up."""
    outcomes: dict[int, Outcome] = {}
    waiting = list(range(len(group)))
    for attempt in range(_TRIES):
        if attempt:
            pause = _FIRST_PAUSE * 2 ** (attempt - 1)
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads the writers
        try:
            lines: list[Any] = [group[item] for item in waiting]
            answer = client.bulk(index=target, operations=lines, require_alias=through_alias)
        except Busy as error:
            outcomes.update({item: Outcome(error=error) for item in waiting})
            continue
        outcomes.update(zip(waiting, map(_outcome, answer["items"]), strict=True))
        waiting = [item for item in waiting if isinstance(outcomes[item].error, Busy)]
        if not waiting:
            break
    return [outcomes[item] for item in range(len(group))]


def _outcome(item: Mapping[str, Mapping[str, Any]]) -> Outcome:
    [answer] = item.values()
    if "error" in answer:
        error = from_cause(int(answer["status"]), answer["error"])
        if isinstance(error, CollectionNotFound):
            # Of an index by its own name, which deletes alone are sent to: nothing is there.
            return Outcome(result="not_found")
        return Outcome(error=error)
    return Outcome(
        result=str(answer["result"]),
        seq_no=int(answer["_seq_no"]),
        primary_term=int(answer["_primary_term"]),
    )
