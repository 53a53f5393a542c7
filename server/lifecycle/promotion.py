"""Leveling and promoting a generation while searches and writes go on. See stores/generations.py."""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from server.documents import Document
from server.errors import (
    DocumentNotFound,
    FenceLost,
    RebuildFailed,
    StoreFull,
    StoreUnavailable,
    TanyuanError,
)
from server.ingest.derivation import Deriver, KnownVectors
from server.lifecycle.findings import wrong_sparse, wrong_windows
from server.lifecycle.lock import Lease
from server.lifecycle.progress import Progress
from server.recipes import Recipe
from server.stores.contract import Store
from server.stores.fences import MAKER_SECONDS
from server.stores.generations import Derivation, Generation, Pending, StoredChunk

Result = TypeVar("Result")

WORKERS = 2  # derive and write at once; an embedder takes one batch after the other anyway
_BATCH_DOCUMENTS = 64
_BATCH_CHARS = 200_000
_FEW = 20  # pending documents that are left for the fence
_ROUNDS = 5  # before the fence is raised though writers are as fast as we
_PATIENCE_SECONDS = 60.0  # with a store that can't be reached
_SAMPLE = 200  # documents that are looked at before a generation goes live
_LOOKS = 5
_LOOK_SECONDS = 0.5
_NAMED = 5  # documents that an error names


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The generation that is to become live, and what makes it.

    ``known``: vectors that need not be made again.
    """

    store: Store
    collection: str
    generation: Generation
    deriver: Deriver
    known: KnownVectors | None
    lease: Lease
    progress: Progress


def promote(target: Target) -> Generation:
    """Fill and level the generation, make it live, and return it.

    Raises RebuildFailed, Stopped, RebuildRunning (the lock was lost), and what the store or a model
    raises when it can't be used for good; then the old generation is live as before.
    """
    generations, collection = target.store.generations, target.collection
    for number in itertools.count():
        patiently(target.lease, _Leveling(target).run)
        target.progress.set(state="catching_up")
        patiently(target.lease, lambda: generations.settle(collection, target.generation.id))
        left = generations.pending_count(collection, target.generation.id)
        if left > _FEW and number < _ROUNDS:
            continue
        target.progress.set(state="verifying")
        check(target)
        promoted = patiently(target.lease, lambda: _behind_fence(target))
        if promoted is not None:
            return promoted
    raise AssertionError("counted to the end")


def _behind_fence(target: Target) -> Generation | None:
    """The promoted generation, or None where it could not be made level in the time of a fence.

    So writers faster than we wait, for seconds at a time, and every fence brings us nearer.
    """
    generations, collection = target.store.generations, target.collection
    live = clear_fence(target.store, collection)
    if live.id == target.generation.id:
        return live  # done before, but the answer was lost
    fence = generations.fence(collection)
    try:
        if not _level_until(target, time.monotonic() + MAKER_SECONDS):
            return None
        target.lease.check()
        return generations.promote(collection, target.generation.id, fence=fence)
    except FenceLost:
        return None  # somebody who waited took us for dead
    finally:
        with suppress(StoreUnavailable):  # then those who wait lift it
            generations.lift(collection, fence)


def prune(store: Store, collection: str, *, keep: int, replaced: str) -> None:
    """Drop old generations past ``keep``; the one just ``replaced`` is the last to go."""
    generations = store.generations
    kept = [each.id for each in generations.all(collection) if each.state == "kept"]
    kept.sort(key=lambda each: (each == replaced, each), reverse=True)
    for generation in kept[keep:]:
        generations.drop(collection, generation)


def clear_fence(store: Store, collection: str) -> Generation:
    """Lift what a dead process left; the caller holds the change lock. The live generation."""
    live = store.live(collection, fresh=True)
    if live.fence:
        store.generations.lift(collection, live.fence)
        live = store.live(collection, fresh=True)
    return live


def _level_until(target: Target, deadline: float) -> bool:
    """Behind a fence: whether everything is level and searchable in time."""
    generations, collection = target.store.generations, target.collection
    while time.monotonic() < deadline:
        _Leveling(target, deadline).run()
        generations.settle(collection, target.generation.id)
        if generations.pending_count(collection, target.generation.id) == 0:
            return time.monotonic() < deadline
    return False


class _Leveling:
    """One pass over what is pending, several batches at once, with bounded memory."""

    def __init__(self, target: Target, deadline: float = float("inf")) -> None:
        self._target = target
        self._deadline = deadline
        self._failures: dict[str, TanyuanError] = {}
        self._counting = threading.Lock()

    def run(self) -> None:
        """Raises RebuildFailed naming documents that can't be derived, and as ``promote`` does."""
        target = self._target
        pending = target.store.generations.pending(target.collection, target.generation.id)
        running: set[Future[None]] = set()
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="rebuild") as pool:
            try:
                for batch in _batches(pending):
                    if time.monotonic() > self._deadline:
                        break
                    target.lease.check()
                    running.add(pool.submit(self._derive, batch))
                    if len(running) > WORKERS:
                        ended, running = wait(running, return_when=FIRST_COMPLETED)
                        for future in ended:
                            future.result()
                for future in running:
                    future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        if self._failures:
            named = "; ".join(
                f"{document_id!r}: {error.message}"
                for document_id, error in list(self._failures.items())[:_NAMED]
            )
            raise RebuildFailed(
                f"{len(self._failures):,} documents can't be derived ({named}). The live generation "
                "is as it was. Mend the cause and go on with --resume, or give up with --abandon."
            )

    def _derive(self, batch: Sequence[Pending]) -> None:
        target = self._target
        revisions = {each.document_id: each.revision for each in batch}
        gone = [
            Derivation(
                document_id=each.document_id, revision=each.revision, document=None, chunks=()
            )
            for each in batch
            if each.document is None
        ]
        if gone:
            self._put(gone, 0, 0)
        documents = [each.document for each in batch if each.document is not None]
        for derived in target.deriver.derive(documents, known=target.known):
            made, embedded, chunks = [], 0, 0
            for item in derived:
                if isinstance(item.chunks, TanyuanError):
                    if isinstance(item.chunks, StoreUnavailable):
                        raise item.chunks
                    self._failures[item.document.id] = item.chunks
                    continue
                embedded += item.embedded
                chunks += len(item.chunks)
                made.append(
                    Derivation(
                        document_id=item.document.id,
                        revision=revisions[item.document.id],
                        document=item.document,
                        chunks=item.chunks,
                    )
                )
            self._put(made, embedded, chunks)

    def _put(self, made: Sequence[Derivation], embedded: int, chunks: int) -> None:
        target = self._target
        results = patiently(
            target.lease,
            lambda: target.store.generations.derive(target.collection, target.generation.id, made),
        )
        done = 0
        for derivation, result in zip(made, results, strict=True):
            if isinstance(result, StoreUnavailable):
                raise result
            if isinstance(result, TanyuanError):
                self._failures[derivation.document_id] = result
            done += result is True
        reused = chunks - embedded if target.generation.recipe.dimensions else 0
        with self._counting:
            target.progress.add(done=done, embedded=embedded, reused=reused)


def check(target: Target) -> None:
    """Look at a sample of the generation as at something that others made. Raises RebuildFailed."""
    documents = target.store.documents(target.collection)
    sample = [stored.document.id for stored in itertools.islice(documents, _SAMPLE)]
    wrong = _wrong_chunks(target, sample)
    for _ in range(_LOOKS - 1):  # what is written meanwhile looks wrong until it is level
        if wrong:
            time.sleep(_LOOK_SECONDS)
            wrong = _wrong_chunks(target, list(wrong))
    if wrong:
        raise RebuildFailed(
            f"The new generation did not pass: {next(iter(wrong.values()))}. The live generation is "
            "as it was; --abandon removes the new one."
        )


def _wrong_chunks(target: Target, document_ids: Sequence[str]) -> dict[str, str]:
    """What is wrong with the chunks of documents that are level, by id."""
    store, collection, generation = target.store, target.collection, target.generation
    found = store.generations.chunks(collection, generation.id, document_ids)
    wrong: dict[str, str] = {}
    for document_id, chunks in found.items():
        with suppress(DocumentNotFound):
            document = store.document(collection, document_id).document
            faults = (
                _fault(document, position, stored, generation.recipe)
                for position, stored in enumerate(chunks)
            )
            if fault := next(filter(None, faults), ""):
                wrong[document_id] = fault
    if wrong:
        for pending in store.generations.pending(collection, generation.id):
            wrong.pop(pending.document_id, None)
    return wrong


def _fault(document: Document, position: int, stored: StoredChunk, recipe: Recipe) -> str:
    """What is wrong with a chunk, empty where nothing is."""
    chunk, vector, dimensions = stored.chunk, stored.vector, recipe.dimensions
    fault = ""
    if chunk.position != position:
        fault = f"stands at position {position}"
    elif document.text[chunk.start : chunk.end] != chunk.text:
        fault = "is not the text of its document"
    elif (vector is None) != (dimensions == 0):
        fault = "has no vector" if dimensions else "has a vector, though there is no embedder"
    elif vector is not None and (vector.shape != (dimensions,) or not np.isfinite(vector).all()):
        fault = "has a vector that can't be searched"
    elif wrong_windows(chunk.text, stored.windows, recipe):
        fault = "has not the vectors of its windows"
    elif wrong_sparse(stored.sparse, recipe):
        fault = "has not its sparse weights"
    return f"chunk {chunk.id!r} {fault}" if fault else ""


def _batches(pending: Iterable[Pending]) -> Iterator[list[Pending]]:
    batch: list[Pending] = []
    chars = 0
    for each in pending:
        batch.append(each)
        chars += len(each.document.text) if each.document else 0
        if len(batch) >= _BATCH_DOCUMENTS or chars >= _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def patiently(lease: Lease, call: Callable[[], Result]) -> Result:
    """Call again while the store can't be reached, for a minute: a node may be lost and come back.

    ``call`` may be made twice. Raises what it raised last, and RebuildRunning.
    """
    failing_since: float | None = None
    pause = 0.2
    while True:
        lease.check()
        try:
            return call()
        except StoreFull:
            raise
        except StoreUnavailable:
            now = time.monotonic()
            failing_since = failing_since or now
            if now - failing_since > _PATIENCE_SECONDS:
                raise
            time.sleep(pause)
            pause = min(2 * pause, 5.0)
