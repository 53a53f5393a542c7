"""A collection's indices: their names, mappings, aliases and what is stamped on them.

``{prefix}.{collection}.documents`` and ``{prefix}.{collection}.chunks`` are aliases, each of one index
that ends in a number; for chunks that number is the generation.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from server.documents import check_collection
from server.errors import CollectionExists, ConfigurationError, InvalidInput, RecipeMismatch
from server.recipes import Recipe
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.errors import AlreadyExists, no_collection

_FIRST = "000001"
_PREFIX = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a collection's indices."""

    prefix: str
    collection: str

    @property
    def documents(self) -> str:
        return f"{self.prefix}.{self.collection}.documents"

    @property
    def chunks(self) -> str:
        return f"{self.prefix}.{self.collection}.chunks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What the mappings of a collection's indices carry."""

    description: str
    recipe: Recipe
    generation: str


def check_prefix(prefix: str) -> str:
    """Return the index prefix, or raise ConfigurationError."""
    if not _PREFIX.fullmatch(prefix):
        raise ConfigurationError(
            "TANYUAN_INDEX_PREFIX must have 1 to 64 of a-z, 0-9, '_' and '-' and start with a "
            f"letter or digit; got {prefix[:80]!r}."
        )
    return prefix


def mapping(name: str) -> dict[str, Any]:
    """A mapping of ``es_mappings/``."""
    text = files("es_mappings").joinpath(f"{name}.json").read_text("utf-8")
    return dict(json.loads(text))


def chunks_mapping(recipe: Recipe) -> dict[str, Any]:
    """The chunks' mapping for a recipe, stamped with it."""
    made = mapping("chunks")
    if recipe.dimensions:
        made["properties"]["vector"]["dims"] = recipe.dimensions
    else:
        del made["properties"]["vector"]
    return {**made, "_meta": {"recipe": recipe.as_json()}}


def read(client: Client, prefix: str, collection: str | None = None) -> dict[str, Stamp]:
    """Collection → stamp, of one collection or of all, in one request."""
    found = client.indices.get(
        index=f"{prefix}.{collection or '*'}.*",
        features=["aliases", "mappings"],
        filter_path="*.aliases,*.mappings._meta",
    )
    by_alias: dict[str, tuple[str, Mapping[str, Any]]] = {
        alias: (index, body.get("mappings", {}).get("_meta", {}))
        for index, body in found.body.items()
        for alias in body.get("aliases", {})
    }
    pattern = re.compile(re.escape(prefix) + r"\.([^.]+)\.chunks")
    stamps: dict[str, Stamp] = {}
    for alias, (index, meta) in by_alias.items():
        name = pattern.fullmatch(alias)
        if name and Names(prefix, name[1]).documents in by_alias:
            description = by_alias[Names(prefix, name[1]).documents][1].get("description", "")
            stamps[name[1]] = Stamp(
                description=description,
                recipe=_recipe(meta, name[1]),
                generation=index.rpartition(".")[2],
            )
    return stamps


def read_one(client: Client, prefix: str, collection: str) -> Stamp:
    """Raises CollectionNotFound."""
    if not _is_name(collection):  # so no wildcard ever gets into an index name
        raise no_collection(collection)
    stamps = read(client, prefix, collection)
    if collection not in stamps:
        raise no_collection(collection)
    return stamps[collection]


def _is_name(collection: str) -> bool:
    try:
        check_collection(collection)
    except InvalidInput:
        return False
    return True


def create(
    client: Client,
    names: Names,
    *,
    recipe: Recipe,
    description: str,
    settings: Mapping[str, Any],
) -> None:
    """Create a collection's indices. Raises CollectionExists.

    The chunks' index, made last, decides who made the collection: of two at once, one. A documents
    index alone is what a cut-off create left, and is taken over.
    """
    taken = CollectionExists(f"The collection {names.collection!r} exists already.")
    if names.collection in read(client, names.prefix, names.collection):
        raise taken
    # A bulk request that was late for a deleted collection may have made indices of these names.
    strays = _indices(client, names) & {names.documents, names.chunks}
    if strays:
        client.indices.delete(index=sorted(strays), ignore_unavailable=True)
    meta = {"description": description}
    taken_over = False
    try:
        _create(client, names.documents, {**mapping("documents"), "_meta": meta}, settings)
    except AlreadyExists:
        taken_over = True
    try:
        _create(client, names.chunks, chunks_mapping(recipe), settings)
    except AlreadyExists:
        raise taken from None
    if taken_over:
        describe(client, names, description)


def _create(
    client: Client, alias: str, mappings: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    client.indices.create(
        index=f"{alias}.{_FIRST}",
        # Elasticsearch allows an alias one write index, so a second one can't slip in beside it.
        aliases={alias: {"is_write_index": True}},
        mappings=mappings,
        settings=settings,
    )


def delete(client: Client, names: Names) -> None:
    """Remove a collection's indices, all generations, in one step. Raises CollectionNotFound."""
    # By name each: Elasticsearch refuses to delete by wildcard.
    client.indices.delete(index=sorted(_indices(client, names)) or names.documents)


def _indices(client: Client, names: Names) -> set[str]:
    """All indices of a collection, of every generation."""
    found = client.indices.get(
        index=[f"{names.documents}*", f"{names.chunks}*"], filter_path="*.aliases"
    )
    return set(found.body)


def describe(client: Client, names: Names, description: str) -> None:
    """Change the description. Raises CollectionNotFound."""
    client.indices.put_mapping(index=names.documents, meta={"description": description})


def _recipe(meta: Mapping[str, Any], collection: str) -> Recipe:
    try:
        return Recipe.from_json(dict(meta["recipe"]))
    except (KeyError, TypeError):
        raise RecipeMismatch(
            f"Collection {collection} was indexed by another version of this product, whose recipe "
            "can't be read; index its documents into a new collection: scripts/index_documents"
        ) from None
