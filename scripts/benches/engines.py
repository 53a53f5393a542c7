"""Lexical engines behind one contract: the product's BM25 and what it is compared with."""

import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import tantivy

from benches.shared import folder_bytes
from benches.terms import Terms
from server.errors import StoreUnavailable
from server.evaluation.runs import DEPTH
from server.retrieval.query import SearchQuery
from server.retrieval.searcher import Searcher

Documents = Sequence[tuple[str, str]]  # id, text

_BULK = 500  # documents of one call


class Engine(Protocol):
    def search(self, query: str) -> list[str]:
        """Ids of the best DEPTH documents, the best first."""


class Reference(Engine, Protocol):
    """Made empty, in a folder that is not there yet or an index of its own."""

    def add(self, documents: Documents) -> None:
        """Index all of them, once, and let searches see them."""

    def bytes(self) -> int:
        """What the index takes on disk."""

    def close(self) -> None:
        """Give up what it holds."""


class Ours:
    """A search of the product, whole: terms, BM25, and the passages of what was found."""

    def __init__(self, searcher: Searcher, collection: str) -> None:
        self._searcher = searcher
        self._collection = collection

    def search(self, query: str) -> list[str]:
        found = self._searcher.search(
            SearchQuery(
                query=query,
                collection=self._collection,
                mode="bm25",
                size=DEPTH,
                rerank=False,
                group=True,
                highlight=False,
            ),
            groups=None,
        )
        return [hit.document_id for hit in found.hits]


class Tantivy:
    """Lucene's BM25 (k1 1.2, b .75) over given terms."""

    def __init__(self, folder: Path, terms: Terms) -> None:
        folder.mkdir()
        builder = tantivy.SchemaBuilder()
        builder.add_text_field("text", tokenizer_name="terms", index_option="freq")
        builder.add_unsigned_field("number", fast=True)
        self._schema = builder.build()
        self._index = tantivy.Index(self._schema, path=str(folder))
        analyzer = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build()
        self._index.register_tokenizer("terms", analyzer)
        self._folder = folder
        self._terms = terms
        self._ids: list[str] = []

    def add(self, documents: Documents) -> None:
        writer = self._index.writer(64_000_000, 1)
        for number, (document_id, text) in enumerate(documents):
            self._ids.append(document_id)
            document = tantivy.Document()
            document.add_unsigned("number", number)
            document.add_text("text", " ".join(self._terms(text)))
            writer.add_document(document)
        writer.commit()
        writer.wait_merging_threads()
        self._index.reload()
        self._searcher = self._index.searcher()

    def search(self, query: str) -> list[str]:
        each = [
            (tantivy.Occur.Should, tantivy.Query.term_query(self._schema, "text", term, "freq"))
            for term in self._terms(query)
        ]
        if not each:
            return []
        hits = self._searcher.search(tantivy.Query.boolean_query(each), limit=DEPTH).hits
        numbers = self._searcher.fast_field_values("number", [address for _, address in hits])
        return [self._ids[int(number)] for number in numbers]

    def bytes(self) -> int:
        return folder_bytes(self._folder)

    def close(self) -> None:
        pass


class Fts5:
    """SQLite's FTS5 with its own BM25; a query is the OR of its terms, each quoted.

    A query without terms (for ``trigram``: shorter than three characters) gives the documents that hold
    it, by LIKE and in the order of indexing: FTS5 has no rank for it.
    """

    def __init__(self, folder: Path, tokenizer: str, terms: Terms) -> None:
        folder.mkdir()
        self._terms = terms
        self._folder = folder
        self._database = sqlite3.connect(folder / "fts5.sqlite")
        self._database.execute(
            f"CREATE VIRTUAL TABLE texts USING fts5(id UNINDEXED, text, tokenize = '{tokenizer}')"
        )

    def add(self, documents: Documents) -> None:
        with self._database:
            self._database.executemany("INSERT INTO texts VALUES (?, ?)", documents)
        self._database.execute("INSERT INTO texts (texts) VALUES ('optimize')")
        self._database.commit()

    def search(self, query: str) -> list[str]:
        quoted = ['"{}"'.format(term.replace('"', '""')) for term in self._terms(query)]
        if quoted:
            found = self._database.execute(
                "SELECT id FROM texts WHERE text MATCH ? ORDER BY rank LIMIT ?",
                (" OR ".join(quoted), DEPTH),
            )
        else:
            pattern = re.sub(r"([\\%_])", r"\\\1", query)
            found = self._database.execute(
                "SELECT id FROM texts WHERE text LIKE ? ESCAPE '\\' ORDER BY rowid LIMIT ?",
                (f"%{pattern}%", DEPTH),
            )
        return [row[0] for row in found]

    def bytes(self) -> int:
        return folder_bytes(self._folder)

    def close(self) -> None:
        self._database.close()


class ElasticsearchIndex:
    """An index of Elasticsearch with one text field, and a ``match`` query; its text is not kept.

    ``terms``: makes the terms outside, joined by blanks; None: the server's analyzer does.
    """

    def __init__(self, client: Any, index: str, analyzer: str, terms: Terms | None = None) -> None:
        self._client = client
        self._index = index
        self._terms = terms or (lambda text: [text])
        client.indices.create(
            index=index,
            settings={"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "-1"},
            mappings={
                "dynamic": "strict",
                "_source": {"enabled": False},
                "properties": {"text": {"type": "text", "analyzer": analyzer}},
            },
        )

    def add(self, documents: Documents) -> None:
        for start in range(0, len(documents), _BULK):
            lines: list[dict[str, Any]] = []
            for document_id, text in documents[start : start + _BULK]:
                lines += [{"index": {"_id": document_id}}, {"text": " ".join(self._terms(text))}]
            answer = self._client.bulk(index=self._index, operations=lines)
            if answer["errors"]:
                failed = [item["index"] for item in answer["items"] if "error" in item["index"]]
                raise StoreUnavailable(f"Elasticsearch refused a document: {failed[0]['error']}")
        self._client.indices.refresh(index=self._index)

    def search(self, query: str) -> list[str]:
        match = {"match": {"text": " ".join(self._terms(query))}}
        answer = self._client.search(index=self._index, query=match, size=DEPTH)
        return [hit["_id"] for hit in answer["hits"]["hits"]]

    def bytes(self) -> int:
        self._client.indices.flush(index=self._index, wait_if_ongoing=True)
        stats = self._client.indices.stats(index=self._index, metric="store")
        return int(stats["indices"][self._index]["primaries"]["store"]["size_in_bytes"])

    def close(self) -> None:
        self._client.indices.delete(index=self._index)
