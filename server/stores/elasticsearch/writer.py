"""Writing and deleting documents so that no crash and no other writer leaves a wrong state.

A write has three steps, each one bulk request for the whole batch:

1. *claim*: the document's record gets the next revision, the document, ``complete: false``, no level
   and an ``extent`` that covers the chunks there may be, on condition that nobody changed it meanwhile.
2. *chunks*: the new chunks are put and surplus ones deleted, all under the revision as external
   version, so that an older writer that comes late changes nothing. They are put through an alias that
   goes when another generation becomes live; a write that meets this is refused.
3. *complete*: the record is marked, on condition that it is still the claimed one. If it is not, a
   newer writer took over, and the chunks are that writer's affair.

Cut off between the steps, the record says ``complete: false``, and the next write of the document
replaces or deletes every chunk below ``extent``.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from server.errors import CollectionNotFound, GenerationChanged, TanyuanError
from server.stores.contract import Deleted, Write, Written
from server.stores.elasticsearch import steps
from server.stores.elasticsearch.changes import Change, Target
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.errors import NoAlias
from server.stores.elasticsearch.layout import Layout
from server.stores.elasticsearch.steps import ATTEMPTS, Claimed, contended
from server.stores.fences import await_unfenced
from server.stores.generations import Generation


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Writes to one collection of a ``layout``.

    ``read`` gives the layout afresh, ``lift`` takes a fence away whose maker is gone.
    """

    client: Client
    layout: Layout
    read: Callable[[], Layout]
    lift: Callable[[str], bool]

    def put(self, writes: Sequence[Write]) -> list[Written | TanyuanError]:
        """Results in order; of the same id twice the later comes after the earlier.

        Raises CollectionNotFound.
        """
        target = Target.live(self.layout.names, self.layout.live, alone=self.layout.alone)
        results: dict[int, Written | TanyuanError] = {}
        refused: set[str] = set()
        for numbers in _rounds([write.document.id for write in writes]):
            changes: dict[int, Change] = {}
            for number in numbers:
                write = writes[number]
                if write.document.id in refused:  # the earlier one has to be made again before
                    results[number] = changed(self.layout)
                else:
                    changes[number] = Change(
                        document_id=write.document.id, write=write, if_revision=write.if_revision
                    )
            for number, result in self._put(changes, target).items():
                results[number] = _written(result) if isinstance(result, Change) else result
                if isinstance(result, GenerationChanged):
                    refused.add(writes[number].document.id)
        return [results[number] for number in range(len(writes))]

    def _put(
        self, changes: Mapping[int, Change], target: Target
    ) -> dict[int, Change | TanyuanError]:
        """Changes of different documents through the three steps."""
        results: dict[int, Change | TanyuanError] = {}
        for attempt in range(ATTEMPTS):
            if not changes:
                return results
            _pause(attempt)
            try:
                claims = steps.claim(self.client, self.layout.names, changes)
                done = self._chunks_and_complete(list(claims.claimed.values()), target)
            except CollectionNotFound:
                raise
            except TanyuanError as error:
                # Others of the batch may be done, so this is the result of these, not of the call.
                return results | dict.fromkeys(changes, error)
            results |= {**claims.refused, **dict(zip(claims.claimed, done, strict=True))}
            changes = claims.forestalled
        return results | {
            number: contended(change.document_id) for number, change in changes.items()
        }

    def _chunks_and_complete(
        self, claimed: Sequence[Claimed], target: Target
    ) -> list[Change | TanyuanError]:
        if not claimed:
            return []
        errors = steps.put_chunks(self.client, target, claimed)
        empty = [owner for owner, own in enumerate(claimed) if not own.change.chunks]
        if empty and not self._holds(target):
            # Without a chunk nothing was refused, though it had to be.
            errors = dict.fromkeys(empty, NoAlias("")) | errors
        good = {owner: own for owner, own in enumerate(claimed) if owner not in errors}
        errors |= steps.complete(self.client, self.layout.names, target, good)
        refused = [owner for owner, error in errors.items() if isinstance(error, NoAlias)]
        layout = self.read() if refused else self.layout
        for owner in refused:
            change = claimed[owner].change
            errors[owner] = changed(layout, claimed=change.revision, created=change.creates)
        return [errors.get(owner) or own.change for owner, own in enumerate(claimed)]

    def remove(self, document_id: str, if_revision: int | None) -> Deleted:
        """Waits while a fence stands.

        Raises DocumentNotFound, RevisionConflict, CollectionNotFound.
        """
        target = self._unfenced()
        change = Change(document_id=document_id, write=None, if_revision=if_revision)
        for attempt in range(ATTEMPTS):
            _pause(attempt)
            claims = steps.claim(self.client, self.layout.names, {0: change})
            if claims.refused:
                self._finish_tombstone(change, target)
                raise claims.refused[0]
            if claims.claimed:
                own = claims.claimed[0]
                removed = self._remove_chunks(own, target)
                revision = own.change.revision
                return Deleted(document_id=document_id, revision=revision, chunks=removed)
        raise contended(document_id)

    def _remove_chunks(self, own: Claimed, target: Target) -> int:
        """Steps two and three of a delete; how many chunks there were.

        Elasticsearch does not keep deletes to an alias, so where another generation became live
        meanwhile they are made there as well before the delete is reported.
        """
        removed = 0
        while True:
            found, errors = steps.delete_chunks(self.client, target, [own])
            removed = max(removed, found)
            if errors or self._holds(target):
                break
            target = self._unfenced()
        errors = errors or steps.complete(self.client, self.layout.names, target, {0: own})
        if errors:
            raise errors[0]
        return removed

    def _finish_tombstone(self, change: Change, target: Target) -> None:
        """Remove the chunks that a cut-off delete left, when the delete is tried again."""
        record = steps.read(self.client, self.layout.names, change.document_id)
        if record is not None and record.deleted and not record.complete:
            again = replace(change, before=replace(record, revision=record.revision - 1))
            self._remove_chunks(Claimed(change=again, record=record), target)

    def _holds(self, target: Target) -> bool:
        """Whether chunks may still be put to ``target``."""
        live = self.read().live
        return not live.fence and (live.id, live.edition) == (target.generation, target.edition)

    def _unfenced(self) -> Target:
        """Where deletes go, as soon as no fence stands."""
        layout = self.layout

        def live() -> Generation:
            nonlocal layout
            layout = self.read()
            return layout.live

        generation = await_unfenced(live, self.lift)
        return Target.live(layout.names, generation, alone=layout.alone)


def changed(
    layout: Layout, *, claimed: int | None = None, created: bool | None = None
) -> GenerationChanged:
    """The error of a write for a generation that takes none (any more)."""
    live = layout.live
    now = "a fence stands" if live.fence else f"generation {live.key} is live"
    return GenerationChanged(
        f"Collection {layout.names.collection!r} does not take this write: {now}. Derive the "
        "document by the live generation's recipe and write it again.",
        claimed=claimed,
        created=created,
    )


def _written(change: Change) -> Written:
    return Written(
        document_id=change.document_id,
        revision=change.revision,
        chunks=len(change.chunks),
        status="created" if change.creates else "updated",
    )


def _pause(attempt: int) -> None:
    if attempt:
        # Writers of the same document would else meet again and again.
        time.sleep(random.uniform(0, 0.05 * attempt))  # noqa: S311


def _rounds(ids: Sequence[str]) -> Iterator[list[int]]:
    """Positions in ``ids`` grouped so that no group has an id twice, earlier ones first."""
    rounds: list[list[int]] = []
    seen: dict[str, int] = {}
    for number, document_id in enumerate(ids):
        turn = seen.get(document_id, 0)
        seen[document_id] = turn + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(number)
    return iter(rounds)
