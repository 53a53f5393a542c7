"""Searching both legs in one request, and telling which generation answered."""

import time
from collections.abc import Mapping
from typing import Any

from server.errors import CollectionNotFound, GenerationChanged, InvalidInput, TanyuanError
from server.stores.checks import check_request, no_sparse, no_vectors
from server.stores.contract import Leg, Legs, LegsRequest
from server.stores.elasticsearch import queries
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.errors import TooManyClauses
from server.stores.elasticsearch.layout import Layouts
from server.stores.generations import Generation

_TRIES = 3  # of a search for whichever generation is live
_Answer = tuple[Leg | TanyuanError, set[str]]  # a leg and the generations it came from


class Searcher:
    """``timeout``: seconds that a search may take where its request doesn't say less."""

    def __init__(self, client: Client, layouts: Layouts, timeout: float) -> None:
        self._client = client
        self._layouts = layouts
        self._timeout = timeout

    def search(self, collection: str, request: LegsRequest) -> Legs:
        """Raises CollectionNotFound, GenerationChanged, InvalidInput."""
        deadline = None if request.seconds is None else time.monotonic() + request.seconds
        if request.generation is not None:
            live = self._layouts.get(collection).live
            if live.id != request.generation:
                live = self._layouts.get(collection, fresh=True).live
            if live.id != request.generation:
                raise _changed(collection, live)
            return self._search(collection, request, live, deadline)
        for attempt in range(_TRIES):
            live = self._layouts.get(collection, fresh=attempt > 0).live
            try:
                return self._search(collection, request, live, deadline)
            except GenerationChanged:
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError  # the last attempt returns or raises

    def _search(
        self, collection: str, request: LegsRequest, live: Generation, deadline: float | None
    ) -> Legs:
        """Raises GenerationChanged where another than ``live`` answered."""
        dimensions = live.recipe.dimensions
        check_request(request, dimensions)
        errors: dict[str, TanyuanError] = {}
        if request.vector is not None and not dimensions:
            errors["vector"] = no_vectors(collection)
        has_sparse = bool(live.recipe.sparse)
        if request.sparse is not None and not has_sparse:
            errors["sparse"] = no_sparse(collection)
        searches = queries.leg_searches(request, with_vector=dimensions > 0, with_sparse=has_sparse)
        answers = self._send(collection, searches, deadline)
        long = {leg: each for leg, (each, _) in answers.items() if isinstance(each, TooManyClauses)}
        if long:
            # Long texts as queries: as many of the terms as this node takes, room left for filters.
            most = min(each.limit for each in long.values()) // 2
            limited = queries.leg_searches(request, at_most=most)
            answers |= self._send(collection, {leg: limited[leg] for leg in long}, deadline)
        self._check_generation(collection, live, answers)
        legs: dict[str, Leg] = {} if request.text is None else {"bm25": Leg()}
        if request.sparse is not None and has_sparse:
            legs["sparse"] = Leg()
        for name, (answer, _) in answers.items():
            if isinstance(answer, TanyuanError):
                errors[name] = answer
                legs.pop(name, None)
            else:
                legs[name] = answer
        return Legs(
            generation=live.id,
            bm25=legs.get("bm25"),
            vector=legs.get("vector"),
            sparse=legs.get("sparse"),
            errors=errors,
        )

    def _check_generation(
        self, collection: str, live: Generation, answers: Mapping[str, _Answer]
    ) -> None:
        for answer, _ in answers.values():
            if isinstance(answer, CollectionNotFound):
                raise answer
        found = set().union(*(generations for _, generations in answers.values()))
        silent = [
            answer
            for answer, generations in answers.values()
            # A vector of another generation's size is refused as invalid.
            if not generations and isinstance(answer, Leg | InvalidInput)
        ]
        if found <= {live.id} and not silent:
            return
        now = self._layouts.get(collection, fresh=True).live
        if now.id != live.id or found - {live.id}:
            raise _changed(collection, now)

    def _send(
        self, collection: str, searches: Mapping[str, dict[str, Any]], deadline: float | None
    ) -> dict[str, _Answer]:
        """The searches of the legs in one round trip; ``deadline`` by the monotonic clock."""
        if not searches:
            return {}
        header = {
            "index": self._layouts.names(collection).chunks,
            # Shards that fail are an error, not silently fewer hits.
            "allow_partial_search_results": False,
            # Statistics of all shards together; with one shard there is no extra round.
            "search_type": "dfs_query_then_fetch",
        }
        lines = [line for body in searches.values() for line in (header, body)]
        client = self._client
        if deadline is not None:
            left = max(0.01, min(self._timeout, deadline - time.monotonic()))
            client = client.options(request_timeout=left)
        answers = client.msearch(searches=lines)["responses"]
        return {
            name: (queries.read_leg(name, answer), queries.read_generations(answer))
            for name, answer in zip(searches, answers, strict=True)
        }


def _changed(collection: str, live: Generation) -> GenerationChanged:
    return GenerationChanged(
        f"Generation {live.id} of collection {collection!r} is live by now; search again by its "
        "recipe."
    )
