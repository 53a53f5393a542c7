"""tantivy: BM25 over one generation's chunks, derived from the database.

tantivy's BM25 is Lucene's with k1 1.2 and b 0.75, times k1 + 1, which Lucene left out in version 8.
Like Lucene it counts documents that are deleted but not yet merged away. Unlike Lucene it counts, for a
field, all chunks and not only those that have a term in it (DECISIONS.md).
"""

import errno
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from server.documents import TEXT_FIELDS
from server.stores.contract import Frequencies, TextClause
from server.stores.embedded.filters import LABELS_FIELD, label_terms
from server.stores.filters import ALWAYS

if TYPE_CHECKING:
    import tantivy

_PHRASE_FIELDS = ("bigrams", "title_bigrams")
_LUCENE = 1 / 2.2
_ID = "chunk"
_WRITER_BYTES = 64_000_000
_MARGIN = 64  # hits fetched past k, so that ties at the cut can be ordered
_MOST = 40_000
_PAGE = 10_000  # chunks listed at once


class TextIndexDamaged(Exception):
    """The folder can't be read or written; make a new one from the database."""


@dataclass(frozen=True, slots=True)
class TextEntry:
    """What the index takes of a chunk. ``terms``: TEXT_FIELDS → terms joined by blanks."""

    chunk: int
    terms: Mapping[str, str]
    labels: Sequence[tuple[str, str]]


@contextmanager
def _damage_named() -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeEncodeError):
        raise  # the disk (full, read-only, no permission), or a text that is no Unicode
    except (ValueError, RuntimeError) as error:
        if "StorageFull" in str(error) or "No space left" in str(error):
            raise OSError(errno.ENOSPC, f"the text index: {error}") from error
        raise TextIndexDamaged(str(error)) from error
    except BaseException as error:
        # A panic of the library's comes as a class of its own that can't be imported.
        if type(error).__module__ != "pyo3_runtime":
            raise
        raise TextIndexDamaged(str(error)) from error


