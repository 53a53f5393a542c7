"""The rows of one Milvus collection: its schema, and what is asked of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from server.documents import Vector
from server.stores.embedded.filters import LABELS_FIELD
from server.stores.milvus.connection import CHANGE_SECONDS, SEARCH_SECONDS, Connection
from server.stores.milvus.expressions import MOST_LABELS, stored

if TYPE_CHECKING:
    from pymilvus import CollectionSchema

INDEX = "FLAT IP"
_BATCH_BYTES = 8 * 1024 * 1024  # a server takes 64 MB
_TOKEN = 16


@dataclass(frozen=True, slots=True)
class Row:
    chunk: int
    version: int
    tokens: Sequence[str]
    vector: Vector


class Rows:
    """Thread-safe, but for one that changes them. Raises as ``Connection.ask``.

    ``lite``: Milvus Lite, which keeps what is not flushed in a form that is slow to search, and for
    which labels are a text (``expressions``).
    """

    def __init__(self, connection: Connection, name: str, *, dimensions: int, lite: bool) -> None:
        self._connection = connection
        self._name = name
        self._dimensions = dimensions
        self._lite = lite

    def create(self) -> None:
        from pymilvus import MilvusClient  # noqa: PLC0415

        parameters = (
            None  # Milvus Lite passes over all vectors by itself, and knows no other indexes
        )
        if not self._lite:
            parameters = MilvusClient.prepare_index_params()
            kind, metric = INDEX.split()
            parameters.add_index("vector", index_type=kind, metric_type=metric)
            parameters.add_index(LABELS_FIELD, index_type="INVERTED")
        self._connection.ask(
            lambda client: client.create_collection(
                self._name,
                schema=self._schema(),
                index_params=parameters,
                consistency_level="Strong",
                timeout=CHANGE_SECONDS,
            )
        )

    def load(self) -> int:
        """Make ready for searches; how many rows there are. Raises Lost."""

        def count(client: Any) -> int:
            client.load_collection(self._name, timeout=CHANGE_SECONDS)
            [found] = client.query(
                self._name,
                filter="",
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=CHANGE_SECONDS,
            )
            return int(found["count(*)"])

        return self._connection.ask(count)

    def search(self, vector: Vector, where: str, limit: int) -> list[tuple[int, float]]:
        """(chunk number, cosine) by falling cosine."""
        [hits] = self._connection.ask(
            lambda client: client.search(
                self._name,
                data=[vector],
                filter=where,
                limit=limit,
                anns_field="vector",
                output_fields=[],
                search_params={"metric_type": INDEX.split()[1]},
                consistency_level="Strong",
                timeout=SEARCH_SECONDS,
            )
        )
        return [(int(chunk), float(at)) for chunk, at in zip(hits.ids, hits.distances, strict=True)]

    def insert(self, rows: Sequence[Row]) -> None:
        for batch in self._batches(rows):
            self._connection.ask(
                lambda client, batch=batch: client.insert(  # type: ignore[misc]
                    self._name, batch, timeout=CHANGE_SECONDS
                )
            )

    def delete(self, chunks: Sequence[int]) -> None:
        for start in range(0, len(chunks), 1_000):
            some = list(chunks[start : start + 1_000])
            self._connection.ask(
                lambda client, some=some: client.delete(  # type: ignore[misc]
                    self._name, ids=some, timeout=CHANGE_SECONDS
                )
            )

    def delete_above(self, chunk: int) -> None:
        self._connection.ask(
            lambda client: client.delete(
                self._name, filter=f"chunk > {chunk}", timeout=CHANGE_SECONDS
            )
        )

    def flush(self) -> None:
        self._connection.ask(lambda client: client.flush(self._name, timeout=CHANGE_SECONDS))

    def drop(self) -> None:
        self._connection.ask(
            lambda client: client.drop_collection(self._name, timeout=CHANGE_SECONDS)
        )

    def _schema(self) -> "CollectionSchema":
        from pymilvus import DataType, MilvusClient  # noqa: PLC0415

        schema = MilvusClient.create_schema(auto_id=False)
        schema.add_field("chunk", DataType.INT64, is_primary=True)
        schema.add_field("version", DataType.INT64)
        if self._lite:
            schema.add_field(LABELS_FIELD, DataType.VARCHAR, max_length=65_535)
        else:
            schema.add_field(
                LABELS_FIELD,
                DataType.ARRAY,
                element_type=DataType.VARCHAR,
                max_capacity=MOST_LABELS,
                max_length=_TOKEN,
            )
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self._dimensions)
        return schema

    def _batches(self, rows: Sequence[Row]) -> Iterator[list[dict[str, Any]]]:
        batch: list[dict[str, Any]] = []
        size = 0
        for row in rows:
            batch.append(
                {
                    "chunk": row.chunk,
                    "version": row.version,
                    LABELS_FIELD: stored(row.tokens, array=not self._lite),
                    "vector": row.vector,
                }
            )
            size += row.vector.nbytes + (_TOKEN + 4) * len(row.tokens)
            if size > _BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch
