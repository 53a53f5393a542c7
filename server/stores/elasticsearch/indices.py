"""Making and removing a collection's indices."""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from server.errors import CollectionExists, NoteConflict
from server.recipes import Recipe
from server.stores.elasticsearch import note_records
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.errors import AlreadyExists
from server.stores.elasticsearch.names import FIRST, Names

_FILLING = {"refresh_interval": "-1", "number_of_replicas": 0}


def mapping(name: str) -> dict[str, Any]:
    """A mapping of ``es_mappings/``."""
    text = files("es_mappings").joinpath(f"{name}.json").read_text("utf-8")
    return dict(json.loads(text))


def chunks_mapping(recipe: Recipe) -> dict[str, Any]:
    """The chunks' mapping for a recipe, stamped with it as the first edition's."""
    made = mapping("chunks")
    if recipe.dimensions:
        made["properties"]["vector"]["dims"] = recipe.dimensions
    else:
        del made["properties"]["vector"]
    if not recipe.windows:
        del made["properties"]["windows"]
    if not recipe.sparse:
        del made["properties"]["sparse"], made["properties"]["sparse_kept"]
    return {**made, "_meta": {"recipes": {"1": recipe.as_json()}}}


def create(
    client: Client,
    names: Names,
    *,
    recipe: Recipe,
    description: str,
    notes: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> None:
    """Create a collection's indices. Raises CollectionExists, InvalidInput for a note.

    The chunks' index, made last, decides who made the collection: of two at once, one. The others
    alone are what a cut-off create left, and are taken over.
    """
    taken = CollectionExists(f"The collection {names.collection!r} exists already.")
    found = _indices(client, names)
    if any(names.chunks in aliases for aliases in found.values()):
        raise taken
    # A request that was late for a deleted collection may have made indices of these names.
    strays = {index for index in found if index.startswith(names.chunks)}
    strays |= found.keys() & {names.documents, names.notes}
    if strays:
        client.indices.delete(index=sorted(strays), ignore_unavailable=True)
    own = mapping("documents") | {"_meta": {"description": description}}
    taken_over = False
    try:
        first = {names.documents: {"is_write_index": True}, names.newest(FIRST): {}}
        _create(client, f"{names.documents}.{FIRST}", first, own, settings)
    except AlreadyExists:
        taken_over = True
    create_notes(client, names, settings)
    for key, value in notes.items():
        try:
            note_records.put(client, names, key, value, expected=0)
        except NoteConflict:
            taken_over = True
    # Elasticsearch allows an alias one write index, so a second one can't slip in beside it.
    aliases: dict[str, Any] = {names.chunks: {"is_write_index": True}}
    aliases |= {names.edition(FIRST, 1): {}, names.accepts(FIRST, 1, recipe): {}}
    try:
        _create(client, names.index(FIRST), aliases, chunks_mapping(recipe), settings)
    except AlreadyExists:
        raise taken from None
    if taken_over:
        describe(client, names, description)
        for key in note_records.under(client, names, "").keys() - notes.keys():
            note_records.delete(client, names, key)
        for key, value in notes.items():
            note_records.put(client, names, key, value)


def _create(
    client: Client,
    index: str,
    aliases: Mapping[str, Mapping[str, Any]],
    mappings: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    client.indices.create(index=index, aliases=aliases, mappings=mappings, settings=settings)


def create_notes(client: Client, names: Names, settings: Mapping[str, Any]) -> None:
    """The index of the notes, where it is not there yet."""
    aliases = {names.notes: {"is_write_index": True}}
    one_shard = {**settings, "number_of_shards": 1}
    try:
        _create(client, f"{names.notes}.{FIRST}", aliases, mapping("notes"), one_shard)
    except AlreadyExists:
        return


def create_generation(
    client: Client, names: Names, generation: str, recipe: Recipe, settings: Mapping[str, Any]
) -> None:
    """An empty index for a generation in the state "building", tuned for filling."""
    aliases: dict[str, dict[str, Any]] = {
        names.state(generation, "building"): {},
        names.edition(generation, 1): {},
    }
    _create(
        client,
        names.index(generation),
        aliases,
        chunks_mapping(recipe),
        {**settings, **_FILLING},
    )


def upgrade(
    client: Client, names: Names, live: str, recipe: Recipe, settings: Mapping[str, Any]
) -> None:
    """Bring a collection up to date that was made when there was one generation only.

    The aliases come last, as they mark it as done; doing it twice at once does no harm.
    """
    properties = mapping("documents")["properties"]
    added = {name: properties[name] for name in ("levels", "counts")}
    client.indices.put_mapping(index=names.documents, properties=added)
    create_notes(client, names, settings)
    client.indices.put_mapping(index=names.chunks, meta=chunks_mapping(recipe)["_meta"])
    added_aliases = {
        names.newest(live): f"{names.documents}.{FIRST}",
        names.edition(live, 1): names.index(live),
        names.accepts(live, 1, recipe): names.index(live),
    }
    client.indices.update_aliases(
        actions=[
            {"add": {"index": index, "alias": alias}} for alias, index in added_aliases.items()
        ]
    )


def delete(client: Client, names: Names) -> None:
    """Remove a collection's indices, all generations, in one step. Raises CollectionNotFound."""
    # By name each: Elasticsearch refuses to delete by wildcard.
    client.indices.delete(index=sorted(_indices(client, names)) or names.documents)


def _indices(client: Client, names: Names) -> dict[str, Mapping[str, Any]]:
    """Index → its aliases, of all indices of a collection, of every generation."""
    found = client.indices.get(
        index=[f"{names.documents}*", f"{names.chunks}*", f"{names.notes}*"],
        features=["aliases"],
    )
    return {index: body.get("aliases", {}) for index, body in found.body.items()}


def describe(client: Client, names: Names, description: str) -> None:
    """Change the description. Raises CollectionNotFound."""
    client.indices.put_mapping(index=names.documents, meta={"description": description})
