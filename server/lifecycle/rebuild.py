"""Rebuilder: new generations of live collections, and the way back to old ones."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import islice

from server.errors import (
    GenerationNotFound,
    InvalidInput,
    RebuildRunning,
    Stopped,
    StoreUnavailable,
    TanyuanError,
)
from server.ingest.indexer import deriver_of
from server.lifecycle.lock import ChangeLock, Lease
from server.lifecycle.progress import Kind, Progress, Rebuild, Rebuilds
from server.lifecycle.promotion import Target, clear_fence, promote, prune
from server.lifecycle.vectors import known_in
from server.live import LiveCollections
from server.stores.contract import Store
from server.stores.generations import Generation

_LOSSES = 2  # generations that may be lost with their node in one rebuild
_STOP_SECONDS = 60.0  # until a running rebuild that was asked to stop has ended


class Work:
    """A rebuild or roll back that holds the lock and is ready to run; to be run or closed."""

    def __init__(
        self, progress: Progress, held: ExitStack, run: Callable[[], None] = lambda: None
    ) -> None:
        self._progress = progress
        self._run = run
        self._held = held

    @property
    def record(self) -> Rebuild:
        return self._progress.record

    def run(self) -> Rebuild:
        """Do it; the record in its last state. Searches and writes go on meanwhile.

        What goes wrong is raised, and stands in the record where that can still be written.
        """
        with self._held:
            try:
                self._run()
            except (Stopped, RebuildRunning):
                raise  # the record stays as it is: to be resumed, or another's by now
            except TanyuanError as error:
                with suppress(TanyuanError):
                    self._progress.set(state="failed", error=error.message)
                raise
            return self.record

    def close(self) -> None:
        """Let it be; it can be resumed."""
        self._held.close()


class Rebuilder:
    """Thread-safe. ``keep``: how many old generations stay for a roll back."""

    def __init__(self, store: Store, live: LiveCollections, *, keep: int = 1) -> None:
        self._store = store
        self._live = live
        self._keep = keep

    def rebuild(self, collection: str, *, by: str, resume: bool = False) -> Work:
        """Make a new generation by this process's settings and the collection's dictionary.

        One that was cut off is gone on with where it makes the same recipe, else it is dropped;
        ``resume``: gone on with as it was begun, whatever this process's settings are. One whose
        process died when all but the tidying was done is finished by that.

        Raises RebuildRunning, CollectionNotFound, RecipeMismatch for parts that can't be had, and with
        ``resume`` InvalidInput where nothing was cut off.
        """
        held, lease = self._lock(collection, "rebuild")
        with _closing_on_error(held):
            finished = self._tidy(collection)
            building = self._building(collection)
            if resume and building is None:
                if finished:
                    return Work(finished[0], held)
                raise InvalidInput(
                    f"Collection {collection!r} has no rebuild that was cut off.", field="resume"
                )
            target = self._live.target(collection)
            sound = building is not None and self._is_sound(collection, building)
            if building is not None and (not sound or (building.recipe != target and not resume)):
                target = building.recipe if resume else target
                self._drop_building(collection)
                building = None
            generation = building or self._store.generations.create(collection, recipe=target)
            progress = self._progress(collection, "rebuild", generation, by)
            return self._work(collection, generation, lease, progress, held)

    def roll_back(self, collection: str, *, by: str, to: str | None = None) -> Work:
        """Make an old generation live again, with everything that was written since.

        ``to``: its id; None: the one that was live before. Raises RebuildRunning, CollectionNotFound,
        GenerationNotFound where none is kept, RecipeMismatch for parts that can't be had.
        """
        held, lease = self._lock(collection, "rollback")
        with _closing_on_error(held):
            self._tidy(collection)
            chosen = self._kept(collection, to)
            progress = self._progress(collection, "rollback", chosen, by)
            return self._work(collection, chosen, lease, progress, held)

    def abandon(self, collection: str) -> list[Rebuild]:
        """Give up what was cut off or is running, and remove what it made; the records of these.

        Raises RebuildRunning where it does not stop within a minute.
        """
        for record in Rebuilds(self._store.notes, collection).all():
            if not record.ended:
                Rebuilds(self._store.notes, collection).stop(record.id)
        deadline = time.monotonic() + _STOP_SECONDS
        while True:
            try:
                held, _ = self._lock(collection, "abandon")
                break
            except RebuildRunning:
                if time.monotonic() > deadline:
                    raise
        with held:
            self._tidy(collection)
            return self._drop_building(collection)

    def _kept(self, collection: str, to: str | None) -> Generation:
        """The old generation with this id; None: the one that was live before."""
        live = self._store.live(collection, fresh=True)
        kept = {
            each.id: each
            for each in self._store.generations.all(collection)
            if each.state == "kept"
        }
        if to is None and kept:
            records = Rebuilds(self._store.notes, collection).all()
            before = [each.replaced for each in records if each.generation == live.id]
            to = next((each for each in before if each in kept), max(kept))
        if to not in kept:
            wanted = f"no old generation {to}" if to else "no old generation"
            raise GenerationNotFound(
                f"Collection {collection!r} has {wanted} to roll back to; kept: "
                f"{', '.join(kept) or 'none'}. TANYUAN_KEEP_GENERATIONS says how many are."
            )
        return kept[to]

    def _lock(self, collection: str, work: str) -> tuple[ExitStack, Lease]:
        self._store.live(collection, fresh=True)  # CollectionNotFound before anything else
        held = ExitStack()
        lease = held.enter_context(ChangeLock(self._store.notes, collection).held(work))
        return held, lease

    def _work(
        self,
        collection: str,
        generation: Generation,
        lease: Lease,
        progress: Progress,
        held: ExitStack,
    ) -> Work:
        target = self._target(collection, generation, lease, progress)

        def run() -> None:
            self._promote(target)
            self._live.open(collection, fresh=True)
            prune(self._store, collection, keep=self._keep, replaced=progress.record.replaced)
            progress.set(state="promoted", done=progress.record.total)

        return Work(progress, held, run)

    def _target(
        self, collection: str, generation: Generation, lease: Lease, progress: Progress
    ) -> Target:
        """Raises RecipeMismatch for parts that can't be had."""
        return Target(
            store=self._store,
            collection=collection,
            generation=generation,
            deriver=deriver_of(self._live.of(collection, generation), self._live.own),
            known=known_in(self._store, collection, generation.recipe),
            lease=lease,
            progress=progress,
        )

    def _promote(self, target: Target) -> None:
        """A generation that is lost on the way, with the node that had it, is begun anew."""
        for _ in range(_LOSSES):
            try:
                promote(target)
            except StoreUnavailable:
                rebuilding = target.progress.record.kind == "rebuild"
                if not rebuilding or self._is_sound(target.collection, target.generation):
                    raise
                target = self._anew(target)
            else:
                return
        promote(target)

    def _anew(self, target: Target) -> Target:
        collection, recipe = target.collection, target.generation.recipe
        self._store.generations.drop(collection, target.generation.id)
        generation = self._store.generations.create(collection, recipe=recipe)
        total = self._store.generations.pending_count(collection, generation.id)
        target.progress.set(generation=generation.id, state="filling", done=0, total=total)
        return replace(target, generation=generation)

    def _is_sound(self, collection: str, generation: Generation) -> bool:
        """Whether a generation can be read; the documents, read first, tell that the store can be."""
        some = [each.document.id for each in islice(self._store.documents(collection), 1)]
        try:
            self._store.generations.chunks(collection, generation.id, some)
        except StoreUnavailable:
            return False
        return True

    def _progress(self, collection: str, kind: Kind, generation: Generation, by: str) -> Progress:
        """The record of a generation that was begun before, or a new one."""
        total = self._store.generations.pending_count(collection, generation.id)
        rebuilds = Rebuilds(self._store.notes, collection)
        for record in rebuilds.all():
            cut_off = record.state not in {"promoted", "abandoned"}
            if record.generation == generation.id and record.kind == kind and cut_off:
                progress = rebuilds.resume(record.id)
                progress.set(state="filling", total=record.done + total)
                return progress
        live = self._store.live(collection, fresh=True)
        return rebuilds.start(kind, generation=generation.id, replaced=live.id, by=by, total=total)

    def _building(self, collection: str) -> Generation | None:
        found = [
            each for each in self._store.generations.all(collection) if each.state == "building"
        ]
        return found[-1] if found else None

    def _tidy(self, collection: str) -> list[Progress]:
        """Finish what a process left that died after its swap, and lift its fence."""
        live = clear_fence(self._store, collection)
        self._store.generations.sweep(collection)
        rebuilds = Rebuilds(self._store.notes, collection)
        finished = []
        for record in rebuilds.all():
            if not record.ended and record.generation == live.id and record.kind != "dictionary":
                prune(self._store, collection, keep=self._keep, replaced=record.replaced)
                progress = rebuilds.resume(record.id)
                progress.set(state="promoted", done=record.total)
                finished.append(progress)
        return finished

    def _drop_building(self, collection: str) -> list[Rebuild]:
        generations = self._store.generations.all(collection)
        for each in generations:
            if each.state == "building":
                self._store.generations.drop(collection, each.id)
        rebuilds = Rebuilds(self._store.notes, collection)
        abandoned = []
        for record in rebuilds.all():
            if record.state in {"promoted", "abandoned"} or record.kind == "dictionary":
                continue
            progress = rebuilds.resume(record.id)
            progress.set(state="abandoned")
            abandoned.append(progress.record)
        return abandoned


@contextmanager
def _closing_on_error(held: ExitStack) -> Iterator[None]:
    try:
        yield
    except BaseException:
        held.close()
        raise
