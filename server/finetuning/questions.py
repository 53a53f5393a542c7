"""Questions with the documents that answer them: what is trained on and what is measured by."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from server.analysis.normalize import Normalizer

Source = Literal["feedback", "judged", "written", "titles"]
SOURCES: tuple[Source, ...] = ("feedback", "judged", "written", "titles")  # the earlier prevails


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """``grades``: by document id, above 0 for those that answer it, 0 for those that were judged not to.
    ``passages``: the chunks that are known to answer it; empty where only documents are known."""

    text: str
    source: Source
    grades: Mapping[str, int]
    passages: tuple[str, ...] = ()

    @property
    def relevant(self) -> tuple[str, ...]:
        return tuple(sorted(key for key, grade in self.grades.items() if grade > 0))

    @property
    def is_title(self) -> bool:
        """Whether it stands in the passage's own heading path, so that a passage is read without that."""
        return self.source == "titles"


def merged(questions: Iterable[Question]) -> list[Question]:
    """Questions that normalise to the same text as one, in the order of SOURCES.

    The source, passages and judgements of the first one prevail; a document that only a later one names
    is added, so that it is never taken for a wrong answer. Those without an answer are left out.
    """
    normalizer = Normalizer()
    found: dict[str, Question] = {}
    for question in sorted(questions, key=lambda each: SOURCES.index(each.source)):
        key = normalized(question.text, normalizer)
        first = found.get(key)
        if first is None:
            found[key] = question
        else:
            passages = first.passages
            if first.source == question.source:
                passages = tuple(dict.fromkeys([*passages, *question.passages]))
            grades = {**question.grades, **first.grades}
            found[key] = replace(first, grades=grades, passages=passages)
    return [question for key, question in found.items() if key and question.relevant]


def normalized(text: str, normalizer: Normalizer) -> str:
    return " ".join(normalizer.normalize(text).text.split())


def counts(questions: Iterable[Question]) -> dict[str, int]:
    """How many there are, by source."""
    by_source = dict.fromkeys(SOURCES, 0)
    for question in questions:
        by_source[question.source] += 1
    return {source: count for source, count in by_source.items() if count}
