"""LexiconBuilder: the phrases of a collection's chunks: titles, headings, words, and words that stand
side by side more often than chance has it."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files

from server.analysis.contract import Analyzer, Token
from server.retrieval.lexicon import Entry, Kind, Lexicon
from server.stores.contract import OwnedChunk

MAX_ENTRIES = 60_000  # of a lexicon; the best
MAX_TRACKED = 300_000  # while it is made; past it what is rarest so far is forgotten
MAX_PHRASE_CHARS = 40
_MAX_WORD_CHARS = 30

_LEAST_NPMI = 0.2
_NAMES: frozenset[Kind] = frozenset({"title", "heading"})

_LETTER = re.compile(r"[^\W\d_]")
# Fragments of numbers and of paragraphs' names, which make poor suggestions.
_NUMERAL = re.compile("第?[一二三四五六七八九十百千万亿零〇两]+[条款项章节编号年月日个次元]?")
_HEADING = re.compile(r"^#{1,6} +(.+?)[ #]*$", re.MULTILINE)
_NUMBERING = re.compile(
    r"^(?:第?[一二三四五六七八九十百]+[章节条部分]*[、.．:：\s]|[\d.]+[、.．)）:：\s]"
    r"|[(（][\d一二三四五六七八九十]+[)）])\s*"
)


@dataclass(slots=True)
class _Seen:
    """A phrase's documents, together and by access class; ``parts``: its words, of a collocation."""

    parts: tuple[str, ...]
    all: int = 0
    by_class: dict[int, int] = field(default_factory=dict)


_Phrase = tuple[str, Kind]


