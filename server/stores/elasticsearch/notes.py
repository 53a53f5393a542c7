"""The notes of collections on Elasticsearch."""

from collections.abc import Mapping
from typing import Any

from server.stores.elasticsearch import note_records
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.layout import Layouts
from server.stores.notes import Note


class ElasticsearchNotes:
    """See ``server.stores.notes.Notes``."""

    def __init__(self, client: Client, layouts: Layouts) -> None:
        self._client = client
        self._layouts = layouts

    def get(self, collection: str, key: str) -> Note | None:
        return note_records.get(self._client, self._layouts.names(collection), key)

    def under(self, collection: str, prefix: str) -> dict[str, Note]:
        return note_records.under(self._client, self._layouts.names(collection), prefix)

    def put(
        self, collection: str, key: str, value: Mapping[str, Any], *, expected: int | None = None
    ) -> Note:
        names = self._layouts.names(collection)
        return note_records.put(self._client, names, key, value, expected=expected)

    def delete(self, collection: str, key: str, *, expected: int | None = None) -> bool:
        names = self._layouts.names(collection)
        return note_records.delete(self._client, names, key, expected=expected)
