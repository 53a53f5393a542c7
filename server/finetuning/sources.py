"""Where questions come from without a language model: feedback, judged queries, titles and headings."""

from collections.abc import Iterator, Mapping

from server.finetuning.corpus import Corpus
from server.finetuning.questions import Question, Source

PER_DOCUMENT = 8  # title questions of one document, spread over it
_LEAST_CHARS = 4  # of a title that asks for something
_MOST_CHARS = 100
_LEAST_PASSAGE = 20


def judged(
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    corpus: Corpus,
    *,
    source: Source,
) -> Iterator[Question]:
    """Queries with judgements of documents; what the collection does not hold is left out."""
    for query_id, text in queries.items():
        grades = {
            document_id: max(0, grade)
            for document_id, grade in qrels[query_id].items()
            if document_id in corpus.by_document
        }
        if text.strip() and any(grades.values()):
            yield Question(text=text.strip(), source=source, grades=grades)


def titles(corpus: Corpus) -> Iterator[Question]:
    """A document's title, with the passage's innermost heading where it has one, asks for the passage."""
    for document_id, chunk_ids in corpus.by_document.items():
        step = max(1, len(chunk_ids) / PER_DOCUMENT)
        spread = [chunk_ids[int(at * step)] for at in range(min(len(chunk_ids), PER_DOCUMENT))]
        for chunk_id in dict.fromkeys(spread):
            piece = corpus.pieces[chunk_id]
            inner = piece.chunk.headings[-1:] if piece.chunk.headings else ()
            words = dict.fromkeys(part.strip() for part in (piece.title, *inner) if part.strip())
            text = " ".join(words)[:_MOST_CHARS]
            if len(text) >= _LEAST_CHARS and len(piece.bare) >= _LEAST_PASSAGE:
                yield Question(
                    text=text, source="titles", grades={document_id: 1}, passages=(chunk_id,)
                )
