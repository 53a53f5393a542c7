"""Split: questions to train on and questions to measure by, with no document on both sides."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from server.errors import InvalidInput
from server.finetuning.corpus import Corpus, digest
from server.finetuning.questions import Question

LEAST = 10  # held-out questions, below which nothing could be told


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """``documents``: those that answer held-out questions; nothing of them, nor a copy of their
    passages (``texts``: digests), is trained on. ``leaking``: training questions left out for that."""

    train: tuple[Question, ...]
    held_out: tuple[Question, ...]
    documents: frozenset[str]
    texts: frozenset[str]
    leaking: int = 0

    def may_train_on(self, chunk_id: str, corpus: Corpus) -> bool:
        chunk = corpus.pieces[chunk_id].chunk
        return chunk.document_id not in self.documents and digest(chunk.text) not in self.texts


def split(questions: Sequence[Question], corpus: Corpus, *, share: float, seed: int) -> Split:
    """Hold ``share`` of the questions out, with all documents that answer them.

    Titles are held out only where there are too few questions of people and of the language model.
    Questions with a common document stay together. Raises InvalidInput where too few are left to
    measure by, or to train on.
    """
    asked = [each for each in questions if not each.is_title]
    measured = asked if share * len(asked) >= LEAST else [q for q in questions if q.is_title]
    groups = _groups(questions)
    shuffled = sorted({groups[each.relevant[0]] for each in measured})
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - nothing to guess
    wanted = round(share * len(measured))
    held: set[str] = set()
    count = 0
    for group in shuffled:
        size = sum(groups[each.relevant[0]] == group for each in measured)
        # A group that is too large is trained on; one that is a little too large may still pass.
        if count < wanted and count + size <= wanted + max(1, wanted // 10):
            held.add(group)
            count += size
    out = tuple(each for each in measured if groups[each.relevant[0]] in held)
    documents = frozenset(key for each in out for key in each.relevant)
    texts = frozenset(corpus.digests(documents))
    rest = [each for each in questions if groups[each.relevant[0]] not in held]
    found = Split(train=(), held_out=out, documents=documents, texts=texts)
    train = []
    for question in rest:
        kept = tuple(each for each in question.passages if found.may_train_on(each, corpus))
        if kept or not question.passages:
            train.append(replace(question, passages=kept))
    if len(out) < LEAST or not train:
        raise InvalidInput(
            f"{len(out)} questions could be held out and {len(train)} trained on, of "
            f"{len(questions)}; at least {LEAST} are needed to tell a gain. Give more judged queries, "
            "let the language model write some (--written), or hold out a larger share (--held-out)."
        )
    return replace(found, train=tuple(train), leaking=len(rest) - len(train))


def _groups(questions: Sequence[Question]) -> dict[str, str]:
    """Document → its group: documents that answer one question are of one group."""
    parent: dict[str, str] = {}

    def root(document_id: str) -> str:
        while (above := parent.setdefault(document_id, document_id)) != document_id:
            parent[document_id] = document_id = parent.setdefault(above, above)
        return document_id

    for question in questions:
        first, *others = question.relevant
        for other in others:
            parent[root(other)] = root(first)
        root(first)
    return {document_id: root(document_id) for document_id in list(parent)}
