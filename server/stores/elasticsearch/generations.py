"""The generations of collections on Elasticsearch."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from server.errors import (
    CollectionNotFound,
    Fenced,
    FenceLost,
    InvalidInput,
    StoreTimeout,
    StoreUnavailable,
    TanyuanError,
)
from server.recipes import Recipe
from server.stores.elasticsearch import indices, switches
from server.stores.elasticsearch.changes import EDITIONS, Target
from server.stores.elasticsearch.chunk_hits import documents_containing, stored_chunks
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.deriving import check_derivations, derive
from server.stores.elasticsearch.errors import AlreadyExists, NoAlias
from server.stores.elasticsearch.layout import Layout, Layouts
from server.stores.elasticsearch.records import count, not_level, read_whole, refresh, scan
from server.stores.generations import Derivation, Generation, Pending, StoredChunk

_TRIES = 10  # of a step that another process keeps forestalling
_SETTLE_SECONDS = 600.0
_UNASSIGNED_SECONDS = 30.0  # after which copies that no node takes are not waited for


class ElasticsearchGenerations:
    """See ``server.stores.generations.Generations``. ``settings``: of live indices."""

    def __init__(self, client: Client, layouts: Layouts, settings: Mapping[str, Any]) -> None:
        self._client = client
        self._layouts = layouts
        self._settings = settings

    def all(self, collection: str) -> list[Generation]:
        return list(self._layouts.get(collection, fresh=True).generations)

    def create(self, collection: str, *, recipe: Recipe) -> Generation:
        for _ in range(_TRIES):
            layout = self._layouts.get(collection, fresh=True)
            self._sweep(layout)
            made = layout.following
            try:
                switches.count(self._client, layout.names, layout.newest, made)
                indices.create_generation(self._client, layout.names, made, recipe, self._settings)
            except (NoAlias, AlreadyExists):
                continue
            return self._layouts.get(collection, fresh=True).generation(made)
        raise StoreUnavailable("Others are making generations all the time; try again later.")

    def drop(self, collection: str, generation: str) -> None:
        layout = self._layouts.get(collection, fresh=True)
        found = next((each for each in layout.generations if each.id == generation), None)
        if found is not None:
            if found.state == "live":
                raise InvalidInput(
                    f"Generation {generation} is live; make another one live before it is dropped.",
                    field="generation",
                )
            try:
                switches.retire(self._client, layout.names, found)
            except NoAlias:
                return self.drop(collection, generation)  # its state has changed
            layout = self._layouts.get(collection, fresh=True)
        self._sweep(layout)
        self._layouts.forget(collection)
        return None

    def sweep(self, collection: str) -> None:
        self._sweep(self._layouts.get(collection, fresh=True))

    def pending(self, collection: str, generation: str) -> Iterator[Pending]:
        names = self._generation(collection, generation)[0].names
        refresh(self._client, names.documents)
        return self._pending(names.documents, generation)

    def _pending(self, index: str, generation: str) -> Iterator[Pending]:
        for ids in scan(self._client, index, not_level(generation)):
            for document_id, found in read_whole(self._client, index, ids).items():
                record, document, _ = found
                if not record.is_level(generation):
                    yield Pending(
                        document_id=document_id, revision=record.revision, document=document
                    )

    def pending_count(self, collection: str, generation: str) -> int:
        names = self._generation(collection, generation)[0].names
        refresh(self._client, names.documents)
        return count(self._client, names.documents, not_level(generation))

    def derive(
        self,
        collection: str,
        generation: str,
        derivations: Sequence[Derivation],
        *,
        edition: int | None = None,
    ) -> list[bool | TanyuanError]:
        layout, found = self._generation(collection, generation)
        if edition is not None:
            _check_edition(edition, at_least=found.edition)
        check_derivations(derivations, found.recipe)
        target = Target.derived(layout.names, found, edition)
        results = derive(self._client, layout.names, target, derivations)
        if any(isinstance(result, NoAlias) for result in results):
            self._generation(collection, generation)
            restamped = StoreUnavailable(
                f"Generation {generation} was stamped anew meanwhile; derive it again."
            )
            return [restamped if isinstance(each, NoAlias) else each for each in results]
        return results

    def chunks(
        self, collection: str, generation: str, document_ids: Sequence[str]
    ) -> dict[str, tuple[StoredChunk, ...]]:
        names = self._generation(collection, generation)[0].names
        if not document_ids:
            return {}
        try:
            refresh(self._client, names.index(generation))
            return stored_chunks(self._client, names.index(generation), document_ids)
        except CollectionNotFound:
            self._generation(collection, generation)  # says which of both is gone
            raise

    def containing(self, collection: str, terms: Sequence[str]) -> Iterator[str]:
        names = self._layouts.names(collection)
        refresh(self._client, names.chunks)
        return documents_containing(self._client, names.chunks, terms)

    def settle(self, collection: str, generation: str) -> None:
        names = self._generation(collection, generation)[0].names
        index = names.index(generation)
        replicas = self._settings["number_of_replicas"]
        self._client.indices.put_settings(
            index=index, settings={"refresh_interval": None, "number_of_replicas": replicas}
        )
        refresh(self._client, index)
        started = time.monotonic()
        while not self._is_safe(index, replicas, time.monotonic() - started):
            if time.monotonic() - started > _SETTLE_SECONDS:
                raise StoreTimeout(
                    f"Elasticsearch did not copy {index} to other nodes within "
                    f"{_SETTLE_SECONDS:.0f} s; look at GET /_cluster/allocation/explain on it."
                )

    def _is_safe(self, index: str, replicas: int, waited: float) -> bool:
        """Whether the index has the copies that the cluster's nodes can hold; waits some seconds."""
        try:
            health = self._client.cluster.health(
                index=index,
                wait_for_events="languid",  # what the settings have set going has begun
                wait_for_no_initializing_shards=True,
                timeout="5s",
            )
        except StoreTimeout:
            return False
        if health["status"] == "red" and waited >= _UNASSIGNED_SECONDS:
            raise StoreUnavailable(
                f"{index} has lost shards with a node of Elasticsearch. Bring the node back, or drop "
                "this generation and make it anew."
            )
        copies = 1 + min(replicas, health["number_of_data_nodes"] - 1)
        missing = health["active_shards"] < copies * health["active_primary_shards"]
        if health["status"] == "red" or (missing and waited < _UNASSIGNED_SECONDS):
            time.sleep(0.2)
            return False
        return True

    def fence(self, collection: str) -> str:
        layout = self._layouts.get(collection, fresh=True)
        stands = Fenced(f"Another generation of {collection!r} is about to become live; try again.")
        if layout.live.fence:
            raise stands
        try:
            token = switches.fence(self._client, layout.names, layout.live)
        except NoAlias:
            raise stands from None
        self._layouts.forget(collection)
        return token

    def lift(self, collection: str, fence: str) -> bool:
        layout = self._layouts.get(collection, fresh=True)
        if not fence or layout.live.fence != fence:
            return False
        try:
            switches.lift(self._client, layout.names, layout.live, fence)
        except NoAlias:
            return False
        self._layouts.forget(collection)
        return True

    def promote(self, collection: str, generation: str, *, fence: str) -> Generation:
        layout, new = self._generation(collection, generation)
        old = self._fenced(layout, fence)
        if new.state == "live":
            raise InvalidInput(f"Generation {generation} is live already.", field="generation")
        try:
            switches.promote(self._client, layout.names, old, new, fence)
        except (NoAlias, CollectionNotFound):
            self._generation(collection, generation)
            raise _lost(collection) from None
        return self._seen(collection, replace(new, state="live"))

    def restamp(self, collection: str, recipe: Recipe, *, fence: str, edition: int) -> Generation:
        layout = self._layouts.get(collection, fresh=True)
        live = self._fenced(layout, fence)
        _check_edition(edition, at_least=live.edition + 1)
        kept = (live.recipe.dimensions, live.recipe.windows, live.recipe.sparse)
        if (recipe.dimensions, recipe.windows, recipe.sparse) != kept:
            raise InvalidInput(
                "A generation's vectors keep their dimensions and windows, and their sparse weights; "
                "rebuild the collection.",
                field="recipe",
            )
        # Both recipes are there before the step that says which of them counts.
        recipes = {str(live.edition): live.recipe.as_json(), str(edition): recipe.as_json()}
        index = layout.names.index(live.id)
        self._client.indices.put_mapping(index=index, meta={"recipes": recipes})
        try:
            switches.restamp(self._client, layout.names, live, edition, recipe, fence)
        except NoAlias:
            raise _lost(collection) from None
        return self._seen(collection, replace(live, recipe=recipe, edition=edition, fence=""))

    def _generation(self, collection: str, generation: str) -> tuple[Layout, Generation]:
        """Read afresh. Raises GenerationNotFound."""
        layout = self._layouts.get(collection, fresh=True)
        return layout, layout.generation(generation)

    def _fenced(self, layout: Layout, fence: str) -> Generation:
        if not fence or layout.live.fence != fence:
            raise _lost(layout.names.collection)
        return layout.live

    def _seen(self, collection: str, made: Generation) -> Generation:
        """``made``, when the node that this process asks knows of it."""
        for _ in range(_TRIES):
            live = self._layouts.get(collection, fresh=True).live
            if live.key == made.key:
                break
            time.sleep(0.1)
        return made

    def _sweep(self, layout: Layout) -> None:
        """Remove indices that are no generation."""
        if layout.leftovers:
            self._client.indices.delete(index=list(layout.leftovers), ignore_unavailable=True)


def _check_edition(edition: int, *, at_least: int) -> None:
    if not at_least <= edition < EDITIONS:
        raise InvalidInput(
            f"The edition {edition} is not from {at_least} on: editions only rise.",
            field="edition",
        )


def _lost(collection: str) -> FenceLost:
    return FenceLost(
        f"The fence of {collection!r} was lifted by others, who waited too long; nothing has "
        "changed. Try again."
    )
