"""HTML files: their text with headings, lists, tables and code kept as Markdown."""

import re
from collections.abc import Mapping, Sequence

from server.documents import MAX_TITLE_CHARS, Document
from server.errors import InvalidInput
from server.ingest.loaders.decoding import decode

_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE)
_DROPPED = frozenset(
    (
        "script", "style", "nav", "noscript", "template", "svg", "iframe", "object", "head",
        "button", "select", "textarea",
    )
)  # fmt: skip
_BLOCKS = frozenset(
    (
        "address", "article", "aside", "blockquote", "body", "caption", "dd", "details",
        "dialog", "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form",
        "header", "hr", "main", "ol", "p", "section", "summary", "table", "ul",
    )
)  # fmt: skip
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_HAN = "\u3000-\u303f\u4e00-\u9fff\uff00-\uffef"
_HAN_BREAK = re.compile(rf"(?<=[{_HAN}])[^\S\n]*\n\s*(?=[{_HAN}])")
_BLANKS = re.compile(r"\s+")


def load_html(data: bytes, *, document_id: str, title: str, acl: Sequence[str]) -> Document:
    """The document of a page; its title is that of the page, else its first h1, else ``title``.

    Raises InvalidInput.
    """
    from lxml import etree  # noqa: PLC0415

    found = _CHARSET.search(data[:4096])
    markup = decode(data, declared=found.group(1).decode() if found else "")
    writer = _Writer()
    # huge_tree lifts libxml2's limit on depth; the parser calls the writer and builds no tree.
    parser = etree.HTMLParser(target=writer, encoding="utf-8", huge_tree=True, recover=True)
    try:
        parser.feed(markup.encode())
        text = parser.close() if markup.strip() else ""
    except etree.LxmlError as error:
        raise InvalidInput(f"The page can't be read: {error}") from error
    found_title = writer.title.strip() or writer.first_heading.strip() or title
    return Document.create(
        id=document_id, text=text, title=found_title[:MAX_TITLE_CHARS], source=document_id, acl=acl
    )


class _Writer:
    """Takes a parser's events and writes the text."""

    def __init__(self) -> None:
        self.title = ""
        self.first_heading = ""
        self._out: list[str] = []
        self._break = 0  # line breaks that are due before the next words
        self._blank = False  # a blank is due
        self._dropped = 0  # open elements that are left out
        self._in_title = False
        self._in_heading = False
        self._pre = 0
        self._lists: list[int | None] = []  # the next number of each open list; None: bullets
        self._tables: list[int] = []  # rows so far of each open table
        self._cells = 0  # of the open row of the outermost table

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag == "title":
            self._in_title = not self.title
        if tag in _DROPPED or self._dropped:
            self._dropped += tag in _DROPPED
        elif tag == "br":
            self._line(1)
        elif tag in _HEADINGS and not self._tables:
            self._line(2)
            self._put("#" * _HEADINGS[tag] + " ")
            self._in_heading = not self.first_heading
        elif tag == "li":
            self._start_item()
        elif tag in {"tr", "td", "th"}:
            self._start_row_or_cell(tag)
        elif tag == "pre" and not self._tables:
            self._line(2)
            self._put("```\n")
            self._pre += 1
        elif tag == "img" and attributes.get("alt"):
            self.data(attributes["alt"])
        elif tag in _BLOCKS:
            self._line(2 if not self._lists else 1)
            if tag in {"ol", "ul"}:
                self._lists.append(1 if tag == "ol" else None)
            if tag == "table":
                self._tables.append(0)

    def end(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        if self._dropped:
            self._dropped -= tag in _DROPPED
        elif tag in _HEADINGS:
            self._in_heading = False
            self._line(2)
        elif tag == "tr" and len(self._tables) == 1:
            self._end_row()
        elif tag == "pre" and self._pre and not self._tables:
            self._pre -= 1
            self._put("\n```")
            self._line(2)
        elif tag == "li":
            self._line(1)
        elif tag in _BLOCKS:
            if tag in {"ol", "ul"} and self._lists:
                self._lists.pop()
            if tag == "table" and self._tables:
                self._tables.pop()
            self._line(2 if not self._lists else 1)

    def data(self, text: str) -> None:
        if self._in_title:
            self.title += text
        if self._dropped:
            return
        if self._pre and not self._tables:
            self._put(text)
            return
        text = _BLANKS.sub(" ", _HAN_BREAK.sub("", text))
        words = text.strip(" ")
        self._blank |= text.startswith(" ")
        if words:
            if self._in_heading:
                self.first_heading += text
            self._put(words.replace("|", "\\|") if self._tables else words)
            self._blank = text.endswith(" ")

    def close(self) -> str:
        return "".join(self._out).strip()

    def _put(self, words: str) -> None:
        if self._break and self._out:
            self._out.append("\n" * self._break)
        elif self._blank and self._out and not self._out[-1].endswith((" ", "\n")):
            self._out.append(" ")
        self._break, self._blank = 0, False
        self._out.append(words)

    def _line(self, breaks: int) -> None:
        if self._tables and self._cells:
            self._blank = True  # a cell is on one line
        elif not self._pre:
            self._break = max(self._break, breaks)

    def _start_item(self) -> None:
        self._line(1)
        number = self._lists[-1] if self._lists else None
        if number is not None:
            self._lists[-1] = number + 1
        mark = "-" if number is None else f"{number}."
        self._put("  " * min(max(0, len(self._lists) - 1), 8) + mark + " ")

    def _start_row_or_cell(self, tag: str) -> None:
        if len(self._tables) != 1:
            self._line(1)
        elif tag == "tr":
            self._end_row()
        else:
            if not self._cells:
                self._break = max(self._break, 1)
                self._put("|")
            elif self._cells:
                self._put(" |")
            self._cells += 1
            self._put(" ")

    def _end_row(self) -> None:
        if self._cells:
            self._blank = False
            self._put(" |")
            cells, self._cells = self._cells, 0
            self._tables[0] += 1
            if self._tables[0] == 1:
                self._put("\n|" + " --- |" * cells)
            self._line(1)