class TextIndex:
    """One folder. Searching is thread-safe; ``apply`` needs the write lock."""

    def __init__(self, folder: Path) -> None:
        """Open what ``create`` made. Raises TextIndexDamaged."""
        import tantivy  # noqa: PLC0415 - loaded with the store only

        with _damage_named():
            if not (folder.is_dir() and tantivy.Index.exists(str(folder))):
                raise TextIndexDamaged(f"{folder} holds no text index.")
            self._index = self._opened(folder)
            self._searcher = self._index.searcher()
        self._reloading = threading.Lock()
        self._sequence = -1

    @classmethod
    def create(cls, folder: Path) -> "TextIndex":
        """Make an empty index."""
        folder.mkdir(parents=True)
        with _damage_named():
            cls._opened(folder)
        return cls(folder)

    @staticmethod
    def _opened(folder: Path) -> "tantivy.Index":
        import tantivy  # noqa: PLC0415

        builder = tantivy.SchemaBuilder()
        for field in TEXT_FIELDS:
            builder.add_text_field(field, tokenizer_name="terms", index_option="freq")
        builder.add_text_field(LABELS_FIELD, tokenizer_name="label", index_option="basic")
        builder.add_unsigned_field(_ID, indexed=True, fast=True)
        index = tantivy.Index(builder.build(), path=str(folder))
        for name, tokenizer in (
            ("terms", tantivy.Tokenizer.whitespace()),  # splits on ASCII white space alone
            ("label", tantivy.Tokenizer.raw()),
        ):
            index.register_tokenizer(name, tantivy.TextAnalyzerBuilder(tokenizer).build())
        index.config_reader("manual")
        return index

    @property
    def schema(self) -> "tantivy.Schema":
        return self._index.schema

    @property
    def chunks(self) -> int:
        """How many the index shows."""
        return int(self._searcher.num_docs)

    def apply(self, after: int, removed: Iterable[int], added: Iterable[TextEntry]) -> None:
        """Remove and add chunks in one commit; doing it again changes nothing.

        ``added``: every chunk with a number above ``after``.
        """
        import tantivy  # noqa: PLC0415

        query = tantivy.Query
        with _damage_named():
            writer = self._index.writer(_WRITER_BYTES, 1)
            try:
                # By query, for delete_documents_by_term finds nothing in a field of numbers.
                gone = list(removed)
                if gone:
                    writer.delete_documents_by_query(query.term_set_query(self.schema, _ID, gone))
                writer.delete_documents_by_query(
                    query.range_query(
                        self.schema, _ID, tantivy.FieldType.Unsigned, after, include_lower=False
                    )
                )
                for entry in added:
                    document = tantivy.Document()
                    document.add_unsigned(_ID, entry.chunk)
                    for field, terms in entry.terms.items():
                        document.add_text(field, terms)
                    for label in label_terms(entry.labels):
                        document.add_text(LABELS_FIELD, label)
                    writer.add_document(document)
                writer.commit()
            finally:
                # Ends the writer, which frees its lock; merges that were begun are finished, else
                # they would be begun in vain at every write.
                writer.wait_merging_threads()

    def show(self, sequence: int) -> None:
        """Let searches see what was committed up to ``sequence``."""
        if sequence == self._sequence:
            return
        with self._reloading, _damage_named():
            if sequence > self._sequence:
                self._index.reload()
                self._searcher = self._index.searcher()
                self._sequence = sequence

    def search(
        self,
        clauses: Sequence[TextClause],
        condition: "tantivy.Query | None",
        k: int,
        names: Callable[[list[int]], dict[int, str]],
        *,
        holding: Sequence[str] = (),
    ) -> tuple[list[tuple[str, float]], int]:
        """((chunk id, score) by falling score and then chunk id, how many match).

        ``names`` gives the chunk ids of chunk numbers; a hit without one is left out. ``holding``: as
        in LegsRequest.
        """
        query = self._query(clauses, condition, holding)
        if query is None:
            return [], 0
        with _damage_named():
            searcher = self._searcher
            limit = k + _MARGIN
            while True:
                found = searcher.search(query, limit=limit)
                hits = found.hits
                if len(hits) < limit or hits[k - 1][0] > hits[-1][0] or limit >= _MOST:
                    break
                limit = min(limit * 8, _MOST)  # more of the hits that tie at the cut
            places = [address for _, address in hits]
            chunks = [int(chunk or 0) for chunk in searcher.fast_field_values(_ID, places)]
        named = names(chunks)
        ranked = [
            (named[chunk], score * _LUCENE)
            for chunk, (score, _) in zip(chunks, hits, strict=True)
            if chunk in named
        ]
        ranked.sort(key=lambda hit: (-hit[1], hit[0]))
        return ranked[:k], int(found.count)  # type: ignore[attr-defined]

    def frequencies(self, terms: Mapping[str, Sequence[str]]) -> Frequencies:
        """As BM25 counts them; the number of all chunks must count deleted ones too, as theirs do."""
        searcher = self._searcher
        with _damage_named():
            return Frequencies(
                chunks=searcher.doc_freq(LABELS_FIELD, ALWAYS),
                of={
                    field: {term: searcher.doc_freq(field, term) for term in found}
                    for field, found in terms.items()
                },
            )

    def containing(self, terms: Sequence[str]) -> Iterator[list[int]]:
        """Pages of ascending numbers of the chunks whose bigrams, or whose title's, hold every term."""
        return self._pages(self._holding(terms)) if terms else iter(())

    def count_holding(
        self,
        phrases: Sequence[Sequence[str]],
        condition: "tantivy.Query | None",
    ) -> list[int]:
        """For each phrase, how many chunks that meet the condition hold every term, each in their
        bigrams or their title's; 0 for a phrase without terms."""
        import tantivy  # noqa: PLC0415

        query, occur = tantivy.Query, tantivy.Occur
        counts = []
        for terms in phrases:
            wanted = [] if condition is None else [(occur.Must, condition)]
            wanted += self._each_of(terms)
            with _damage_named():
                found = self._searcher.search(query.boolean_query(wanted), limit=1)
            counts.append(int(found.count) if terms else 0)  # type: ignore[attr-defined]
        return counts

    def _each_of(self, terms: Sequence[str]) -> "list[tuple[tantivy.Occur, tantivy.Query]]":
        """Conditions that hold for chunks that have every term in their bigrams or their title's."""
        import tantivy  # noqa: PLC0415

        query, occur = tantivy.Query, tantivy.Occur
        return [
            (
                occur.Must,
                query.boolean_query(
                    [
                        (occur.Should, query.term_query(self.schema, field, term, "basic"))
                        for field in _PHRASE_FIELDS
                    ]
                ),
            )
            for term in dict.fromkeys(terms)
        ]

    def _holding(self, terms: Sequence[str]) -> "tantivy.Query":
        """Chunks whose bigrams, or whose title's, hold every term."""
        import tantivy  # noqa: PLC0415

        query, occur = tantivy.Query, tantivy.Occur
        either = []
        for field in _PHRASE_FIELDS:
            found = [
                (occur.Must, query.term_query(self.schema, field, term, "basic"))
                for term in dict.fromkeys(terms)
            ]
            either.append((occur.Should, query.boolean_query(found)))
        return query.boolean_query(either)

    def numbers(self) -> Iterator[list[int]]:
        """Pages of the numbers of all chunks, ascending; one that stands twice comes twice."""
        import tantivy  # noqa: PLC0415

        return self._pages(tantivy.Query.all_query())

    def _pages(self, wanted: "tantivy.Query") -> Iterator[list[int]]:
        """Numbers of all that match, of what the index shows when this begins."""
        import tantivy  # noqa: PLC0415

        query, must = tantivy.Query, tantivy.Occur.Must
        searcher, after = self._searcher, 0
        while True:
            above = query.range_query(
                self.schema, _ID, tantivy.FieldType.Unsigned, after, include_lower=False
            )
            with _damage_named():
                hits = searcher.search(
                    query.boolean_query([(must, wanted), (must, above)]),
                    limit=_PAGE,
                    count=False,
                    order_by_field=_ID,
                    order=tantivy.Order.Asc,
                ).hits
            if not hits:
                return
            yield [int(number) for number, _ in hits]
            after = int(hits[-1][0])

    def _query(
        self,
        clauses: Sequence[TextClause],
        condition: "tantivy.Query | None",
        holding: Sequence[str],
    ) -> "tantivy.Query | None":
        import tantivy  # noqa: PLC0415

        weights: dict[tuple[str, str], float] = {}
        for clause in clauses:
            for term in clause.terms:
                key = (clause.field, term)
                weights[key] = weights.get(key, 0.0) + clause.weight
        if not weights:
            return None
        query, occur = tantivy.Query, tantivy.Occur
        wanted = query.boolean_query(
            [
                (
                    occur.Should,
                    query.boost_query(query.term_query(self.schema, field, term, "freq"), weight),
                )
                for (field, term), weight in weights.items()
            ]
        )
        conditions = self._each_of(holding)
        if condition is not None:
            conditions.append((occur.Must, condition))
        if not conditions:
            return wanted
        unscored = query.const_score_query(query.boolean_query(conditions), 0.0)
        return query.boolean_query([(occur.Must, wanted), (occur.Must, unscored)])
