"""Transfer: a collection from an archive, or from another store, into a store.

What arrives is a collection of the receiving process's recipe with the dictionary that was in force.
The note ``origin`` says what a collection was made of, so that a transfer that was cut off is known
again and gone on with, and that no other collection is ever written into.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from server.analysis.contract import Analyzer
from server.analysis.dictionary import UserDictionary
from server.documents import check_collection
from server.errors import (
    CollectionExists,
    CollectionNotFound,
    ModelUnavailable,
    StoreUnavailable,
    TanyuanError,
)
from server.ingest.indexer import Indexer
from server.lifecycle.archive import VOCABULARY, Archive, carried_notes, digest_of
from server.lifecycle.batches import Batch, copied, imported
from server.lifecycle.lines import damaged
from server.recipes import Recipe
from server.stores.contract import Store

ORIGIN = "origin"


@dataclass(slots=True, kw_only=True)
class Report:
    """Counts of documents so far. ``failures``: by id. ``missing``, ``differing`` and ``surplus``: ids
    that the comparison at the end found. ``stopped``: why it ended early, empty where it didn't. ``notice``:
    what is left to do by hand. ``digest``: of what is there in the end (``archive.digest_of``)."""

    written: int = 0
    unchanged: int = 0
    removed: int = 0
    chunks: int = 0
    failures: dict[str, TanyuanError] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    notice: str = ""
    digest: str = ""
    seconds: float = 0.0
    stopped: str = ""

    @property
    def done(self) -> int:
        return self.written + self.unchanged + len(self.failures)

    @property
    def whole(self) -> bool:
        """Whether everything arrived as it was sent."""
        lists = (self.failures, self.missing, self.differing, self.surplus, self.stopped)
        return not any(lists)

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "written": self.written,
            "unchanged": self.unchanged,
            "removed": self.removed,
            "chunks": self.chunks,
            "failed": [
                {"id": document_id, "error": {"code": error.code, "message": error.message}}
                for document_id, error in self.failures.items()
            ],
            "missing": self.missing,
            "differing": self.differing,
            "surplus": self.surplus,
            "digest": self.digest,
            "notice": self.notice or None,
            "seconds": round(self.seconds, 2),
            "stopped": self.stopped or None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a collection is made of. ``name``: what it is known again by."""

    name: str
    description: str
    recipe: Recipe
    notes: Mapping[str, Mapping[str, Any]]


