"""The store on Elasticsearch. What is decided, and why, stands in DECISIONS.md beside this file."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from server.documents import Passage, StoredDocument, check_collection
from server.errors import (
    CollectionNotFound,
    DocumentNotFound,
    GenerationChanged,
    StoreUnavailable,
    TanyuanError,
)
from server.recipes import Recipe
from server.stores.audit import Audits
from server.stores.checks import check_holding, check_terms, check_writes
from server.stores.contract import (
    Collection,
    Deleted,
    DocumentState,
    Frequencies,
    Legs,
    LegsRequest,
    OwnedChunk,
    Write,
    Written,
)
from server.stores.elasticsearch import frequencies, indices, records
from server.stores.elasticsearch.audits import ElasticsearchAudits
from server.stores.elasticsearch.chunk_hits import chunk_of, count_holding, owned_chunks, windows_in
from server.stores.elasticsearch.client import Client, connect
from server.stores.elasticsearch.counts import counted, operations
from server.stores.elasticsearch.generations import ElasticsearchGenerations
from server.stores.elasticsearch.layout import FOLLOW_SECONDS, Layout, Layouts, read_all
from server.stores.elasticsearch.names import FIRST, Names, check_prefix, is_generation_id
from server.stores.elasticsearch.notes import ElasticsearchNotes
from server.stores.elasticsearch.searching import Searcher
from server.stores.elasticsearch.snapshots import Snapshot, Snapshots
from server.stores.elasticsearch.writer import Writer, changed
from server.stores.filters import Filter
from server.stores.generations import Generation, Generations
from server.stores.note_checks import check_key, encoded
from server.stores.notes import Notes
from server.stores.windows import unpack_sound

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
    follow_seconds = FOLLOW_SECONDS

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
        self._prefix = check_prefix(prefix)
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
        self._layouts = Layouts(self._client, self._prefix, self._settings)
        self._searcher = Searcher(self._client, self._layouts, timeout)
        self.generations: Generations = ElasticsearchGenerations(
            self._client, self._layouts, self._settings
        )
        self.notes: Notes = ElasticsearchNotes(self._client, self._layouts)
        audits = ElasticsearchAudits(self._client, self._layouts, self._settings)
        self.audits: Audits = audits
        self._snapshots = Snapshots(self._client, self._layouts, audits, self._prefix)

    def __repr__(self) -> str:
        return f"ElasticsearchStore({self._client.addresses}, prefix={self._prefix!r})"

    def create_collection(
        self,
        name: str,
        *,
        recipe: Recipe,
        description: str = "",
        notes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Collection:
        check_collection(name)
        for key, value in (notes or {}).items():
            check_key(key)
            encoded(value)
        self._layouts.forget(name)
        indices.create(
            self._client,
            Names(self._prefix, name),
            recipe=recipe,
            description=description,
            notes=notes or {},
            settings=self._settings,
        )
        return self.collection(name)

    def describe(self, name: str, description: str) -> Collection:
        indices.describe(self._client, self._layouts.names(name), description)
        return self.collection(name)

    def collections(self) -> list[Collection]:
        return counted(self._client, read_all(self._client, self._prefix))

    def collection(self, name: str) -> Collection:
        [found] = counted(self._client, {name: self._layouts.get(name, fresh=True)})
        return found

    def live(self, name: str, *, fresh: bool = False) -> Generation:
        return self._layouts.get(name, fresh=fresh).live

    def delete_collection(self, name: str) -> int:
        self.refresh(name)
        documents = self.collection(name).documents
        indices.delete(self._client, Names(self._prefix, name))
        self._layouts.forget(name)
        return documents

    def states(self, collection: str, document_ids: Sequence[str]) -> dict[str, DocumentState]:
        layout = self._layouts.get(collection)
        found = records.read_records(self._client, layout.names.documents, document_ids)
        return {
            document_id: record.state(layout.live.id)
            for document_id, record in found.items()
            if not record.deleted
        }

    def write(
        self,
        collection: str,
        writes: Sequence[Write],
        *,
        key: str | None = None,
        refresh: bool = False,
    ) -> list[Written | TanyuanError]:
        layout = self._layouts.get(collection, fresh=key is None)
        if key is not None and (layout.live.fence or layout.live.key != key):
            layout = self._layouts.get(collection, fresh=True)
        if layout.live.fence or key not in {None, layout.live.key}:
            return [changed(layout)] * len(writes)
        check_writes(writes, layout.live.recipe)
        results = self._writer(layout).put(writes)
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
        writer = self._writer(self._layouts.get(collection))
        deleted = writer.remove(document_id, if_revision)
        if refresh:
            self.refresh(collection)
        return deleted

    def _writer(self, layout: Layout) -> Writer:
        name = layout.names.collection
        return Writer(
            client=self._client,
            layout=layout,
            read=partial(self._layouts.get, name, fresh=True),
            lift=partial(self.generations.lift, name),
        )

    def document(self, collection: str, document_id: str) -> StoredDocument:
        layout = self._layouts.get(collection)
        index, live = layout.names.documents, layout.live.id
        found = records.read_documents(self._client, index, [document_id], live)
        if document_id not in found:
            raise DocumentNotFound(f"There is no document {document_id!r}.")
        return found[document_id]

    def documents(self, collection: str) -> Iterator[StoredDocument]:
        layout = self._layouts.get(collection)
        index, live = layout.names.documents, layout.live.id
        records.refresh(self._client, index)
        for ids in records.scan(self._client, index, {"term": {"deleted": False}}):
            yield from records.read_documents(self._client, index, ids, live).values()

    def search(self, collection: str, request: LegsRequest) -> Legs:
        return self._searcher.search(collection, request)

    def passages(
        self,
        collection: str,
        chunk_ids: Sequence[str],
        *,
        generation: str | None = None,
        windows: bool = False,
    ) -> dict[str, Passage]:
        with self._reading(collection, generation) as index:
            fields = [*_PASSAGE_FIELDS, *(["windows"] if windows else [])]
            found = records.get_many(self._client, index, chunk_ids, fields)
        return {chunk_id: _passage(item) for chunk_id, item in found.items()}

    def frequencies(
        self, collection: str, terms: Mapping[str, Sequence[str]], *, generation: str | None = None
    ) -> Frequencies:
        check_terms(terms)
        with self._reading(collection, generation) as index:
            return frequencies.read(self._client, index, terms)

    @contextmanager
    def _reading(self, collection: str, generation: str | None) -> Iterator[str]:
        """The index of a generation, or of the live one. Raises GenerationChanged where it is gone."""
        names = self._layouts.names(collection)
        index = names.chunks
        if generation is not None:
            index = names.index(generation if is_generation_id(generation) else FIRST)
        try:
            yield index
        except CollectionNotFound:
            live = self.live(collection, fresh=True)
            raise GenerationChanged(
                f"Generation {generation} of collection {collection!r} is gone; generation "
                f"{live.id} is live. Search again."
            ) from None

    def owned_chunks(self, collection: str) -> Iterator[OwnedChunk]:
        index = self._layouts.names(collection).index(self.live(collection).id)
        records.refresh(self._client, index)
        return owned_chunks(self._client, index)

    def holding(
        self,
        collection: str,
        phrases: Sequence[Sequence[str]],
        *,
        filter: Filter | None = None,  # noqa: A002 - the contract's name
    ) -> list[int]:
        check_holding(phrases, filter)
        return count_holding(self._client, self._layouts.names(collection).chunks, phrases, filter)

    def mark(self, collection: str) -> str:
        live = self.live(collection)
        index = self._layouts.names(collection).index(live.id)
        return f"{live.key} {live.created_at} {operations(self._client, index)}"

    def register_repository(self, name: str, location: str) -> None:
        """Make or change a repository of snapshots in a folder that ``path.repo`` of every node allows.

        Raises InvalidInput.
        """
        self._snapshots.register(name, location)

    def backup(self, collection: str, repository: str, snapshot: str) -> None:
        """Snapshot a collection: documents, notes and the live generation; returns when it is whole.

        Raises CollectionNotFound, InvalidInput, StoreUnavailable.
        """
        self._snapshots.backup(collection, repository, snapshot)

    def restore(self, collection: str, repository: str, snapshot: str) -> int:
        """Bring a collection back; how many documents were written while the snapshot was taken, and
        are pending now, so that their chunks have to be derived anew.

        Raises CollectionExists, InvalidInput, StoreUnavailable.
        """
        return self._snapshots.restore(collection, repository, snapshot)

    def snapshots(self, repository: str) -> list[Snapshot]:
        """What a repository holds. Raises InvalidInput."""
        return self._snapshots.all(repository)

    def refresh(self, collection: str) -> None:
        names = self._layouts.names(collection)
        records.refresh(self._client, names.documents, names.chunks)

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


def _passage(item: Mapping[str, Any]) -> Passage:
    source = item["_source"]
    return Passage(
        chunk=chunk_of(item),
        title=source["title"],
        source=source["source"],
        metadata=records.metadata_from(source["metadata"]),
        revision=source["revision"],
        windows=unpack_sound(windows_in(item)),
    )
