"""Mender: damaged documents made whole again while searches and writes go on.

A document that somebody writes meanwhile is left to that write, which replaces all that it has. Every
step may be cut off and done again: each begins with what the store has now.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from server.documents import Document
from server.errors import (
    DocumentNotFound,
    GenerationChanged,
    RevisionConflict,
    StoreUnavailable,
    TanyuanError,
)
from server.ingest.derivation import BATCH
from server.ingest.indexer import Indexer, deriver_of
from server.lifecycle.findings import Finding, Kind, is_sound, judge, wrong_sparse, wrong_windows
from server.lifecycle.vectors import kept_vectors
from server.live import Live, LiveCollections
from server.recipes import Recipe
from server.sparse import Embedded
from server.stores.audit import Audited
from server.stores.contract import Store, Write
from server.stores.generations import Derivation

_REMOVED = frozenset({Kind.CHUNK_WITHOUT_DOCUMENT, Kind.DUPLICATE_CHUNK})


class Mender:
    """Holds no state."""

    def __init__(self, store: Store, live: LiveCollections, indexer: Indexer) -> None:
        self._store = store
        self._live = live
        self._indexer = indexer

    def mend(
        self, collection: str, document_ids: Iterable[str], *, rewrite: bool = False
    ) -> dict[str, str]:
        """Mend documents; by id, why one could not be mended. The others are to be looked at again.

        Their chunks are made anew by the live recipe and put at the document's present revision;
        with ``rewrite`` the document is written once more, which also makes its record anew.
        Raises CollectionNotFound, StoreUnavailable.
        """
        live = self._live.open(collection, fresh=True)
        failed: dict[str, str] = {}
        for group in self._groups(collection, document_ids):
            whole = []
            for audited in group:
                findings = judge(audited, live.recipe)
                try:
                    if findings and self._begin(live, audited, findings, rewrite=rewrite):
                        whole.append(audited)
                except TanyuanError as error:
                    failed[audited.document_id] = error.message
            failed |= self._make_anew(live, whole, rewrite=rewrite)
        return failed

    def _groups(self, collection: str, document_ids: Iterable[str]) -> Iterator[list[Audited]]:
        """What the store has of them now, some at a time."""
        group: list[Audited] = []
        size = 0
        for document_id in document_ids:
            audited = self._store.audits.one(collection, document_id)
            group.append(audited)
            size += 1 + len(audited.chunks)
            if size >= BATCH:
                yield group
                group, size = [], 0
        if group:
            yield group

    def _begin(
        self, live: Live, audited: Audited, findings: Sequence[Finding], *, rewrite: bool
    ) -> bool:
        """Finish what was cut off and remove what belongs nowhere; whether chunks are to be made."""
        document, collection = audited.document, live.collection
        unfinished = not audited.complete and audited.revision > 0
        damaged = [each for each in findings if each.kind is Kind.DAMAGED_DOCUMENT]
        if damaged:
            raise StoreUnavailable(damaged[0].detail)
        if document is None and unfinished:
            self._finish_delete(collection, audited)
        elif document is not None and unfinished:
            [result] = self._indexer.put(
                collection,
                [document],
                if_revision=audited.revision,
                known=lambda _: _sound_vectors([audited], live.recipe),
            )
            if isinstance(result, TanyuanError) and not isinstance(result, RevisionConflict):
                raise result
            return False
        unwanted = _REMOVED | {Kind.SURPLUS_CHUNK} if rewrite else _REMOVED
        keys = [finding.key for finding in findings if finding.kind in unwanted]
        if keys:
            self._store.audits.remove(collection, keys)
        return document is not None

    def _finish_delete(self, collection: str, audited: Audited) -> None:
        """The store finishes a delete that is asked for again; the revision keeps it from deleting
        what was put since."""
        try:
            self._store.delete(collection, audited.document_id, if_revision=audited.revision)
        except (DocumentNotFound, RevisionConflict):
            return

    def _make_anew(self, live: Live, group: Sequence[Audited], *, rewrite: bool) -> dict[str, str]:
        """Derive documents by the live recipe and put the result; by id, why one failed."""
        by_id = {audited.document_id: audited for audited in group}
        documents = [audited.document for audited in group if audited.document]
        failed: dict[str, str] = {}

        def known(some: Sequence[Document]) -> Mapping[str, Embedded]:
            return _sound_vectors([by_id[each.id] for each in some], live.recipe)

        try:
            deriver = deriver_of(live, self._live.own)
        except TanyuanError as error:
            return dict.fromkeys(by_id, error.message)
        for batch in deriver.derive(documents, known=known):
            derivations = []
            for item in batch:
                document_id = item.document.id
                if isinstance(item.chunks, TanyuanError):
                    failed[document_id] = item.chunks.message
                else:
                    derivations.append(
                        Derivation(
                            document_id=document_id,
                            revision=by_id[document_id].revision,
                            document=item.document,
                            chunks=item.chunks,
                        )
                    )
            try:
                failed |= self._put(live, derivations, rewrite=rewrite)
            except TanyuanError as error:
                failed |= {each.document_id: error.message for each in derivations}
        return failed

    def _put(
        self, live: Live, derivations: Sequence[Derivation], *, rewrite: bool
    ) -> dict[str, str]:
        """At their present revision, or as a new one. What was written meanwhile is no failure."""
        results: Sequence[object]
        if rewrite:
            writes = [
                Write(document=each.document, chunks=each.chunks, if_revision=each.revision)
                for each in derivations
                if each.document is not None
            ]
            results = self._store.write(live.collection, writes, key=live.generation.key)
        else:
            generation = live.generation.id
            results = self._store.generations.derive(live.collection, generation, derivations)
        return {
            derivation.document_id: result.message
            for derivation, result in zip(derivations, results, strict=True)
            if isinstance(result, TanyuanError)
            and not isinstance(result, RevisionConflict | GenerationChanged)
        }


def _sound_vectors(group: Sequence[Audited], recipe: Recipe) -> dict[str, Embedded]:
    """By key (see ``passages_of``), what was embedded of the chunks whose vectors are sound."""
    found: dict[str, Embedded] = {}
    for audited in group:
        for chunk in audited.chunks:
            if audited.document and is_sound(chunk, audited, recipe):
                damaged = wrong_windows(chunk.chunk.text, chunk.windows, recipe)
                windows = None if damaged else chunk.windows
                sparse = None if wrong_sparse(chunk.sparse, recipe) else chunk.sparse
                title = audited.document.title
                found.update(kept_vectors(title, chunk.chunk, chunk.vector, windows, sparse))
    return found
