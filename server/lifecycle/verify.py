"""Verify: what is damaged in a live collection, without false alarms, and mended if so wanted."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from server.errors import TanyuanError
from server.ingest.indexer import deriver_of
from server.lifecycle.findings import Finding, Kind, finding_of, judge
from server.lifecycle.mend import Mender
from server.lifecycle.suspects import Patience, Suspect
from server.live import Live, LiveCollections
from server.recipes import Recipe
from server.stores.audit import Audited
from server.stores.contract import Store

MAX_LISTED = 100  # findings of one kind in a report; the counts are of all
_MAX_HELD = 10_000  # findings of suspects, before the walk waits until they are settled
_MAX_ATTEMPTS = 3  # to mend a document; all but the first write it anew
_MAX_WALKS = 3  # of a collection that is promoted meanwhile
_SLEEP = 0.1  # seconds between two questions whether to stop

Outcome = Literal["found", "mended", "left"]


@dataclass(frozen=True, slots=True)
class Listed:
    """A finding and what became of it; ``reason``: why it is left, where that is known."""

    finding: Finding
    outcome: Outcome
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        outcome = {"outcome": self.outcome, "reason": self.reason or None}
        return {**self.finding.as_json(), **outcome}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found in a generation.

    ``found`` counts every finding by kind, ``mended`` those of them that are no more; ``listed`` has
    at most MAX_LISTED a kind, the worst first. ``busy``: documents that others wrote all the time, of
    which nothing is said. ``unserved``: why this process could not serve or mend the collection whole.
    ``stopped``: why the walk ended early, empty where it didn't.
    """

    collection: str
    generation: str
    documents: int
    chunks: int
    found: Mapping[Kind, int]
    mended: Mapping[Kind, int]
    listed: tuple[Listed, ...]
    busy: int
    unserved: tuple[TanyuanError, ...]
    seconds: float
    stopped: str = ""

    @property
    def left(self) -> int:
        """How many findings are not mended."""
        return sum(self.found.values()) - sum(self.mended.values())

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "collection": self.collection,
            "generation": self.generation,
            "documents": self.documents,
            "chunks": self.chunks,
            "found": {kind.value: self.found[kind] for kind in Kind if self.found.get(kind)},
            "mended": {kind.value: self.mended[kind] for kind in Kind if self.mended.get(kind)},
            "left": self.left,
            "findings": [each.as_json() for each in self.listed],
            "busy": self.busy,
            "unserved": [{"code": error.code, "message": error.message} for error in self.unserved],
            "seconds": round(self.seconds, 2),
            "stopped": self.stopped or None,
        }


@dataclass(slots=True, kw_only=True)
class Seen:
    """How far the walk is. ``waiting``: suspects that are looked at again."""

    documents: int = 0
    chunks: int = 0
    found: Counter[Kind] = field(default_factory=Counter)
    mended: Counter[Kind] = field(default_factory=Counter)
    listed: list[Listed] = field(default_factory=list)
    waiting: int = 0
    busy: int = 0

    def settle(self, findings: Iterable[Finding], outcome: Outcome, reason: str = "") -> None:
        for finding in findings:
            self.found[finding.kind] += 1
            self.mended[finding.kind] += outcome == "mended"
            if self.found[finding.kind] <= MAX_LISTED:
                self.listed.append(Listed(finding, outcome, reason))


def verify(
    store: Store,
    live: LiveCollections,
    collection: str,
    *,
    mender: Mender | None = None,
    patience: Patience | None = None,
    stop: Callable[[], str] = lambda: "",
    progress: Callable[[Seen], None] = lambda _: None,
) -> Report:
    """Look at every document of a collection, and mend what is damaged where there is a ``mender``.

    Searches and writes may go on: whatever looks wrong is looked at again until it is certain, as
    ``patience`` says. ``stop`` is asked now and then and gives the reason to stop, or "".
    Raises CollectionNotFound, StoreUnavailable.
    """
    began = time.monotonic()
    for _ in range(_MAX_WALKS):
        opened = live.open(collection, fresh=True)
        walk = _Walk(store, live, collection, mender, patience or Patience(), stop, progress)
        stopped = walk.run()
        walk.leave(stopped)
        if stopped or store.live(collection, fresh=True).id == opened.generation.id:
            break
    seen = walk.seen
    return Report(
        collection=collection,
        generation=opened.generation.id,
        documents=seen.documents,
        chunks=seen.chunks,
        found=dict(seen.found),
        mended=dict(seen.mended),
        listed=tuple(sorted(seen.listed, key=lambda each: each.finding.place)),
        busy=seen.busy,
        unserved=_unserved(opened, live.own),
        seconds=time.monotonic() - began,
        stopped=stopped,
    )


def _unserved(live: Live, own: Recipe) -> tuple[TanyuanError, ...]:
    errors = [error for error in (live.words, live.vectors, live.chunking) if error]
    try:
        deriver_of(live, own)
    except TanyuanError as error:
        if error not in errors:
            errors.append(error)
    return tuple(errors)


