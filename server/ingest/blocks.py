"""Blocks: a text's headings, paragraphs, list items, tables and code, with their offsets.

One pass over the lines for Markdown and for plain text alike, since a document doesn't say which it
is. It knows Markdown's ATX and setext headings, fences, tables and lists, and the numbered headings
of Chinese and English laws, contracts, standards and handbooks (第三章, 一、, （二）, 1.2.3, Article 4)
where they clearly stand as heading lines. Time is linear in the text, whatever it holds.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["heading", "paragraph", "item", "table", "code"]

MAX_HEADING_CHARS = 120  # a longer line is no heading
_MAX_NUMBERED_CHARS = 60  # nor is a longer numbered line, outside Markdown

_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})", re.ASCII)
_FENCE_LINES = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*$", re.MULTILINE)
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]|$)")
_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_TABLE_RULE = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
_ITEM = re.compile(
    r"[ \t\u3000]*(?:[-*+•·●○■□◆▪][ \t\u3000]+|\d{1,3}[.)．、](?!\d)|[（(]\d{1,3}[）)]|[①-⑳]"
    r"|[（(]?[一二三四五六七八九十百]{1,4}[）)、．.]|第[〇零一二三四五六七八九十百千两\d]{1,9}[条款])"
)
_ENDS_SENTENCE = tuple("。！？!?.…；;：:”」』）)\"'")
_INSIDE_PROSE = re.compile(r"[。；！？;!?]|[，,：:、.…]$")

# What a numbered heading begins with, outermost first; its level is below those of Markdown (1 to 6).
_HAN = "〇零一二三四五六七八九十百千两"
_NUMBERED = (
    re.compile(rf"第[{_HAN}\d]{{1,9}}(?:分?编|篇|部分)(?=[\s:：]|$)|Part[ ]+[IVXLC\d]+\b"),
    re.compile(
        rf"第[{_HAN}\d]{{1,9}}章|(?:附录|附件|附表)[ ]?[A-Z{_HAN}\d]{{0,3}}(?=[\s:：]|$)|附则$"
        r"|(?:Chapter|Appendix|Annex)[ ]+[A-Z\d]+\b"
    ),
    re.compile(rf"第[{_HAN}\d]{{1,9}}节|Section[ ]+[IVXLC\d.]+\b"),
    re.compile(rf"第[{_HAN}\d]{{1,9}}条|Article[ ]+[IVXLC\d]+\b"),
    re.compile(r"[一二三四五六七八九十百]{1,4}、"),
    re.compile(r"[（(][一二三四五六七八九十百]{1,4}[）)]"),
    re.compile(r"\d{1,2}(?:[.．、](?![\d])|[ \u3000]+(?=[^\W\d]))"),
    re.compile(r"\d{1,2}(?:\.\d{1,3}){1,4}\.?(?:[ \u3000]+|(?=[\u4e00-\u9fff]))"),
)
_FIRST_LEVEL = 11
_FIRST_WEAK = _FIRST_LEVEL + 4  # from 一、 on, the same marks number the items of lists
_DECIMAL = _FIRST_LEVEL + len(_NUMBERED) - 1  # 1.1; each more part is one level deeper
_BARE_NUMBER = re.compile(r"\d{1,2}[ \u3000]|\d{1,2}\.\d")


@dataclass(frozen=True, slots=True)
class Block:
    """``text[start:end]``, without outer blanks. ``headings``: the path that it stands under,
    outermost first; a heading's own title is the last."""

    kind: Kind
    start: int
    end: int
    headings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Line:
    """A line that is not blank. ``head``: its first characters, enough to tell what it is."""

    start: int
    end: int
    head: str
    after_blank: bool
    level: int | None  # of the numbering that it begins with

    @property
    def short(self) -> bool:
        return self.end - self.start <= MAX_HEADING_CHARS

    @property
    def indent(self) -> int:
        return len(self.head) - len(self.head.lstrip())


def read_blocks(text: str) -> list[Block]:
    """The blocks in order; every character that is not blank lies in exactly one."""
    scanner = _Scanner(text)
    previous: _Line | None = None
    lines = _lines(text)
    line = next(lines, None)
    while line:
        following = next(lines, None)
        scanner.take(line, previous, following)
        previous, line = line, following
    scanner.flush()
    return scanner.blocks


def _lines(text: str) -> Iterator[_Line]:
    start, after_blank = 0, True
    while start < len(text):
        stop = text.find("\n", start)
        stop = len(text) if stop < 0 else stop
        head = text[start : min(stop, start + MAX_HEADING_CHARS + 1)]
        if head.isspace() or not head:
            head = text[start:stop]  # a long line may begin with many blanks
        stripped = head.strip()
        if stripped:
            end = len(text[start:stop].rstrip()) + start
            yield _Line(start, end, head.rstrip(), after_blank, _numbering(stripped))
        after_blank = not stripped
        start = stop + 1


def _numbering(head: str) -> int | None:
    """The level of the heading numbering that a line begins with."""
    for index, pattern in enumerate(_NUMBERED):
        found = pattern.match(head)
        if found:
            level = _FIRST_LEVEL + index
            return (
                level + found.group().rstrip(" .\u3000").count(".") - 1
                if level == _DECIMAL
                else level
            )
    return None


