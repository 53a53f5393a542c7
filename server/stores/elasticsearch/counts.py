"""How many documents and chunks search sees of collections."""

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
