"""Trial: how well a model ranks the collection for questions that it was not trained on."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from server.documents import document_id_of
from server.evaluation.replay import gain
from server.evaluation.significance import ALPHA, Paired, paired
from server.finetuning.corpus import Corpus
from server.finetuning.questions import Question
from server.models.contract import Embedder, Reranker

DEPTH = 10  # nDCG@10
CANDIDATES = 50  # passages of a question that a reranker orders
_BATCH = 256

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Mean nDCG@10 of the held-out questions ``before`` and ``after``, compared question by question."""

    before: float
    after: float
    compared: Paired

    @property
    def is_sure(self) -> bool:
        """Better by more than chance would make."""
        return self.compared.difference > 0 and self.compared.p < ALPHA


def compare(before: Sequence[float], after: Sequence[float]) -> Gain:
    return Gain(
        before=float(np.mean(before)),
        after=float(np.mean(after)),
        compared=paired(after, before),
    )


def pool(corpus: Corpus, held_out: Sequence[Question], *, size: int, seed: int) -> list[str]:
    """Chunk ids that questions are ranked over: those of the answers, and others up to ``size``."""
    answers = {key for question in held_out for key in question.grades}
    chosen = [each for key in sorted(answers) for each in corpus.by_document[key]]
    others = [each for each in corpus.pieces if document_id_of(each) not in answers]
    room = max(0, size - len(chosen))
    if len(others) > room:
        others = random.Random(seed).sample(others, room)  # noqa: S311 - nothing to guess
    return chosen + others


def measure_embedder(
    embedder: Embedder,
    corpus: Corpus,
    chunk_ids: Sequence[str],
    held_out: Sequence[Question],
    progress: Progress,
) -> list[float]:
    """nDCG@10 of each question over the documents of these chunks, by cosine, as the kNN leg ranks.

    Raises EmbedderUnavailable, also for a model whose vectors are no numbers.
    """
    bare = all(question.is_title for question in held_out)
    rows = []
    for at in range(0, len(chunk_ids), _BATCH):
        some = chunk_ids[at : at + _BATCH]
        texts = [corpus.pieces[each].read(bare=bare) for each in some]
        rows.append(embedder.embed_documents(texts))
        progress(at + len(some), len(chunk_ids))
    vectors = np.concatenate(rows)
    values = []
    for question in held_out:
        cosines = vectors @ embedder.embed_query(question.text)
        order = [chunk_ids[place] for place in np.argsort(-cosines, kind="stable")]
        values.append(_value(order, question))
    return values


def measure_reranker(
    reranker: Reranker,
    corpus: Corpus,
    candidates: Mapping[str, Sequence[str]],
    held_out: Sequence[Question],
    progress: Progress,
) -> list[float]:
    """nDCG@10 of each question (``candidates``: by its text, in fused order) after reranking.

    Raises RerankerUnavailable.
    """
    values = []
    for number, question in enumerate(held_out, 1):
        own = candidates[question.text]
        texts = [corpus.pieces[each].read(bare=question.is_title) for each in own]
        scores = reranker.score(question.text, texts)
        order = sorted(range(len(own)), key=lambda place: -scores[place])
        values.append(_value([own[place] for place in order], question))
        progress(number, len(held_out))
    return values


def measure_order(orders: Mapping[str, Sequence[str]], held_out: Sequence[Question]) -> list[float]:
    """nDCG@10 of chunks as they are ordered, by the question's text."""
    return [_value(orders[question.text], question) for question in held_out]


def _value(order: Sequence[str], question: Question) -> float:
    documents = list(dict.fromkeys(document_id_of(chunk_id) for chunk_id in order))
    return gain(documents, question.grades, DEPTH)