class Transfer:
    """Takes collections in. ``make_analyzer``: for the dictionary that comes along.

    ``stop`` is asked between batches and gives the reason to stop, or ""; ``progress`` is called after
    each.
    """

    def __init__(
        self,
        store: Store,
        indexer: Indexer,
        make_analyzer: Callable[[UserDictionary], Analyzer],
        *,
        stop: Callable[[], str] = lambda: "",
        progress: Callable[[Report], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._indexer = indexer
        self._make_analyzer = make_analyzer
        self._stop = stop
        self._progress = progress

    def from_archive(self, archive: Archive, name: str) -> Report:
        """Import an archive, which was checked, as the collection ``name``.

        A collection that is there must be empty, or an import of this archive that was cut off. Raises
        CollectionExists, InvalidInput for a damaged archive, RecipeMismatch, StoreUnavailable.
        """
        manifest = archive.manifest
        report = Report()
        origin = Origin(
            name=f"archive {manifest.checksum}",
            description=manifest.description,
            recipe=manifest.recipe,
            notes=archive.notes(),
        )
        recipe = self._prepare(name, origin, report)
        sent = self._put_all(name, imported(archive, recipe), report)
        if not report.stopped:
            if digest_of(sent) != manifest.digest or len(sent) != manifest.documents:
                raise damaged("it holds other documents than its manifest says")
            self._compare(name, sent, report)
        return self._end(name, report)

    def copy(self, source: Store, collection: str, name: str, *, update: bool = False) -> Report:
        """Copy a collection of another store, or of this one, as the collection ``name``.

        A collection that is there must be empty, or a copy of the same that was cut off; ``update``:
        or one that was finished, which is brought to the source's present state. Documents that the
        source has no more are removed. Raises as ``from_archive`` does.
        """
        report = Report()
        origin = Origin(
            name=f"{source.kind} {collection}",
            description=source.collection(collection).description,
            recipe=source.live(collection, fresh=True).recipe,
            notes=carried_notes(source.notes, collection),
        )
        recipe = self._prepare(name, origin, report, update=update)
        source.refresh(collection)
        sent = self._put_all(name, copied(source, collection, recipe), report)
        if not report.stopped:
            present = self._compare(name, sent, report)
            gone = set(report.surplus) - source.states(collection, report.surplus).keys()
            for document_id in gone:
                self._indexer.delete(name, document_id)
                del present[document_id]
            report.removed = len(gone)
            report.surplus = [each for each in report.surplus if each not in gone]
            report.digest = digest_of(present)
        return self._end(name, report)

    def _prepare(
        self, name: str, origin: Origin, report: Report, *, update: bool = False
    ) -> Recipe:
        """Make the collection, or see that it is the one to go on with; the recipe that it has."""
        recipe = self._recipe_for(origin)
        begun = {"of": origin.name, "state": "partial"}
        check_collection(name)
        try:
            note = self._store.notes.get(name, ORIGIN)
        except CollectionNotFound:
            self._store.create_collection(
                name,
                recipe=recipe,
                description=origin.description,
                notes={**origin.notes, ORIGIN: begun},
            )
            return recipe
        known = note is not None and note.value.get("of") == origin.name
        if known and note is not None and (update or note.value.get("state") == "partial"):
            self._put_notes(name, origin.notes)
            live = self._store.live(name, fresh=True).recipe
            if live.dictionary != origin.recipe.dictionary:
                report.notice = (
                    f"The dictionary in force is version {live.dictionary} here and "
                    f"{origin.recipe.dictionary} there. To apply the latest: scripts/dictionary "
                    f"--collection {name} apply"
                )
        else:
            live = self._take_empty(name, origin, recipe)
        self._store.notes.put(name, ORIGIN, begun)
        return live

    def _take_empty(self, name: str, origin: Origin, recipe: Recipe) -> Recipe:
        """Make an empty collection that is there the one to fill; its own embedder and chunker stay."""
        self._require_empty(name)
        self._put_notes(name, origin.notes)
        self._store.describe(name, origin.description)
        live = self._store.live(name, fresh=True)
        wanted = replace(live.recipe, analyzer=recipe.analyzer, dictionary=recipe.dictionary)
        if wanted.as_json() == live.recipe.as_json():
            return live.recipe
        generations = self._store.generations
        fence = generations.fence(name)
        try:
            self._require_empty(name)
            edition = live.edition + 1
            return generations.restamp(name, wanted, fence=fence, edition=edition).recipe
        except BaseException:
            generations.lift(name, fence)
            raise

    def _require_empty(self, name: str) -> None:
        self._store.refresh(name)
        if next(iter(self._store.documents(name)), None) is not None:
            raise CollectionExists(
                f"There is a collection {name!r} already, and it is no transfer of this that was cut "
                "off. Name another with --as, or delete it first."
            )

    def _put_notes(self, name: str, notes: Mapping[str, Mapping[str, Any]]) -> None:
        there = carried_notes(self._store.notes, name)
        for key, value in notes.items():
            if there.get(key) != value:
                self._store.notes.put(name, key, value)

    def _recipe_for(self, origin: Origin) -> Recipe:
        """This process's recipe with the dictionary that is in force at the origin, or with none."""
        own, stamped = self._indexer.recipe, origin.recipe
        if stamped.analyzer == own.analyzer:
            return replace(own, dictionary=stamped.dictionary)
        analyzer = self._make_analyzer(_dictionary(origin))
        return replace(own, analyzer=analyzer.fingerprint, dictionary=stamped.dictionary)

    def _put_all(self, name: str, batches: Iterable[Batch], report: Report) -> dict[str, str]:
        """Put what comes; the content hash by id of everything that was sent."""
        sent: dict[str, str] = {}
        began = time.monotonic()
        for documents, known in batches:
            sent |= {document.id: document.content_hash for document in documents}
            results = self._indexer.put(name, documents, known=known)
            for document, result in zip(documents, results, strict=True):
                if isinstance(result, StoreUnavailable | ModelUnavailable):
                    report.stopped = result.message
                if isinstance(result, TanyuanError):
                    report.failures[document.id] = result
                elif result.status == "unchanged":
                    report.unchanged += 1
                else:
                    report.written += 1
                    report.chunks += result.chunks
            report.seconds = time.monotonic() - began
            report.stopped = report.stopped or self._stop()
            self._progress(report)
            if report.stopped:
                break
        return sent

    def _compare(self, name: str, sent: Mapping[str, str], report: Report) -> dict[str, str]:
        """Note what is not as it was sent; the content hash by id of what is there."""
        self._store.refresh(name)
        stored = (each.document for each in self._store.documents(name))
        present = {document.id: document.content_hash for document in stored}
        failed = report.failures.keys()
        report.missing = sorted(sent.keys() - present.keys() - failed)
        report.surplus = sorted(present.keys() - sent.keys())
        common = sent.keys() & present.keys() - failed
        report.differing = sorted(each for each in common if sent[each] != present[each])
        report.digest = digest_of(present)
        return present

    def _end(self, name: str, report: Report) -> Report:
        if report.whole:
            note = self._store.notes.get(name, ORIGIN)
            value = {**note.value, "state": "whole"} if note else {"state": "whole"}
            self._store.notes.put(name, ORIGIN, value)
        return report


def _dictionary(origin: Origin) -> UserDictionary:
    """The version of the dictionary that was in force."""
    version = origin.recipe.dictionary
    if not version:
        return UserDictionary()
    note = origin.notes.get(f"{VOCABULARY}:dictionary:{version:06}")
    lines = note.get("lines") if note else None
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise damaged(f"version {version} of its dictionary, which is in force, is not there")
    return UserDictionary.parse(lines)
