"""A collection as its indices tell it: their names, aliases and what is stamped on them.

Every process reads it afresh at least once a second, so all follow a promotion.
"""

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from server.errors import GenerationNotFound, RecipeMismatch, StoreTimeout, StoreUnavailable
from server.recipes import Recipe
from server.stores.elasticsearch import indices
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.errors import no_collection
from server.stores.elasticsearch.names import Names, generation_id, is_collection_name
from server.stores.generations import Generation, GenerationState

FOLLOW_SECONDS = 1.0
_MASTER_TIMEOUT = "5s"  # so that a search goes on with what is known while a cluster has no master


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """``generations``: by id, one of them live. ``newest``: the number given last.

    ``leftovers``: indices of chunks that are no generation: what a late delete of a single chunk made,
    or a removal that was cut off left. ``accepting``: whether the live one is written to, or a fence
    stands. ``outdated``: made before there were generations to build.
    """

    names: Names
    description: str
    generations: tuple[Generation, ...]
    newest: str
    leftovers: tuple[str, ...] = ()
    accepting: bool = True
    has_notes: bool = True
    outdated: bool = False

    @property
    def live(self) -> Generation:
        return next(each for each in self.generations if each.state == "live")

    @property
    def following(self) -> str:
        """The id of the generation to be made next."""
        used = [int(each.id) for each in self.generations]
        return generation_id(max(int(self.newest or 0), *used, 0) + 1)

    @property
    def alone(self) -> bool:
        """Whether the live generation is the only one."""
        return len(self.generations) == 1

    def generation(self, generation: str) -> Generation:
        """Raises GenerationNotFound."""
        for each in self.generations:
            if each.id == generation:
                return each
        raise GenerationNotFound(
            f"Collection {self.names.collection!r} has no generation {generation[:80]!r}."
        )


def read_all(client: Client, prefix: str) -> dict[str, Layout]:
    """Collection → layout, by name, in one request."""
    found = _indices(client, f"{prefix}.*.*")
    parts: dict[str, dict[str, Any]] = {}
    for index, body in found.items():
        parts.setdefault(index.split(".")[1], {})[index] = body
    layouts = {name: parse(Names(prefix, name), parts[name]) for name in sorted(parts)}
    return {name: layout for name, layout in layouts.items() if layout is not None}


def read(client: Client, names: Names) -> Layout:
    """Raises CollectionNotFound."""
    layout = parse(names, _indices(client, names.all))
    if layout is None:
        raise no_collection(names.collection)
    return layout


def _indices(client: Client, pattern: str) -> Mapping[str, Mapping[str, Any]]:
    """Index → its aliases, ``_meta`` and settings."""
    found = client.indices.get(
        index=pattern,
        features=["aliases", "mappings", "settings"],
        filter_path="*.aliases,*.mappings._meta,*.settings.index.creation_date",
        master_timeout=_MASTER_TIMEOUT,
    )
    return dict(found.body)


def parse(names: Names, found: Mapping[str, Mapping[str, Any]]) -> Layout | None:
    """The layout from index → its aliases, ``_meta`` and settings; None where it is no collection."""
    documents = [index for index, body in found.items() if names.documents in _aliases(body)]
    read = [index for index, body in found.items() if names.chunks in _aliases(body)]
    if not documents or not read:
        return None
    generations: list[Generation] = []
    leftovers: list[str] = []
    for index, body in sorted(found.items()):
        if index == names.chunks or index.startswith(names.index("")):
            generation = _generation(names, index, body)
            if generation is None:
                leftovers.append(index)
            else:
                generations.append(generation)
    [documents_index] = documents
    return Layout(
        names=names,
        description=_meta(found[documents_index]).get("description", ""),
        generations=tuple(sorted(generations, key=lambda each: each.id)),
        newest=_ending(names.newest(""), found[documents_index]),
        leftovers=tuple(leftovers),
        accepting=any(_is_accepting(names, index, found[index]) for index in read),
        has_notes=any(names.notes in _aliases(body) for body in found.values()),
        outdated=any(_is_outdated(names, index, found[index]) for index in read),
    )


