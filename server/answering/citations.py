"""Markers in an answer, such as [1] or 【2】, mapped to the sources they name."""

import re
from collections.abc import Sequence

from server.analysis.sentences import split_sentences
from server.hits import Citation, Hit, Sentence

_MARKER = re.compile(r"[\[［【]\s*(\d{1,3}(?:\s*[,，、]\s*\d{1,3})*)\s*[\]］】]")
_NUMBER = re.compile(r"\d+")
_ONLY_MARKERS = re.compile(rf"(?:\s*{_MARKER.pattern})+[\s。.!！?？]*")


def marked_numbers(text: str) -> list[int]:
    """Numbers in markers, in order of first appearance."""
    found = (
        int(number) for marker in _MARKER.finditer(text) for number in _NUMBER.findall(marker[1])
    )
    return list(dict.fromkeys(found))


def cite(answer: str, sources: Sequence[Hit], used: Sequence[str]) -> tuple[Citation, ...]:
    """Citations by number, of the markers that name a source (by its place in ``sources``, from 1)
    which was in the prompt (``used``: chunk ids). Numbers that name none are no citations."""
    in_prompt = set(used)
    return tuple(
        Citation(
            number=number,
            document_id=hit.document_id,
            chunk_id=hit.chunk_id,
            title=hit.title,
            quote=hit.text,
            start=hit.start,
            end=hit.end,
        )
        for number in sorted(marked_numbers(answer))
        if 1 <= number <= len(sources) and (hit := sources[number - 1]).chunk_id in in_prompt
    )


def sentences_of(answer: str, citations: Sequence[Citation]) -> tuple[Sentence, ...]:
    """The answer's sentences with the valid numbers that each cites.

    A marker after the full stop belongs to the sentence before it. A sentence without any is
    "uncited"; whether the others are supported has not been checked (verdict None).
    """
    valid = {citation.number for citation in citations}
    texts: list[str] = []
    for start, end in split_sentences(answer):
        text = answer[start:end].strip()
        if texts and _ONLY_MARKERS.fullmatch(text):
            texts[-1] += text
        elif text:
            # Markers right at the start close the sentence before: "…500 元。[1] 另外…"
            leading = _MARKER.match(text)
            while texts and leading:
                texts[-1] += leading[0]
                text = text[leading.end() :].lstrip()
                leading = _MARKER.match(text)
            if text:
                texts.append(text)
    return tuple(_sentence(text, valid) for text in texts)


def _sentence(text: str, valid: set[int]) -> Sentence:
    numbers = tuple(number for number in marked_numbers(text) if number in valid)
    return Sentence(text=text, citations=numbers, verdict=None if numbers else "uncited")