class _Scanner:
    """Takes line after line and builds the blocks."""

    def __init__(self, text: str) -> None:
        self.blocks: list[Block] = []
        self._text = text
        self._path: list[tuple[int, str]] = []  # (level, title)
        self._headings: tuple[str, ...] = ()
        self._open: Kind | None = None  # the block that goes on
        self._start = self._end = 0
        self._lines = 0
        self._fence = ""  # what closes the open code block
        # Where each kind of fence is last closed, so that an unclosed one is known at once.
        self._closings: dict[str, dict[int, int]] = {"`": {}, "~": {}}
        for found in _FENCE_LINES.finditer(text):
            mark = found.group(1)
            self._closings[mark[0]][len(mark)] = found.start(1)

    def take(self, line: _Line, previous: _Line | None, following: _Line | None) -> None:
        if self._fence:
            self._extend(line)
            if self._closes(line):
                self.flush()
        elif (fence := self._opening(line)) is not None:
            self._begin("code", line)
            self._fence = fence
        elif self._is_underline(line):
            title = self._text[self._start : self._end]
            level = 1 if "=" in line.head else 2
            start, self._open = self._start, None
            self._head(level, title, start, line.end)
        elif (heading := _heading(line, previous, following, fresh=self._fresh(line))) is not None:
            self.flush()
            self._head(*heading, line.start + line.indent, line.end)
        else:
            self._take_body(line)

    def flush(self) -> None:
        """End the open block."""
        if self._open:
            self.blocks.append(Block(self._open, self._start, self._end, self._headings))
        self._open, self._fence = None, ""

    def _take_body(self, line: _Line) -> None:
        row = line.head.lstrip().startswith("|")
        goes_on = self._open is not None and not line.after_blank
        if goes_on and self._open == "table" and (row or "|" in line.head):
            self._extend(line)
        elif goes_on and self._lines == 1 and self._is_table_rule(line):
            self._open = "table"
            self._extend(line)
        elif row:
            self._begin("table", line)
        elif _ITEM.match(line.head):
            self._begin("item", line)
        elif goes_on and self._open != "table" and not self._ended():
            self._extend(line)
        else:
            self._begin("paragraph", line)

    def _begin(self, kind: Kind, line: _Line) -> None:
        self.flush()
        self._open = kind
        self._start, self._end, self._lines = line.start + line.indent, line.end, 1

    def _extend(self, line: _Line) -> None:
        self._end = line.end
        self._lines += 1

    def _head(self, level: int, title: str, start: int, end: int) -> None:
        while self._path and self._path[-1][0] >= level:
            self._path.pop()
        if title:
            self._path.append((level, title))
        self._headings = tuple(name for _, name in self._path)
        self.blocks.append(Block("heading", start, end, self._headings))

    def _ended(self) -> bool:
        """Whether the open block's last line ends a sentence, so that the next is a paragraph anew,
        as in Chinese texts that part paragraphs by a single line break."""
        return self._text[self._end - 1] in _ENDS_SENTENCE

    def _fresh(self, line: _Line) -> bool:
        """Whether the line can't be the rest of a paragraph."""
        return line.after_blank or self._open in {None, "table"} or self._ended()

    def _opening(self, line: _Line) -> str | None:
        """The fence that the line opens, if it is closed later on."""
        found = _FENCE.match(line.head)
        if not found:
            return None
        mark = found.group(1)
        after = self._text[line.start + found.end() : line.end]
        if mark[0] in after[:MAX_HEADING_CHARS]:  # code within a line, not a block
            return None
        closings = self._closings[mark[0]]
        closed = any(size >= len(mark) and at > line.end for size, at in closings.items())
        return mark if closed else None

    def _closes(self, line: _Line) -> bool:
        mark = self._text[line.start : line.end].strip() if line.short else ""
        return len(mark) >= len(self._fence) and not mark.strip(self._fence[0])

    def _is_underline(self, line: _Line) -> bool:
        return (
            self._open == "paragraph"
            and self._lines == 1
            and not line.after_blank
            and _UNDERLINE.match(line.head) is not None
            and line.short
            and self._end - self._start <= MAX_HEADING_CHARS
            and not self._ended()
        )

    def _is_table_rule(self, line: _Line) -> bool:
        return (
            "|" in line.head
            and "|" in self._text[self._start : self._end]
            and _TABLE_RULE.match(line.head) is not None
        )


def _heading(
    line: _Line, previous: _Line | None, following: _Line | None, *, fresh: bool
) -> tuple[int, str] | None:
    """Level and title where the line is a heading."""
    found = _ATX.match(line.head) if line.short else None
    if found:
        title = line.head[found.end(1) :].strip()
        bare = title.rstrip("#")
        closed = bare != title and (not bare or bare[-1] in " \t")
        return len(found.group(1)), bare.strip() if closed else title
    if line.level is not None and fresh and _stands_as_heading(line, previous, following):
        return line.level, line.head.strip()
    return None


def _stands_as_heading(line: _Line, previous: _Line | None, following: _Line | None) -> bool:
    """Whether a numbered line is a heading and no sentence, list item or table of contents."""
    title = line.head.strip()
    if len(title) > _MAX_NUMBERED_CHARS or _INSIDE_PROSE.search(title):
        return False
    same_before = previous is not None and previous.level == line.level
    if following is None:
        return not same_before and line.level is not None and line.level < _FIRST_WEAK
    if following.level == line.level:
        return False
    if line.level is None or line.level < _FIRST_WEAK:
        return True
    return not (
        same_before
        or following.indent > line.indent
        or (_BARE_NUMBER.match(title) and not line.after_blank)
    )
