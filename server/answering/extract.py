"""An extract: the best sentences of the sources, for when there is no generator."""

import re
from collections.abc import Sequence

from server.analysis.contract import Analyzer
from server.analysis.sentences import split_sentences
from server.hits import Hit

MAX_SENTENCES = 5
MAX_SOURCES = 5
_HEADING = re.compile(r"\s*#{1,6}\s|[\s|:-]*$")  # Markdown's, and the rule under a table's head
_BULLET = re.compile(r"\s*(?:[-*+]|\d{1,3}[.)、])\s+")
_TABLE_HEAD = re.compile(r"^\|.*\|[ \t]*\n(?=\|?[ \t]*:?-{3,})", re.MULTILINE)
_PIPES = re.compile(r"\s*\|\s*")
MAX_CHARS = 300  # of one sentence: a table row or a code block can be much longer


def extract(question: str, sources: Sequence[Hit], analyzer: Analyzer) -> str:
    """Sentences, one a line, each with the number of its source as a marker.

    A sentence counts by the share of the question's words that it holds and by its source's rank.
    The first sentence of the best source stands in where no sentence shares a word with the question.
    """
    wanted = {token.term for token in analyzer.analyze(question).words}
    scored: list[tuple[float, int, int, str]] = []
    seen: set[str] = set()
    for number, hit in enumerate(sources[:MAX_SOURCES], 1):
        heads = {found.start() for found in _TABLE_HEAD.finditer(hit.text)}
        for start, end in split_sentences(hit.text):
            sentence = _plain(hit.text[start:end])
            if start in heads or _HEADING.match(hit.text[start:end]) or sentence in seen:
                continue
            seen.add(sentence)
            held = wanted & {token.term for token in analyzer.analyze(sentence).words}
            if held:
                score = len(held) / len(wanted) / (1 + 0.2 * (number - 1))
                scored.append((-score, number, start, sentence))
    best = sorted(scored)[:MAX_SENTENCES]
    if not best and sources:
        first = " ".join(sources[0].text.split())
        best = [(0.0, 1, 0, first)] if first else []
    ordered = sorted(best, key=lambda item: (item[1], item[2]))
    return "\n".join(f"{_short(sentence)} [{number}]" for _, number, _, sentence in ordered)


def _plain(sentence: str) -> str:
    """On one line, without a list's mark; a table's row as its cells."""
    sentence = " ".join(_BULLET.sub("", sentence, count=1).split())
    if sentence.startswith("|") and sentence.endswith("|"):
        return _PIPES.sub(" · ", sentence.strip("| "))
    return sentence


def _short(sentence: str) -> str:
    return sentence if len(sentence) <= MAX_CHARS else sentence[:MAX_CHARS].rstrip() + "…"