class LexiconBuilder:
    """Takes chunks, a document's together; not thread-safe. Memory is bounded by MAX_TRACKED."""

    def __init__(self, analyzer: Analyzer) -> None:
        data = files("server.retrieval") / "data" / "common_words.txt"
        self._common = frozenset(data.read_text("utf-8").split())
        self._analyzer = analyzer
        self._classes: dict[frozenset[str], int] = {}
        self._sizes: dict[int, int] = {}  # documents of each access class
        self._seen: dict[_Phrase, _Seen] = {}
        self._here: dict[_Phrase, tuple[str, ...]] = {}  # of the document under way, with parts
        self._document: tuple[str, int] | None = None  # its id and access class
        self.documents = 0

    def add(self, owned: OwnedChunk) -> None:
        """The next chunk."""
        document_id, acl = owned.chunk.document_id, frozenset(owned.acl)
        if self._document is None or self._document[0] != document_id:
            self._flush()
            access = self._classes.setdefault(acl, len(self._classes))
            self._sizes[access] = self._sizes.get(access, 0) + 1
            self._document = (document_id, access)
            self.documents += 1
            self._name(owned.title, "title")
        # Short sections share a chunk, with their headings in its text.
        for heading in (*owned.chunk.headings, *_HEADING.findall(owned.chunk.text)):
            self._name(_NUMBERING.sub("", heading), "heading")
        self._read(owned.chunk.text)

    def finish(self) -> Lexicon:
        """The lexicon of what was taken."""
        self._flush()
        words = {
            text.lower(): seen.all
            for (text, kind), seen in self._seen.items()
            if kind in {"word", "guess", "common"}
        }
        names: list[_Phrase] = []
        others: list[_Phrase] = []
        for phrase, seen in self._seen.items():
            if phrase[1] in _NAMES:
                names.append(phrase)
            elif phrase[1] != "phrase" or self._is_collocation(seen, words):
                others.append(phrase)
        # Titles, of which nearly every document has its own, take no more than half of the room.
        kept = sorted(names, key=self._order)[: max(MAX_ENTRIES // 2, MAX_ENTRIES - len(others))]
        kept += sorted(others, key=self._order)[: MAX_ENTRIES - len(kept)]
        entries = [
            Entry(text=text, kind=kind, counts=tuple(self._seen[text, kind].by_class.items()))
            for text, kind in kept
        ]
        return Lexicon(entries, list(self._classes), list(self._sizes.values()))

    def _order(self, phrase: _Phrase) -> tuple[int, str]:
        return -self._seen[phrase].all, phrase[0]

    def _name(self, text: str, kind: Kind) -> None:
        """A title or a heading, with the words that it has."""
        name = " ".join(text.split())
        if 2 <= len(name) <= MAX_PHRASE_CHARS and _LETTER.search(name):
            self._here[name, kind] = ()
        self._read(text)

    def _read(self, text: str) -> None:
        """A text's words, and those of them that stand side by side."""
        tokens = longest(self._analyzer.analyze(text).words)
        for token in tokens:
            word = text[token.start : token.end]
            if word in self._common:
                self._here[word, "common"] = ()
            elif _is_word(word):
                listed = word.isascii() or self._analyzer.is_listed(token.term)
                self._here[word, "word" if listed else "guess"] = ()
        for run in self._runs(text, tokens):
            for length in (2, 3):
                for at in range(len(run) - length + 1):
                    some = run[at : at + length]
                    phrase = text[some[0].start : some[-1].end]
                    if len(phrase) <= MAX_PHRASE_CHARS:
                        parts = tuple(text[token.start : token.end].lower() for token in some)
                        self._here[phrase, "phrase"] = parts

    def _runs(self, text: str, tokens: list[Token]) -> Iterator[list[Token]]:
        """Words that stand side by side; in English a small word (of, and) may stand between two."""
        run: list[Token] = []
        for token in tokens:
            word = text[token.start : token.end]
            fits = _is_word(word) and word not in self._common
            if run and not (fits and _is_joint(text[run[-1].end : token.start])):
                yield run
                run = []
            if fits:
                run.append(token)
        if run:
            yield run

    def _flush(self) -> None:
        if self._document is None:
            return
        _, access = self._document
        for phrase, parts in self._here.items():
            seen = self._seen.get(phrase)
            if seen is None:
                seen = self._seen[phrase] = _Seen(parts)
            seen.all += 1
            seen.by_class[access] = seen.by_class.get(access, 0) + 1
        self._here.clear()
        self._document = None
        if len(self._seen) > MAX_TRACKED:
            self._forget_rarest()

    def _forget_rarest(self) -> None:
        kept = sorted(self._seen.items(), key=lambda item: (-item[1].all, item[0][1] not in _NAMES))
        self._seen = dict(kept[: MAX_TRACKED // 2])

    def _is_collocation(self, seen: _Seen, words: dict[str, int]) -> bool:
        """Whether several documents have it, and its words stand together more often than chance has
        it (normalised pointwise mutual information)."""
        if seen.all < (3 if self.documents > 1_000 else 2):
            return False
        share = seen.all / self.documents
        apart = math.prod(max(words.get(part, 0), seen.all) / self.documents for part in seen.parts)
        if share >= 1:
            return False
        npmi = math.log(share / apart) / (-math.log(share) * (len(seen.parts) - 1))
        return npmi >= _LEAST_NPMI


def longest(tokens: Iterable[Token]) -> list[Token]:
    """Tokens that lie in no other, in order: jieba's search mode gives a word's parts too."""
    found: list[Token] = []
    for token in sorted(tokens, key=lambda token: (token.start, -token.end)):
        if not found or token.end > found[-1].end:
            found.append(token)
    return found


def _is_joint(gap: str) -> bool:
    """Whether two words with this between them are one phrase."""
    small = gap[1:-1]
    return gap in {"", " "} or (
        len(gap) <= 5 and gap == f" {small} " and small.isalpha() and small.isascii()
    )


def _is_word(word: str) -> bool:
    """Whether it may be suggested: two Chinese characters or three others, some of them letters."""
    if not 2 <= len(word) <= _MAX_WORD_CHARS or not _LETTER.search(word):
        return False
    return (len(word) >= 3 or not word.isascii()) and not _NUMERAL.fullmatch(word)
