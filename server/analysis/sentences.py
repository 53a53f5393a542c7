"""Sentences of Chinese and English text, as offsets."""

import re

_CLOSERS = "\"'”’」』）)】］》〉〕｣\\]"
# A sentence's end: Chinese stops anywhere; Latin ones only before a blank (so not in 3.5 or v2.3.1);
# line breaks. Closing quotes and brackets belong to the sentence that they close.
_END = re.compile(
    rf"(?P<cjk>[。！？；｡…]+[!?]*[{_CLOSERS}]*)"
    rf"|(?P<latin>(?<![.!?])[.!?]++[{_CLOSERS}]*+(?=\s|\Z|[^\W\d_a-zA-Z]))"
    r"|(?P<line>[\n\r\f\x0b\x85\u2028\u2029]+)"
)
# Words whose full stop ends no sentence, in lower case and without that stop; the second kind only
# before a number ("no. 5", but "the answer is no.").
_ABBREVIATION = re.compile(
    r"mr|mrs|ms|dr|prof|rev|gen|sen|st|sr|jr|messrs|vs|e\.g|i\.e|cf|al|viz|approx|dept|est|inc|ltd|co"
    r"|corp|eds|u\.s|u\.k|a\.m|p\.m|ph\.d|jan|feb|apr|aug|sept|oct|nov|dec",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"nos?|pp?|figs?|eqs?|sec|ch|vol|art|para|tab", re.IGNORECASE)
_LAST_WORD = re.compile(r"[^\W_](?:[\w.]*[^\W_])?\Z")
_ORDINAL = re.compile(r"(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,5})\Z")
_LOOK_BACK = 24  # longer than any abbreviation, so that each stop costs the same


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Spans of the sentences, in order, without overlap, none blank.

    Together they hold every character that isn't white space; white space at their ends is left out.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _END.finditer(text):
        if match.lastgroup == "latin" and _goes_on(text, start, match):
            continue
        _append(spans, text, start, match.end())
        start = match.end()
    _append(spans, text, start, len(text))
    return spans


def _append(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        spans.append((start, end))


def _goes_on(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether a Latin stop doesn't end the sentence that began at ``start``."""
    if match.group() != ".":
        # "Wait... what" goes on; so does "(see p. 3!) and": a small letter never starts a sentence.
        return _next_is_small(text, match.end())
    before = text[max(start, match.start() - _LOOK_BACK) : match.start()]
    found = _LAST_WORD.search(before)
    word = found.group() if found else ""
    if _NUMBERED.fullmatch(word):
        return text[match.end() : match.end() + 2].lstrip()[:1].isdigit()
    if _ABBREVIATION.fullmatch(word):
        return not _is_line_end(text, match.end())
    if _ORDINAL.fullmatch(word) and before.strip() == word and match.start() - start < _LOOK_BACK:
        return not _is_line_end(text, match.end())  # "1. First item", "b. Second"
    if len(word) == 1 and word.isupper():
        return not _is_line_end(text, match.end())  # an initial: "J. Smith"
    return _next_is_small(text, match.end())


def _next_is_small(text: str, position: int) -> bool:
    following = text[position : position + 2].lstrip(" \t")
    return following[:1].islower()


def _is_line_end(text: str, position: int) -> bool:
    return position >= len(text) or text[position] in "\n\r"
