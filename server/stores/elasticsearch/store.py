"""The store on Elasticsearch. What is decided, and why, stands in DECISIONS.md beside this file."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from server.documents import Chunk, Passage, StoredDocument, check_collection
from server.errors import (
    CollectionNotFound,
    DocumentNotFound,
    StoreUnavailable,
    TanyuanError,
)
from server.recipes import Recipe
from server.stores.checks import check_request, check_writes, no_vectors
from server.stores.contract import (
    Collection,
    Deleted,
    DocumentState,
    Leg,
    Legs,
    LegsRequest,
    Write,
    Written,
)
from server.stores.elasticsearch import indices, queries, records, writer
from server.stores.elasticsearch.client import Client, connect
from server.stores.elasticsearch.errors import TooManyClauses, from_cause
from server.stores.elasticsearch.indices import Names, Stamp

_RECIPE_SECONDS = 2.0  # how long a recipe that was read is trusted
_CHECK_SECONDS = 5.0
_PASSAGE_FIELDS = [
    *("document_id", "position", "text", "start", "end", "headings"),
    *("title", "source", "metadata", "revision"),
]


class ElasticsearchStore:
    """A store on Elasticsearch 8.19 or 9.x.

    ``url``: one or several addresses, commas between. ``prefix`` begins every index name, so that
    several products or tests share a server. ``shards`` and ``replicas`` are those of new collections.
    ``timeout``: seconds that one request may take. Nothing is sent before the first use.
    Raises ConfigurationError.
    """

    kind = "elasticsearch"

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "tanyuan",
        api_key: str = "",
        user: str = "",
        password: str = "",
        ca_file: str = "",
        shards: int = 1,
        replicas: int = 0,
        timeout: float = 30.0,
    ) -> None:
        self._prefix = indices.check_prefix(prefix)
        self._timeout = timeout
        self._client: Client = connect(
            url, api_key=api_key, user=user, password=password, ca_file=ca_file, timeout=timeout
        )
        self._check_client = self._client.options(request_timeout=min(timeout, _CHECK_SECONDS))
        self._settings = {
            "number_of_shards": shards,
            "number_of_replicas": replicas,
            # How long a delete is remembered against older writes that come late; a request that
            # is still under way after this long was given up by its sender long ago.
            "gc_deletes": "10m",
        }
        self._recipes: dict[str, tuple[float, Recipe]] = {}

    def __repr__(self) -> str:
        return f"ElasticsearchStore({self._client.addresses}, prefix={self._prefix!r})"

    def create_collection(self, name: str, *, recipe: Recipe, description: str = "") -> Collection:
        check_collection(name)
        self._recipes.pop(name, None)
        indices.create(
            self._client,
            Names(self._prefix, name),
            recipe=recipe,
            description=description,
            settings=self._settings,
        )
        return self.collection(name)

    def describe(self, name: str, description: str) -> Collection:
        indices.describe(self._client, self._names(name), description)
        return self.collection(name)

    def collections(self) -> list[Collection]:
        stamps = indices.read(self._client, self._prefix)
        return self._counted(dict(sorted(stamps.items())))

    def collection(self, name: str) -> Collection:
        stamp = indices.read_one(self._client, self._prefix, name)
        [found] = self._counted({name: stamp})
        return found

    def recipe(self, name: str) -> Recipe:
        read_at, recipe = self._recipes.get(name, (0.0, None))
        now = time.monotonic()
        if recipe is None or now - read_at > _RECIPE_SECONDS:
            recipe = indices.read_one(self._client, self._prefix, name).recipe
            self._recipes[name] = (now, recipe)
        return recipe

    def delete_collection(self, name: str) -> int:
        self.refresh(name)
        documents = self.collection(name).documents
        self._recipes.pop(name, None)
        indices.delete(self._client, Names(self._prefix, name))
        return documents

    def states(self, collection: str, document_ids: Sequence[str]) -> dict[str, DocumentState]:
        names = self._names(collection)
        found = records.read_records(self._client, names.documents, document_ids)
        return {
            document_id: record.state for document_id, record in found.items() if not record.deleted
        }

    def write(
        self, collection: str, writes: Sequence[Write], *, refresh: bool = False
    ) -> list[Written | TanyuanError]:
        check_writes(writes, self.recipe(collection).dimensions)
        results = writer.put(self._client, Names(self._prefix, collection), writes)
        if refresh and writes:
            self.refresh(collection)
        return results

    def delete(
        self,
        collection: str,
        document_id: str,
        *,
        if_revision: int | None = None,
        refresh: bool = False,
    ) -> Deleted:
        deleted = writer.remove(self._client, self._names(collection), document_id, if_revision)
        if refresh:
            self.refresh(collection)
        return deleted

    def document(self, collection: str, document_id: str) -> StoredDocument:
        index = self._names(collection).documents
        found = records.read_documents(self._client, index, [document_id])
        if document_id not in found:
            raise DocumentNotFound(f"There is no document {document_id!r}.")
        return found[document_id]

    def documents(self, collection: str) -> Iterator[StoredDocument]:
        yield from records.scan(self._client, self._names(collection).documents)

    def search(self, collection: str, request: LegsRequest) -> Legs:
        dimensions = self.recipe(collection).dimensions
        check_request(request, dimensions)
        errors: dict[str, TanyuanError] = {}
        if request.vector is not None and not dimensions:
            errors["vector"] = no_vectors(collection)
        searches = queries.leg_searches(request, with_vector=dimensions > 0)
        deadline = None if request.seconds is None else time.monotonic() + request.seconds
        answers = self._search(collection, searches, deadline)
        failed = answers.get("bm25")
        if isinstance(failed, TooManyClauses):
            # Long texts as queries: as many of the terms as this node takes, room left for filters.
            limited = queries.leg_searches(request, at_most=failed.limit // 2)
            answers |= self._search(collection, {"bm25": limited["bm25"]}, deadline)
        legs: dict[str, Leg] = {} if request.text is None else {"bm25": Leg()}
        for name, answer in answers.items():
            if isinstance(answer, CollectionNotFound):
                raise answer
            if isinstance(answer, TanyuanError):
                errors[name] = answer
                legs.pop(name, None)
            else:
                legs[name] = answer
        return Legs(bm25=legs.get("bm25"), vector=legs.get("vector"), errors=errors)

    def passages(self, collection: str, chunk_ids: Sequence[str]) -> dict[str, Passage]:
        index = self._names(collection).chunks
        found = records.get_many(self._client, index, chunk_ids, _PASSAGE_FIELDS)
        return {chunk_id: _passage(item["_source"]) for chunk_id, item in found.items()}

    def refresh(self, collection: str) -> None:
        names = self._names(collection)
        answer = self._client.indices.refresh(index=[names.documents, names.chunks])
        if answer["_shards"]["failed"]:
            raise StoreUnavailable("Elasticsearch could not refresh every shard; try again later.")

    def check(self) -> str:
        health = self._check_client.cluster.health(index=f"{self._prefix}.*")
        address = self._client.addresses
        if health["status"] == "red":
            raise StoreUnavailable(
                f"Elasticsearch at {address} has lost shards of this product's indices (status "
                "red); see GET /_cluster/allocation/explain on it."
            )
        nodes = self._check_client.nodes.info(filter_path="nodes.*.version")
        versions = sorted({node["version"] for node in nodes.body.get("nodes", {}).values()})
        return f"elasticsearch {', '.join(versions)} at {address}, status {health['status']}"

    def close(self) -> None:
        self._client.close()

    def _names(self, collection: str) -> Names:
        """The names of a collection that was there lately. Raises CollectionNotFound."""
        self.recipe(collection)
        return Names(self._prefix, collection)

    def _counted(self, stamps: Mapping[str, Stamp]) -> list[Collection]:
        """Collections with their counts, all counted in one request."""
        searches: list[dict[str, Any]] = []
        for name in stamps:
            names = Names(self._prefix, name)
            count = {"size": 0, "track_total_hits": True}
            searches += [
                {"index": names.documents, "allow_partial_search_results": False},
                {**count, "query": {"term": {"deleted": False}}},
                {"index": names.chunks, "allow_partial_search_results": False},
                count,
            ]
        totals: list[int] = []
        for answer in self._client.msearch(searches=searches)["responses"] if searches else ():
            if "error" in answer:
                raise from_cause(int(answer["status"]), answer["error"])
            totals.append(answer["hits"]["total"]["value"])
        return [
            Collection(
                name=name,
                description=stamp.description,
                recipe=stamp.recipe,
                generation=stamp.generation,
                documents=totals[2 * number],
                chunks=totals[2 * number + 1],
            )
            for number, (name, stamp) in enumerate(stamps.items())
        ]

    def _search(
        self, collection: str, searches: Mapping[str, dict[str, Any]], deadline: float | None
    ) -> dict[str, Leg | TanyuanError]:
        """The searches of the legs in one round trip; ``deadline`` by the monotonic clock."""
        if not searches:
            return {}
        index = Names(self._prefix, collection).chunks
        header = {
            "index": index,
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
            name: queries.read_leg(name, answer)
            for name, answer in zip(searches, answers, strict=True)
        }


def _passage(source: Mapping[str, Any]) -> Passage:
    return Passage(
        chunk=Chunk(
            document_id=source["document_id"],
            position=source["position"],
            text=source["text"],
            start=source["start"],
            end=source["end"],
            headings=tuple(source["headings"]),
        ),
        title=source["title"],
        source=source["source"],
        metadata=records.metadata_from(source["metadata"]),
        revision=source["revision"],
    )
