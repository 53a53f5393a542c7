"""DictionaryChanges: a dictionary put in force, deriving only the documents whose terms change.

The live generation is changed in place (DECISIONS.md): the affected documents are derived under the next
edition while searches and writes go on, then a fence stands for the last of them, and the generation is
stamped with the new recipe. Killed before that, the old recipe is in force; the next change mends what
was derived already, for which the note ``applying:{generation}`` tells what was tried.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace

from server.analysis.dictionary import UserDictionary
from server.analysis.word_changes import DictionaryAnalyzer
from server.errors import InvalidInput, RebuildRunning, RecipeMismatch
from server.ingest.indexer import deriver_of
from server.lifecycle.affected import Affected
from server.lifecycle.lock import ChangeLock, Lease
from server.lifecycle.preview import Preview, preview
from server.lifecycle.progress import Rebuilds, State
from server.lifecycle.promotion import clear_fence
from server.lifecycle.rebuild import Work
from server.lifecycle.rederivation import Rederivation
from server.lifecycle.renewal import Renewal
from server.live import LiveCollections
from server.recipes import Recipe
from server.retrieval.query_log import LoggedQuery
from server.stores.contract import Store
from server.stores.generations import Generation
from server.vocabulary import Vocabulary

_STOP_SECONDS = 60.0  # until a change that was asked to stop has ended


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """What was begun in a generation: the edition of what it derived, and the versions of the
    dictionary that were tried since the recipe was stamped."""

    edition: int
    versions: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """A collection whose lock is held. ``before``: the analyzer in force; ``attempt``: what was cut
    off."""

    collection: str
    generation: Generation
    attempt: _Attempt | None
    before: DictionaryAnalyzer
    held: ExitStack
    lease: Lease
    by: str


class DictionaryChanges:
    """Thread-safe. ``own``: the dictionary of this process's settings, which collections without one of
    their own may have been made with. ``keep``: how many old generations stay where a change makes a
    new one."""

    def __init__(
        self,
        store: Store,
        live: LiveCollections,
        vocabulary: Vocabulary,
        make_analyzer: Callable[[UserDictionary], DictionaryAnalyzer],
        own: UserDictionary,
        *,
        keep: int = 1,
    ) -> None:
        self._store = store
        self._live = live
        self._vocabulary = vocabulary
        self._make_analyzer = make_analyzer
        self._own = own
        self._keep = keep

    def in_force(self, collection: str, recipe: Recipe) -> DictionaryAnalyzer:
        """The analyzer that a recipe names. Raises RecipeMismatch where it can't be made here."""
        candidates = (
            [self._vocabulary.dictionary(collection, recipe.dictionary)]
            if recipe.dictionary
            else [UserDictionary(), self._own]
        )
        for candidate in candidates:
            analyzer = self._make_analyzer(candidate)
            if analyzer.fingerprint == recipe.analyzer:
                return analyzer
        raise RecipeMismatch(
            f"Collection {collection!r} was indexed by the analyzer {recipe.analyzer!r}, which this "
            f"process can't make. Make it anew first: scripts/rebuild --collection {collection}"
        )

    def preview(
        self, collection: str, lines: Sequence[str], queries: Sequence[LoggedQuery] = ()
    ) -> Preview:
        """What a dictionary of these lines would change; nothing is written.

        Raises CollectionNotFound, InvalidInput for a wrong line, RecipeMismatch.
        """
        after = self._make_analyzer(UserDictionary.parse(lines))
        generation = self._store.live(collection, fresh=True)
        before = self.in_force(collection, generation.recipe)
        affected = Affected(self._store, collection, [before], after)
        return preview(self._store, collection, generation, affected, queries)

    def apply(self, collection: str, *, by: str, version: int | None = None) -> Work:
        """Put a version of the dictionary in force, or the latest; ready to run.

        Raises RebuildRunning, CollectionNotFound, VersionNotFound, InvalidInput where the collection
        never had a dictionary, and RecipeMismatch or EmbedderUnavailable for parts that can't be had.
        """
        if version is None:
            version = self._vocabulary.heads(collection)["dictionary"]
            if version == 0:
                raise InvalidInput(
                    f"Collection {collection!r} has no dictionary yet; add words first: "
                    f"scripts/dictionary --collection {collection} add WORD"
                )
        dictionary = self._vocabulary.dictionary(collection, version)
        begun = self._begin(collection, by)
        with ExitStack() as on_error:
            on_error.callback(begun.held.close)
            after = self._make_analyzer(dictionary)
            present = begun.generation.recipe
            recipe = replace(present, analyzer=after.fingerprint, dictionary=version)
            work = self._work(begun, after, recipe, "promoted")
            on_error.pop_all()
            return work

    def abandon(self, collection: str, *, by: str) -> Work | None:
        """Give up the change that runs or was cut off: what it derived is derived by the dictionary in
        force again. None where there is nothing to mend.

        Raises RebuildRunning where what runs does not stop within a minute.
        """
        rebuilds = Rebuilds(self._store.notes, collection)
        for record in rebuilds.all():
            if record.kind == "dictionary" and not record.ended:
                rebuilds.stop(record.id)
        begun = self._begin(collection, by, until=time.monotonic() + _STOP_SECONDS)
        with ExitStack() as on_error:
            on_error.callback(begun.held.close)
            for each in self._store.generations.all(collection):
                renewing = each.recipe.dictionary != begun.generation.recipe.dictionary
                if each.state == "building" and renewing:
                    self._store.generations.drop(collection, each.id)
            if begun.attempt is None:
                return None
            work = self._work(begun, begun.before, begun.generation.recipe, "abandoned")
            on_error.pop_all()
            return work

    def _begin(self, collection: str, by: str, until: float = 0.0) -> _Begun:
        """Take the lock and look at what is there; what was cut off after its stamp is finished."""
        self._store.live(collection, fresh=True)  # CollectionNotFound before anything else
        held = ExitStack()
        while True:
            try:
                lease = held.enter_context(
                    ChangeLock(self._store.notes, collection).held("dictionary")
                )
                break
            except RebuildRunning:
                if time.monotonic() > until:
                    raise
        with ExitStack() as on_error:
            on_error.callback(held.close)
            generation = clear_fence(self._store, collection)
            attempt = self._attempt(collection, generation)
            stamped = attempt is not None and attempt.edition == generation.edition
            self._end_records(collection, generation, stamped=stamped)
            if stamped:
                self._store.notes.delete(collection, _key(generation))
            begun = _Begun(
                collection=collection,
                generation=generation,
                attempt=None if stamped else attempt,
                before=self.in_force(collection, generation.recipe),
                held=held,
                lease=lease,
                by=by,
            )
            on_error.pop_all()
            return begun

    def _attempt(self, collection: str, generation: Generation) -> _Attempt | None:
        note = self._store.notes.get(collection, _key(generation))
        if note is None:
            return None
        return _Attempt(edition=note.value["edition"], versions=tuple(note.value["versions"]))

    def _end_records(self, collection: str, generation: Generation, *, stamped: bool) -> None:
        """Of changes whose process died; this one holds the lock, so none is running."""
        rebuilds = Rebuilds(self._store.notes, collection)
        for record in rebuilds.all():
            if record.kind == "dictionary" and not record.ended:
                renewed = record.generation == generation.id != record.replaced
                state: State = "promoted" if stamped or renewed else "abandoned"
                rebuilds.resume(record.id).set(state=state)

    def _work(
        self, begun: _Begun, after: DictionaryAnalyzer, recipe: Recipe, outcome: State
    ) -> Work:
        collection, generation, attempt = begun.collection, begun.generation, begun.attempt
        tried = attempt.versions if attempt else ()
        before = [
            begun.before,
            *(self._make_analyzer(self._vocabulary.dictionary(collection, each)) for each in tried),
        ]
        affected = Affected(self._store, collection, before, after)
        live = replace(self._live.open(collection, fresh=True), analyzer=after, words=None)
        deriver = deriver_of(live, self._live.own)
        edition = max(generation.edition, attempt.edition if attempt else 0) + 1
        trying = _Attempt(
            edition=edition, versions=tuple(dict.fromkeys([*tried, recipe.dictionary]))
        )
        progress = Rebuilds(self._store.notes, collection).start(
            "dictionary", generation=generation.id, replaced=generation.id, by=begun.by
        )

        def in_place() -> None:
            self._store.notes.put(collection, _key(generation), asdict(trying))
            Rederivation(
                store=self._store,
                collection=collection,
                generation=generation,
                recipe=recipe,
                edition=edition,
                affected=affected,
                deriver=deriver,
                lease=begun.lease,
                progress=progress,
            ).run()
            self._store.notes.delete(collection, _key(generation))

        def anew() -> None:
            Renewal(
                store=self._store,
                live=self._live,
                collection=collection,
                recipe=recipe,
                lease=begun.lease,
                progress=progress,
                keep=self._keep,
            ).run()

        def run() -> None:
            if attempt is not None or recipe.as_json() != generation.recipe.as_json():
                (anew if affected.is_wide else in_place)()
                self._live.open(collection, fresh=True)
            progress.set(state=outcome)

        return Work(progress, begun.held, run)


def _key(generation: Generation) -> str:
    return f"applying:{generation.id}"
