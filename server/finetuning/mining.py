"""Mining: from questions to examples, with hard negatives that the collection's own search finds."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from server.errors import InvalidInput
from server.finetuning.corpus import Corpus, bigrams, is_near
from server.finetuning.questions import Question
from server.finetuning.split import Split
from server.retrieval.query import MAX_QUERY_CHARS, SearchQuery
from server.retrieval.searcher import Searcher
from server.stores.filters import Filter, Terms

DEPTH = 30  # usable candidates below the answer, of which negatives are drawn
POSITIVES = 8  # passages of one question
_UNFOUND = 10  # candidates passed over where search does not find the answer at all

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A question as text, a passage that answers it and some that don't, all as the model reads them."""

    query: str
    positive: str
    negatives: tuple[str, ...]


def ranked(
    searcher: Searcher, collection: str, text: str, *, only: Filter | None = None
) -> list[str]:
    """Chunk ids as hybrid search fuses them, before any reranker. Raises what a search raises."""
    trace = searcher.trace(
        SearchQuery(
            query=text,
            collection=collection,
            size=1,
            filter=only,
            rerank=False,
            highlight=False,
        ),
        groups=None,
    )
    *_, last = trace.lists.values()
    return [chunk_id for chunk_id, _ in last]


class Miner:
    """``negatives``: of each example. The same seed and collection give the same examples."""

    def __init__(
        self,
        searcher: Searcher,
        collection: str,
        corpus: Corpus,
        split: Split,
        *,
        negatives: int,
        seed: int,
    ) -> None:
        self._searcher = searcher
        self._collection = collection
        self._corpus = corpus
        self._split = split
        self._negatives = negatives
        self._random = random.Random(seed)  # noqa: S311 - nothing to guess
        self._usable = [each for each in corpus.pieces if split.may_train_on(each, corpus)]

    def examples(self, questions: Sequence[Question], progress: Progress) -> list[Example]:
        """Up to POSITIVES of each question; raises InvalidInput where there is none at all."""
        made: list[Example] = []
        for number, question in enumerate(questions, 1):
            made += self._examples(question)
            progress(number, len(questions))
        if not made:
            raise InvalidInput("No passage is left to train on; hold out a smaller share.")
        self._random.shuffle(made)
        return made

    def _examples(self, question: Question) -> list[Example]:
        pieces = self._corpus.pieces
        text = question.text[:MAX_QUERY_CHARS]
        order = [each for each in ranked(self._searcher, self._collection, text) if each in pieces]
        positives = list(question.passages or self._answers(question, order))[:POSITIVES]
        positives = [each for each in positives if self._split.may_train_on(each, self._corpus)]
        negatives = self._wrong(question, order, positives)
        if not positives or len(negatives) < self._negatives:
            return []
        bare = question.is_title
        return [
            Example(
                query=text,
                positive=pieces[each].read(bare=bare),
                negatives=tuple(pieces[wrong].read(bare=bare) for wrong in negatives),
            )
            for each in positives
        ]

    def _answers(self, question: Question, order: Sequence[str]) -> list[str]:
        """The passage of each document that answers, which search takes for the best of it."""
        best = []
        for document_id in question.relevant:
            own = set(self._corpus.by_document[document_id])
            found = [each for each in order if each in own]
            if not found and len(own) > 1:
                only = Terms("document_id", (document_id,))
                searched = ranked(self._searcher, self._collection, question.text, only=only)
                found = [each for each in searched if each in own]
            best.append(found[0] if found else self._corpus.by_document[document_id][0])
        return best

    def _wrong(
        self, question: Question, order: Sequence[str], positives: Sequence[str]
    ) -> list[str]:
        """What was judged to be wrong first, then some of what search places below the answer: what it
        places above may answer as well, though nobody has judged it."""
        said_wrong = {key for key, grade in question.grades.items() if grade <= 0}
        places = [order.index(each) for each in positives if each in order]
        below = order[min(places) + 1 :] if places else order[_UNFOUND:]
        known = [each for each in order if self._document(each) in said_wrong]
        answers = [bigrams(self._corpus.pieces[each].chunk.text) for each in positives]
        judged = self._clear(known, question, answers, self._negatives)
        near = self._clear(below, question, answers, DEPTH)
        self._random.shuffle(near)
        if len({*judged, *near}) < self._negatives:
            some = self._random.sample(self._usable, min(len(self._usable), 4 * self._negatives))
            near += self._clear(some, question, answers, DEPTH)
        return list(dict.fromkeys([*judged, *near]))[: self._negatives]

    def _clear(
        self,
        candidates: Iterable[str],
        question: Question,
        answers: Sequence[frozenset[str]],
        most: int,
    ) -> list[str]:
        """Candidates that may be trained on and are no copy of an answer."""
        found: list[str] = []
        for chunk_id in candidates:
            if len(found) == most:
                break
            if question.grades.get(self._document(chunk_id), 0) > 0:
                continue
            if not self._split.may_train_on(chunk_id, self._corpus):
                continue
            own = bigrams(self._corpus.pieces[chunk_id].chunk.text)
            if not any(is_near(own, answer) for answer in answers):
                found.append(chunk_id)
        return found

    def _document(self, chunk_id: str) -> str:
        return self._corpus.pieces[chunk_id].chunk.document_id