def _generation(names: Names, index: str, body: Mapping[str, Any]) -> Generation | None:
    identity = index.removeprefix(names.index(""))
    states: tuple[GenerationState, ...] = ("live", "kept", "building")
    state = next((each for each in states if names.state(identity, each) in _aliases(body)), None)
    meta = _meta(body)
    if state is None or not meta:
        return None
    outdated = _is_outdated(names, index, body)
    edition = 1 if outdated else int(_ending(f"{index}.edition.", body) or 0)
    try:
        stamped = meta["recipe"] if outdated else meta["recipes"][str(edition)]
        recipe = Recipe.from_json(dict(stamped))
    except (KeyError, TypeError):
        raise RecipeMismatch(
            f"Collection {names.collection} was indexed by another version of this product, whose "
            "recipe can't be read; index its documents into a new collection: "
            "scripts/index_documents"
        ) from None
    created = int(body["settings"]["index"]["creation_date"]) / 1000
    return Generation(
        id=identity,
        edition=edition,
        recipe=recipe,
        state=state,
        created_at=datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds"),
        fence=_ending(names.fence(""), body),
    )


def _is_accepting(names: Names, index: str, body: Mapping[str, Any]) -> bool:
    fenced = _ending(names.fence(""), body)
    return bool(fenced or _ending(f"{index}.accepts.", body))


def _is_outdated(names: Names, index: str, body: Mapping[str, Any]) -> bool:
    """Whether the live index was made by a version of this product that knew one generation only."""
    return names.chunks in _aliases(body) and not _ending(f"{index}.edition.", body)


def _aliases(body: Mapping[str, Any]) -> Mapping[str, Any]:
    aliases: Mapping[str, Any] = body.get("aliases", {})
    return aliases


def _meta(body: Mapping[str, Any]) -> Mapping[str, Any]:
    meta: Mapping[str, Any] = body.get("mappings", {}).get("_meta", {})
    return meta


def _ending(start: str, body: Mapping[str, Any]) -> str:
    """What follows ``start`` in the one alias that begins so; empty where there is none."""
    pattern = re.compile(re.escape(start) + r"(\w+)")
    found = (pattern.fullmatch(alias) for alias in _aliases(body))
    return next((match[1] for match in found if match), "")


class Layouts:
    """The collections' layouts as this process knows them. Thread-safe.

    One that is first seen as an older version left it is brought up to date.
    """

    def __init__(self, client: Client, prefix: str, settings: Mapping[str, Any]) -> None:
        self._client = client
        self._prefix = prefix
        self._settings = settings
        self._known: dict[str, tuple[float, Layout]] = {}
        self._lock = threading.Lock()

    def names(self, collection: str) -> Names:
        """The names of a collection that was there lately. Raises CollectionNotFound."""
        return self.get(collection).names

    def get(self, collection: str, *, fresh: bool = False) -> Layout:
        """As it is, or where not ``fresh`` was FOLLOW_SECONDS ago. Raises CollectionNotFound."""
        with self._lock:
            read_at, known = self._known.get(collection, (0.0, None))
        now = time.monotonic()
        if known is not None and not fresh and now - read_at <= FOLLOW_SECONDS:
            return known
        try:
            layout = self._read(collection)
        except StoreTimeout:
            raise
        except StoreUnavailable:
            # Between two masters a cluster still searches. What is found is compared with the
            # generation anyway, and writes go through an alias of its own.
            if known is None or fresh:
                raise
            layout = known
        with self._lock:
            self._known[collection] = (now, layout)
        return layout

    def forget(self, collection: str) -> None:
        """Read it afresh at the next use."""
        with self._lock:
            self._known.pop(collection, None)

    def _read(self, collection: str) -> Layout:
        if not is_collection_name(collection):
            raise no_collection(collection)
        names = Names(self._prefix, collection)
        layout = read(self._client, names)
        if layout.outdated:
            recipe = layout.live.recipe
            indices.upgrade(self._client, layout.names, layout.live.id, recipe, self._settings)
            layout = read(self._client, names)
        return layout
