"""Renewal: a dictionary that may change every document, put in force by a new generation."""

from dataclasses import dataclass

from server.ingest.indexer import deriver_of
from server.lifecycle.lock import Lease
from server.lifecycle.progress import Progress
from server.lifecycle.promotion import Target, promote, prune
from server.lifecycle.vectors import known_in
from server.live import LiveCollections
from server.recipes import Recipe
from server.stores.contract import Store
from server.stores.generations import Generation


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """``recipe``: the live one with another dictionary. ``keep``: how many old generations stay."""

    store: Store
    live: LiveCollections
    collection: str
    recipe: Recipe
    lease: Lease
    progress: Progress
    keep: int

    def run(self) -> None:
        """Fill a generation, or go on with one of this recipe that was cut off, and promote it.

        Raises as ``promote`` does.
        """
        replaced = self.store.live(self.collection, fresh=True)
        generation = self._generation()
        total = self.store.generations.pending_count(self.collection, generation.id)
        self.progress.set(generation=generation.id, total=total)
        promote(
            Target(
                store=self.store,
                collection=self.collection,
                generation=generation,
                deriver=deriver_of(self.live.of(self.collection, generation), self.live.own),
                known=known_in(self.store, self.collection, generation.recipe),
                lease=self.lease,
                progress=self.progress,
            )
        )
        prune(self.store, self.collection, keep=self.keep, replaced=replaced.id)

    def _generation(self) -> Generation:
        found = None
        for each in self.store.generations.all(self.collection):
            if each.state != "building":
                continue
            if each.recipe.as_json() == self.recipe.as_json():
                found = each
            else:  # a rebuild that was cut off, by the dictionary that goes
                self.store.generations.drop(self.collection, each.id)
        return found or self.store.generations.create(self.collection, recipe=self.recipe)
