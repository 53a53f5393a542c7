"""What a change of the user dictionary can touch: the words that differ, and where they may stand.

Segmentation looks at a dictionary only for what stands in the run that it segments, so terms differ only
where a changed word stands. The exception is the sum of all frequencies, by which jieba weighs every
word: where a change shifts it noticeably, any text may be segmented otherwise.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from server.analysis.contract import Analyzer
from server.analysis.dictionary import UserDictionary
from server.analysis.lexer import runs

JIEBA_FREQUENCIES = 60_101_967  # the sum over jieba's own dictionary

# Below it, only two ways to segment a run that are as likely as each other to four decimals can change
# places: in some ten of a million runs.
NOTICEABLE_SHIFT = 1e-4


class DictionaryAnalyzer(Analyzer, Protocol):
    """``frequencies``: of the dictionary's words, as the segmenter has them, given or guessed."""

    dictionary: UserDictionary
    frequencies: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class WordChange:
    """A word with its frequency in the one and the other dictionary; None: it is not there."""

    word: str
    before: int | None
    after: int | None


def word_changes(before: DictionaryAnalyzer, after: DictionaryAnalyzer) -> tuple[WordChange, ...]:
    """By word. A guessed frequency may differ though the word's line is the same."""
    words = sorted(before.frequencies.keys() | after.frequencies.keys())
    changes = (
        WordChange(word, before.frequencies.get(word), after.frequencies.get(word))
        for word in words
    )
    return tuple(change for change in changes if change.before != change.after)


def shifts_all(changes: Iterable[WordChange]) -> bool:
    """Whether the sum of frequencies changes so much that texts without a changed word may differ."""
    shift = sum((change.after or 0) - (change.before or 0) for change in changes)
    return abs(math.log1p(max(shift, 1 - JIEBA_FREQUENCIES) / JIEBA_FREQUENCIES)) > NOTICEABLE_SHIFT


def terms_with(word: str) -> tuple[str, ...]:
    """Terms of the field of bigrams that stand wherever the word does; none can be named for words
    that are Latin letters and digits alone, since these depend on what stands beside them."""
    terms: dict[str, None] = {}
    for run in runs(word):
        if run.kind in {"word", "code"}:
            continue
        if len(run.text) > 1:
            terms.update((run.text[at : at + 2], None) for at in range(len(run.text) - 1))
        elif run.kind == "han":
            terms[run.text] = None
    return tuple(terms)
