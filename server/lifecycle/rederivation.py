"""Rederivation: a live generation brought from one dictionary to another, in place."""

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from server.documents import StoredDocument
from server.errors import (
    DocumentNotFound,
    FenceLost,
    RebuildFailed,
    StoreUnavailable,
    TanyuanError,
)
from server.ingest.derivation import Deriver
from server.lifecycle.affected import Affected
from server.lifecycle.lock import Lease
from server.lifecycle.progress import Progress
from server.lifecycle.promotion import clear_fence, patiently
from server.lifecycle.vectors import known_in
from server.recipes import Recipe
from server.stores.contract import Store
from server.stores.fences import MAKER_SECONDS
from server.stores.generations import Derivation, Generation

_BATCH = 64  # documents
_FEW = (
    20  # documents written meanwhile that are left for the fence; more if writers are as fast as we
)
_NAMED = 5  # documents that an error names


@dataclass(frozen=True, slots=True, kw_only=True)
class Rederivation:
    """``edition``: the one that the generation shall have, of which no write is under way.

    ``deriver`` carries out ``recipe``, the new one. ``handled``: by id, the revision of each document
    that was looked at.
    """

    store: Store
    collection: str
    generation: Generation
    recipe: Recipe
    edition: int
    affected: Affected
    deriver: Deriver
    lease: Lease
    progress: Progress
    handled: dict[str, int] = field(default_factory=dict)

    def run(self) -> Generation:
        """Derive what is affected, stamp the generation, and return it. Searches and writes go on.

        Raises RebuildFailed, Stopped, RebuildRunning (the lock was lost), and what the store or a model
        raises when it can't be used for good; then the old recipe is in force.
        """
        before = math.inf
        for number in itertools.count():
            moved = patiently(self.lease, partial(self._pass, thorough=number == 0))
            self.progress.set(state="catching_up")
            if _FEW < moved < before / 2:
                before = moved
                continue
            stamped = patiently(self.lease, self._behind_fence)
            if stamped is not None:
                return stamped
        raise AssertionError("counted to the end")

    def _behind_fence(self) -> Generation | None:
        """The generation as stamped, or None where it could not be done in the time of a fence."""
        generations = self.store.generations
        live = clear_fence(self.store, self.collection)
        if live.id == self.generation.id and live.edition == self.edition:
            return live  # done before, but the answer was lost
        fence = generations.fence(self.collection)
        deadline = time.monotonic() + MAKER_SECONDS
        try:
            while self._pass(self._under_way(), deadline=deadline) > 0:
                pass
            self.lease.check()
            if time.monotonic() > deadline:
                return None
            return generations.restamp(
                self.collection, self.recipe, fence=fence, edition=self.edition
            )
        except FenceLost:
            return None  # somebody who waited took us for dead
        finally:
            with suppress(StoreUnavailable):  # then those who wait lift it
                generations.lift(self.collection, fence)

    def _under_way(self) -> Iterator[str]:
        """Documents whose writers have begun, and whose chunks may come yet, by the old dictionary: so
        they have to be there by the new one, under the edition that wins."""
        for each in self.store.generations.pending(self.collection, self.generation.id):
            if each.document is not None:
                yield each.document_id

    def _pass(
        self,
        more: Iterable[str] = (),
        *,
        thorough: bool = False,
        deadline: float = float("inf"),
    ) -> int:
        """Look at every candidate, and at ``more``, whose present revision was not looked at; how many
        were derived or have to be looked at again. Past the ``deadline`` 0, whatever is left."""
        self.store.refresh(self.collection)  # so that candidates are of all acknowledged writes
        moved = 0
        failures: dict[str, TanyuanError] = {}
        for batch in _batches(itertools.chain(self.affected.candidates(thorough=thorough), more)):
            if time.monotonic() > deadline:
                return 0
            self.lease.check()
            self.progress.add()  # and see whether to stop
            states = self.store.states(self.collection, batch)
            new = [
                document_id
                for document_id, state in states.items()
                if self.handled.get(document_id) != state.revision
            ]
            moved += self._derive(self._changed(new), failures)
        if failures:
            named = "; ".join(
                f"{document_id!r}: {error.message}"
                for document_id, error in list(failures.items())[:_NAMED]
            )
            raise RebuildFailed(
                f"{len(failures):,} documents can't be derived ({named}). The old dictionary is in "
                "force. Mend the cause and apply again, or give up: scripts/dictionary abandon."
            )
        return moved

    def _changed(self, document_ids: Sequence[str]) -> list[StoredDocument]:
        """Those whose terms change; the others are handled."""
        documents = []
        for document_id in document_ids:
            with suppress(DocumentNotFound):  # deleted meanwhile
                documents.append(self.store.document(self.collection, document_id))
        found = self.store.generations.chunks(
            self.collection, self.generation.id, [each.document.id for each in documents]
        )
        changed = []
        for stored in documents:
            document = stored.document
            if self.affected.differs(document, stored.chunks, found.get(document.id, ())):
                changed.append(stored)
            else:
                self.handled[document.id] = stored.revision
        return changed

    def _derive(self, changed: Sequence[StoredDocument], failures: dict[str, TanyuanError]) -> int:
        revisions = {stored.document.id: stored.revision for stored in changed}
        known = known_in(self.store, self.collection, self.generation.recipe)
        for batch in self.deriver.derive([each.document for each in changed], known=known):
            made, embedded = [], 0
            for item in batch:
                if isinstance(item.chunks, TanyuanError):
                    if isinstance(item.chunks, StoreUnavailable):
                        raise item.chunks
                    failures[item.document.id] = item.chunks
                    continue
                embedded += item.embedded
                made.append(
                    Derivation(
                        document_id=item.document.id,
                        revision=revisions[item.document.id],
                        document=item.document,
                        chunks=item.chunks,
                    )
                )
            self._put(made, embedded, failures)
        return len(changed)

    def _put(
        self, made: Sequence[Derivation], embedded: int, failures: dict[str, TanyuanError]
    ) -> None:
        results = self.store.generations.derive(
            self.collection, self.generation.id, made, edition=self.edition
        )
        done = 0
        for derivation, result in zip(made, results, strict=True):
            if isinstance(result, StoreUnavailable):
                raise result
            if isinstance(result, TanyuanError):
                failures[derivation.document_id] = result
            elif result:  # else it was written meanwhile, and is looked at again
                self.handled[derivation.document_id] = derivation.revision
                done += 1
        chunks = sum(len(derivation.chunks) for derivation in made)
        reused = chunks - embedded if self.recipe.dimensions else 0
        self.progress.add(done=done, embedded=embedded, reused=reused)


def _batches(document_ids: Iterable[str]) -> Iterator[list[str]]:
    waiting = iter(document_ids)
    while batch := list(itertools.islice(waiting, _BATCH)):
        yield batch
