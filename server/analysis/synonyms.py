"""Synonyms: phrases that a query shall find beside its own, in Solr's form.

``a, b, c``: each stands for the others; ``a, b => c, d``: a query with a or b also finds c and d, not
the other way round. UTF-8, one rule a line; a comma or ``=>`` within a phrase is written with a backslash
before it. Blank lines and lines that start with ``#`` are skipped. Rules act once, never on what a rule
added, so they can't go round in circles.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from server.analysis.entries import entries, refusal
from server.analysis.lexer import parts_word
from server.analysis.normalize import Normalizer

MAX_RULES = 10_000
MAX_PHRASES = 20  # of a rule
MAX_PHRASE_CHARS = 100
MAX_ADDED = 64  # phrases that one query is given

_FIELD = "synonyms"
_ARROW = re.compile(r"(?<!\\)=>")
_COMMA = re.compile(r"(?<!\\),|，")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Rule:
    """Whoever asks for a phrase of ``asked`` finds those of ``found`` too."""

    asked: tuple[str, ...]
    found: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expansion:
    """A phrase of the query, its place in the normalised text, and the phrases to look for beside it."""

    phrase: str
    start: int
    end: int
    added: tuple[str, ...]


@dataclass(frozen=True)
class Synonyms:
    """Rules in order of the file, each once, of phrases as normalised text has them. Thread-safe."""

    rules: tuple[Rule, ...] = ()
    _normalizer: Normalizer = field(default_factory=Normalizer, repr=False, compare=False)

    @classmethod
    def parse(cls, lines: Iterable[str]) -> "Synonyms":
        """Raises InvalidInput, naming the line."""
        normalizer = Normalizer()
        rules: dict[Rule, None] = {}
        for number, entry in entries(lines):
            try:
                rules[_rule(entry, normalizer)] = None
            except ValueError as error:
                raise refusal(number, entry, str(error), field=_FIELD) from None
            if len(rules) > MAX_RULES:
                raise refusal(number, entry, f"there are at most {MAX_RULES:,} rules", field=_FIELD)
        return cls(tuple(rules), normalizer)

    @cached_property
    def hash(self) -> str:
        """SHA-256, as hex; empty without rules."""
        if not self.rules:
            return ""
        lines = (f"{_text(rule)}\n" for rule in self.rules)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @cached_property
    def _added(self) -> Mapping[str, tuple[str, ...]]:
        """What each phrase that may be asked for adds."""
        added: dict[str, dict[str, None]] = {}
        for rule in self.rules:
            for phrase in rule.asked:
                more = added.setdefault(phrase, {})
                more.update((other, None) for other in rule.found if other != phrase)
        return {phrase: tuple(more) for phrase, more in added.items() if more}

    @cached_property
    def _lengths(self) -> Mapping[str, tuple[int, ...]]:
        """First character → lengths of the phrases that begin with it, longest first."""
        lengths: dict[str, set[int]] = {}
        for phrase in self._added:
            lengths.setdefault(phrase[0], set()).add(len(phrase))
        return {first: tuple(sorted(found, reverse=True)) for first, found in lengths.items()}

    def expand(self, query: str) -> tuple[Expansion, ...]:
        """What stands in a query, from its beginning, the longest phrase at each place, none within
        another; together they add at most MAX_ADDED phrases.

        Latin words and numbers only count whole; what is written without blanks may stand anywhere.
        """
        if not self.rules:
            return ()
        text = _blanks(self._normalizer.normalize(query).text)
        expansions: list[Expansion] = []
        left = MAX_ADDED
        place = 0
        while place < len(text) and left > 0:
            found = self._at(text, place)
            if found is None:
                place += 1
                continue
            added = self._added[found][:left]
            expansions.append(Expansion(found, place, place + len(found), added))
            left -= len(added)
            place += len(found)
        return tuple(expansions)

    def _at(self, text: str, place: int) -> str | None:
        lengths = self._lengths.get(text[place])
        if lengths is None or parts_word(text, place):
            return None
        for length in lengths:
            phrase = text[place : place + length]
            if phrase in self._added and not parts_word(text, place + length):
                return phrase
        return None


NO_SYNONYMS = Synonyms()


def normal_rule(line: str, normalizer: Normalizer) -> str:
    """A line as it tells one rule from another, however it is written. Raises InvalidInput."""
    try:
        rule = _rule(line, normalizer)
    except ValueError as error:
        raise refusal(1, line, str(error), field=_FIELD) from None
    return _text(rule)


def _text(rule: Rule) -> str:
    return f"{','.join(rule.asked)}=>{','.join(rule.found)}"


def _rule(entry: str, normalizer: Normalizer) -> Rule:
    """Raises ValueError with the rule that is broken."""
    sides = [_phrases(side, normalizer) for side in _ARROW.split(entry)]
    if len(sides) > 2 or (len(sides) == 1 and len(sides[0]) < 2):
        raise ValueError('write "a, b" or "a => b"')
    if sum(map(len, sides)) > MAX_PHRASES:
        raise ValueError(f"a rule has at most {MAX_PHRASES} phrases")
    asked, found = sides[0], sides[-1]
    if all(phrase == other for phrase in asked for other in found):
        raise ValueError("both sides are the same")
    return Rule(asked, found)


def _phrases(side: str, normalizer: Normalizer) -> tuple[str, ...]:
    phrases: dict[str, None] = {}
    for part in _COMMA.split(side):
        phrase = _blanks(normalizer.normalize(_ESCAPED.sub(r"\1", part)).text)
        if not any(char.isalnum() for char in phrase):
            raise ValueError("every phrase has a letter or digit")
        if len(phrase) > MAX_PHRASE_CHARS:
            raise ValueError(f"a phrase has at most {MAX_PHRASE_CHARS} characters")
        phrases[phrase] = None
    return tuple(phrases)


def _blanks(text: str) -> str:
    """Words parted by one blank each."""
    return " ".join(text.split())
