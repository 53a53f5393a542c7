"""Damage that no call of a store can do, planted in the files or the server behind it."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import elasticsearch
import numpy as np

from server.lifecycle.findings import Kind

HEADERS = {
    "accept": "application/vnd.elasticsearch+json; compatible-with=8",
    "content-type": "application/vnd.elasticsearch+json; compatible-with=8",
}

VERSION = "(SELECT version FROM documents WHERE document_id = :id)"
_CHUNK = f"(SELECT id FROM chunks WHERE version = {VERSION} AND position = :at)"


class EmbeddedDamage:
    """Of documents in a collection below a store's folder, by SQLite and tantivy themselves."""

    def __init__(self, folder: Path, collection: str = "handbook") -> None:
        [self.folder] = (folder / "collections").glob(f"{collection}.*")

    def plant(self, kind: Kind, document_id: str, position: int) -> None:
        if kind is Kind.STORE_DRIFT:
            self._lose_text(document_id, position)
            return
        statements = {
            Kind.WRONG_ACL: [
                f"UPDATE labels SET value = 'sothers' WHERE key = 'acl' AND version = {VERSION}"
            ],
            Kind.CHUNK_WITHOUT_DOCUMENT: ["DELETE FROM documents WHERE document_id = :id"],
            Kind.DOCUMENT_WITHOUT_CHUNKS: [
                f"DELETE FROM {table} WHERE chunk IN (SELECT id FROM chunks WHERE version = {VERSION})"
                for table in ("terms", "vectors", "windows", "sparse")
            ]
            + [f"DELETE FROM chunks WHERE version = {VERSION}"],
            Kind.MISSING_CHUNK: [
                f"DELETE FROM terms WHERE chunk = {_CHUNK}",
                f"DELETE FROM vectors WHERE chunk = {_CHUNK}",
                f"DELETE FROM chunks WHERE id = {_CHUNK}",
            ],
            Kind.SURPLUS_CHUNK: self._copy("99"),
            Kind.DUPLICATE_CHUNK: ["DROP INDEX chunks_by_version", *self._copy("position")],
            Kind.WRONG_TEXT: [f"UPDATE chunks SET text = 'else' WHERE id = {_CHUNK}"],
            Kind.UNCOVERED_TEXT: [
                f'UPDATE chunks SET "end" = start + 3, text = substr(text, 1, 3) WHERE id = {_CHUNK}'
            ],
            Kind.UNEXPECTED_VECTOR: [
                f"INSERT INTO vectors SELECT id, generation, version, x'{'00' * 64}' FROM chunks "
                f"WHERE id = {_CHUNK}"
            ],
            Kind.MISSING_VECTOR: [f"DELETE FROM vectors WHERE chunk = {_CHUNK}"],
            Kind.VECTOR_NOT_FINITE: [self._vector(np.full(16, np.nan))],
            Kind.WRONG_DIMENSIONS: [self._vector(np.full(9, 1 / 3))],
            Kind.WRONG_LENGTH: [self._vector(np.zeros(16))],
            Kind.MISSING_WINDOWS: [f"DELETE FROM windows WHERE chunk = {_CHUNK}"],
            Kind.WRONG_WINDOWS: [
                f"UPDATE windows SET windows = substr(windows, 1, 20) WHERE chunk = {_CHUNK}"
            ],
            Kind.MISSING_SPARSE: [f"DELETE FROM sparse WHERE chunk = {_CHUNK}"],
            Kind.WRONG_SPARSE: [
                f"UPDATE sparse SET weights = substr(weights, 1, 16) WHERE chunk = {_CHUNK}"
            ],
            Kind.WRONG_COPY: [
                f"UPDATE labels SET value = 's1999' WHERE key = 'year' AND version = {VERSION}"
            ],
            Kind.NOT_LEVEL: [f"DELETE FROM derivations WHERE version = {VERSION}"],
        }[kind]
        for statement in statements:
            self.execute(statement, document_id, position)

    def execute(self, statement: str, document_id: str, position: int = 0) -> None:
        """A statement over :id and :at, with foreign keys off."""
        with closing(sqlite3.connect(self.folder / "collection.db", timeout=30)) as connection:
            connection.execute(statement, {"id": document_id, "at": position})
            connection.commit()

    def _copy(self, position: str) -> list[str]:
        """A second row of the chunk, with a number that no other has."""
        number = "(SELECT sequence FROM state)"
        return [
            "UPDATE state SET sequence = sequence + 1",
            f"INSERT INTO chunks SELECT {number}, generation, version, {position}, start, "
            f'"end", headings, text FROM chunks WHERE id = {_CHUNK}',
            f"INSERT INTO terms SELECT {number}, terms FROM terms WHERE chunk = "
            f"(SELECT min(id) FROM chunks WHERE version = {VERSION} AND position = :at)",
            f"INSERT INTO vectors SELECT {number}, generation, version, vector FROM vectors "
            f"WHERE chunk = (SELECT min(id) FROM chunks WHERE version = {VERSION} AND position = :at)",
        ]

    def _vector(self, vector: "np.ndarray[Any, Any]") -> str:
        packed = vector.astype("<f4").tobytes().hex()
        return f"UPDATE vectors SET vector = x'{packed}' WHERE chunk = {_CHUNK}"

    def _lose_text(self, document_id: str, position: int) -> None:
        """Take a chunk out of the text index, which still counts one more than it has."""
        import tantivy

        with closing(sqlite3.connect(self.folder / "collection.db")) as connection:
            [number] = connection.execute(
                f"SELECT {_CHUNK}", {"id": document_id, "at": position}
            ).fetchone()
            [text] = connection.execute(
                "SELECT text_folder FROM generations JOIN state ON generations.id = generation"
            ).fetchone()
        index = tantivy.Index.open(str(self.folder / text))
        writer = index.writer()
        # By query, for delete_documents_by_term finds nothing in a field of numbers.
        wanted = tantivy.Query.term_set_query(index.schema, "chunk", [number])
        writer.delete_documents_by_query(wanted)
        writer.commit()
        writer.wait_merging_threads()