class _Walk:
    """One pass over the live generation. Memory: one document and at most _MAX_HELD findings."""

    def __init__(
        self,
        store: Store,
        live: LiveCollections,
        collection: str,
        mender: Mender | None,
        patience: Patience,
        stop: Callable[[], str],
        progress: Callable[[Seen], None],
    ) -> None:
        self.seen = Seen()
        self._store = store
        self._live = live
        self._collection = collection
        self._mender = mender
        self._patience = patience
        self._stop = stop
        self._progress = progress
        self._suspects: dict[str, Suspect] = {}
        self._held = 0
        self._drift_reason = ""

    def run(self) -> str:
        """Why it stopped early, or ""."""
        # First, since a part that is made anew may tell of documents that have to be.
        drifted = self._mend_parts() if self._mender else []
        recipe = self._recipe()
        for audited in self._store.audits.every(self._collection):
            if reason := self._stop():
                return reason
            self._take(audited, recipe)
            if self._held >= _MAX_HELD and (reason := self._settle()):
                return reason
        if reason := self._settle():
            return reason
        if self._mender:
            drifted += self._mend_parts()
        left = self._drift()
        self.seen.settle([each for each in dict.fromkeys(drifted) if each not in left], "mended")
        self.seen.settle(left, "left" if self._mender else "found", self._drift_reason)
        return ""

    def leave(self, reason: str) -> None:
        """Count what was certain and begun to be mended when the walk stopped."""
        for suspect in self._suspects.values():
            self.seen.settle(suspect.certain, "left", reason)

    def _recipe(self) -> Recipe:
        return self._live.open(self._collection, fresh=True).recipe

    def _take(self, audited: Audited, recipe: Recipe) -> None:
        self.seen.documents += audited.document is not None
        self.seen.chunks += len(audited.chunks)
        findings = tuple(judge(audited, recipe))
        if findings:
            self._keep(
                Suspect.new(audited.document_id, audited.revision, findings, time.monotonic())
            )
        self._progress(self.seen)

    def _keep(self, suspect: Suspect) -> None:
        self._drop(suspect.document_id)
        self._suspects[suspect.document_id] = suspect
        self._count(len(suspect.findings) + len(suspect.certain))

    def _drop(self, document_id: str) -> None:
        suspect = self._suspects.pop(document_id, None)
        if suspect:
            self._count(-len(suspect.findings) - len(suspect.certain))

    def _count(self, findings: int) -> None:
        self._held += findings
        self.seen.waiting = len(self._suspects)

    def _settle(self) -> str:
        """Look at the suspects again until each is cleared, certain or busy."""
        while self._suspects:
            self._store.refresh(self._collection)
            certain = self._look(self._recipe())
            if self._mender:
                self._mend(self._mender, certain)
            self._progress(self.seen)
            if reason := self._pause():
                return reason
        return ""

    def _pause(self) -> str:
        """Wait until a suspect is due."""
        while self._suspects:
            reason = self._stop()
            wait = min(each.due for each in self._suspects.values()) - time.monotonic()
            if reason or wait <= 0:
                return reason
            time.sleep(min(wait, _SLEEP))
        return ""

    def _look(self, recipe: Recipe) -> list[Suspect]:
        """Look at those that are due; the ones that are certain and may be mended are returned."""
        certain = []
        now = time.monotonic()
        for suspect in [each for each in self._suspects.values() if each.due <= now]:
            if self._stop():
                break
            audited = self._store.audits.one(self._collection, suspect.document_id)
            findings, now = tuple(judge(audited, recipe)), time.monotonic()
            if not findings:
                self.seen.settle(suspect.certain, "mended")
                self._drop(suspect.document_id)
                continue
            after = suspect.seen(audited.revision, findings, now, self._patience)
            if after.stands(now, self._patience):
                if self._mender and after.attempts < _MAX_ATTEMPTS:
                    certain.append(after)
                    self._keep(after)
                else:
                    self._give_up(after)
            elif after.is_busy(now, self._patience):
                self.seen.busy += not after.certain
                self.seen.settle(after.certain, "mended")  # its writers replaced all of it
                self._drop(after.document_id)
            else:
                self._keep(after)
        return certain

    def _give_up(self, suspect: Suspect) -> None:
        outcome: Outcome = "left" if self._mender else "found"
        gone = [each for each in suspect.certain if each not in suspect.findings]
        self.seen.settle(gone, "mended")
        self.seen.settle(suspect.findings, outcome, suspect.reason)
        self._drop(suspect.document_id)

    def _mend(self, mender: Mender, certain: list[Suspect]) -> None:
        for rewrite in (False, True):
            some = [suspect for suspect in certain if bool(suspect.attempts) is rewrite]
            ids = [suspect.document_id for suspect in some]
            failed = mender.mend(self._collection, ids, rewrite=rewrite) if ids else {}
            now = time.monotonic()
            for suspect in some:
                self._keep(suspect.mended(failed.get(suspect.document_id, ""), now))

    def _drift(self) -> list[Finding]:
        """What the store says of its own parts."""
        return [finding_of(each) for each in self._store.audits.drift(self._collection)]

    def _mend_parts(self) -> list[Finding]:
        """What the store said of its parts before those that were wrong were made anew."""
        found = self._drift()
        if found:
            try:
                self._store.audits.mend(self._collection)
            except TanyuanError as error:
                self._drift_reason = error.message
        return found
