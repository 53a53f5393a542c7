"""How many documents and chunks search sees of collections, and how often an index was changed."""

from collections.abc import Mapping
from typing import Any

from server.stores.contract import Collection
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.errors import from_cause
from server.stores.elasticsearch.layout import Layout


def counted(client: Client, layouts: Mapping[str, Layout]) -> list[Collection]:
    """Collections with their counts, all counted in one request."""
    searches: list[dict[str, Any]] = []
    for layout in layouts.values():
        count = {"size": 0, "track_total_hits": True}
        searches += [
            {"index": layout.names.documents, "allow_partial_search_results": False},
            {**count, "query": {"term": {"deleted": False}}},
            {"index": layout.names.chunks, "allow_partial_search_results": False},
            count,
        ]
    totals: list[int] = []
    for answer in client.msearch(searches=searches)["responses"] if searches else ():
        if "error" in answer:
            raise from_cause(int(answer["status"]), answer["error"])
        totals.append(answer["hits"]["total"]["value"])
    return [
        Collection(
            name=name,
            description=layout.description,
            recipe=layout.live.recipe,
            generation=layout.live.id,
            documents=totals[2 * number],
            chunks=totals[2 * number + 1],
        )
        for number, (name, layout) in enumerate(layouts.items())
    ]


def operations(client: Client, index: str) -> int:
    """How many changes the index has taken; never less than before, whatever node has it."""
    found = client.indices.stats(
        index=index,
        level="shards",
        filter_path="indices.*.shards.*.seq_no,indices.*.shards.*.routing",
    )
    # Copies of a shard may lag behind one another, so the furthest counts.
    return sum(
        max(int(copy["seq_no"]["max_seq_no"]) for copy in copies if "seq_no" in copy) + 1
        for each in found.body.get("indices", {}).values()
        for copies in each["shards"].values()
    )