class ElasticsearchDamage:
    """Of documents in one collection, by the server's own calls."""

    def __init__(self, url: str, prefix: str, collection: str = "handbook") -> None:
        self._url = url
        self._documents = f"{prefix}.{collection}.documents"
        self._chunks = f"{prefix}.{collection}.chunks"

    @contextmanager
    def client(self) -> Iterator[elasticsearch.Elasticsearch]:
        with elasticsearch.Elasticsearch(self._url) as client:
            yield client.options(headers=HEADERS)

    def plant(self, kind: Kind, document_id: str, position: int) -> None:
        changes: dict[Kind, Callable[[dict[str, Any]], object]] = {
            Kind.WRONG_ACL: lambda chunk: chunk.update(
                labels=[label.replace("acl\x1fshr", "acl\x1fsothers") for label in chunk["labels"]]
            ),
            Kind.STALE_CHUNK: lambda chunk: chunk.update(revision=chunk["revision"] - 1),
            Kind.WRONG_TEXT: lambda chunk: chunk.update(text="else"),
            Kind.UNCOVERED_TEXT: lambda chunk: chunk.update(
                text=chunk["text"][:3], end=chunk["start"] + 3
            ),
            Kind.MISSING_VECTOR: lambda chunk: chunk.pop("vector"),
            Kind.MISSING_WINDOWS: lambda chunk: chunk.pop("windows"),
            Kind.WRONG_WINDOWS: lambda chunk: chunk.update(windows=chunk["windows"][:20]),
            Kind.MISSING_SPARSE: lambda chunk: chunk.pop("sparse_kept"),
            Kind.WRONG_SPARSE: lambda chunk: chunk.update(sparse_kept=chunk["sparse_kept"][:20]),
            Kind.WRONG_COPY: lambda chunk: chunk.update(title="Another", metadata={"year": "1999"}),
        }
        records: dict[Kind, dict[str, Any]] = {
            Kind.INCOMPLETE_WRITE: {"complete": False, "levels": []},
            Kind.NOT_LEVEL: {"levels": ["000999"]},
        }
        chunk_id = f"{document_id}:{position}"
        with self.client() as client:
            if kind in changes:
                self.change(client, chunk_id, changes[kind])
            elif kind in records:
                client.update(index=self._documents, id=document_id, doc=records[kind])
            elif kind is Kind.CHUNK_WITHOUT_DOCUMENT:
                client.delete(index=self._documents, id=document_id)
            elif kind is Kind.DOCUMENT_WITHOUT_CHUNKS:
                for number in range(50):
                    self.delete(client, f"{document_id}:{number}")
            elif kind is Kind.MISSING_CHUNK:
                self.delete(client, chunk_id)
            elif kind is Kind.SURPLUS_CHUNK:
                self.copy(client, chunk_id, f"{document_id}:99", position=99)
            elif kind is Kind.DUPLICATE_CHUNK:
                self.copy(client, chunk_id, "another")
            client.indices.refresh(index=[self._documents, self._chunks])

    def cut_off_delete(self, document_id: str) -> None:
        """The record of a delete that has not come to the chunks."""
        with self.client() as client:
            source = client.get(index=self._documents, id=document_id)["_source"]
            source.pop("document")
            source |= {"deleted": True, "complete": False, "levels": [], "chunks": 0}
            source |= {"revision": source["revision"] + 1}
            client.index(index=self._documents, id=document_id, document=source, refresh=True)

    def change(
        self,
        client: elasticsearch.Elasticsearch,
        chunk_id: str,
        change: Callable[[dict[str, Any]], object],
    ) -> None:
        """Rewrite a chunk under the version that it has; what is not in its source is lost."""
        index, version, source = self._read(client, chunk_id)
        change(source)
        self._put(client, index, chunk_id, source, version)

    def copy(
        self, client: elasticsearch.Elasticsearch, chunk_id: str, to: str, **changes: object
    ) -> None:
        index, version, source = self._read(client, chunk_id)
        self._put(client, index, to, source | changes, version)

    def _read(
        self, client: elasticsearch.Elasticsearch, chunk_id: str
    ) -> tuple[str, int, dict[str, Any]]:
        """Index, version and what the chunk holds, but for its terms, which nobody can read."""
        [hit] = client.search(
            index=self._chunks,
            query={"ids": {"values": [chunk_id]}},
            source_excludes=["vector"],
            fields=["vector"],
            docvalue_fields=["labels"],
            version=True,
        )["hits"]["hits"]
        return hit["_index"], hit["_version"], {**hit["_source"], **hit["fields"]}

    def delete(self, client: elasticsearch.Elasticsearch, chunk_id: str) -> None:
        found = client.options(ignore_status=404).get(index=self._chunks, id=chunk_id)
        if found.get("found"):
            client.delete(
                index=found["_index"],
                id=chunk_id,
                version=found["_version"],
                version_type="external_gte",
            )

    def _put(
        self,
        client: elasticsearch.Elasticsearch,
        index: str,
        chunk_id: str,
        source: dict[str, Any],
        version: int,
    ) -> None:
        client.index(
            index=index, id=chunk_id, document=source, version=version, version_type="external_gte"
        )
