"""Both READMEs name every setting, route, error code and script, nothing else, and say the same."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from flask import Flask
from markdown_it import MarkdownIt
from markdown_it.token import Token
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import RequestRedirect

from server import __version__
from server.app import create_app
from server.errors import TanyuanError
from server.settings import CHECKOUT, Settings, environment_name
from server.web.application import OPERATIONS
from server.web.problems import HTTP_CODES, status_of

READMES = ("README.md", "README.zh.md")
PAGES = (*READMES, "CHANGELOG.md")
NOT_CALLS = ("/static/", "/docs/")  # the files of the two pages

Row = tuple[str, ...]


@dataclass(frozen=True)
class Text:
    """A Markdown file, read."""

    path: Path

    @property
    def source(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def tokens(self) -> list[Token]:
        return MarkdownIt("commonmark").enable("table").parse(self.source)

    def headings(self) -> Iterator[tuple[str, str]]:
        """Level and words of each."""
        tokens = self.tokens
        for at, token in enumerate(tokens):
            if token.type == "heading_open":
                yield token.tag, tokens[at + 1].content

    def anchors(self) -> set[str]:
        """What a link may name after "#", as GitHub makes it of the headings."""
        return {
            re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-") for _, words in self.headings()
        }

    def tables(self) -> list[list[Row]]:
        """The rows of each table, the header's first, as they are written."""
        tables: list[list[Row]] = []
        row: list[str] = []
        for token in self.tokens:
            if token.type == "table_open":
                tables.append([])
            elif token.type == "tr_open":
                row = []
            elif token.type == "inline" and token.level == 4:  # table, section, row, cell
                row.append(token.content)
            elif token.type == "tr_close":
                tables[-1].append(tuple(row))
        return tables

    def rows(self, first: str) -> dict[str, Row]:
        """The rows of the one table with ``first`` in its first body row, by what code they begin with."""
        (found,) = (table for table in self.tables() if first in _code(table[1][0]))
        rows = [row for row in found[1:] if _code(row[0])]
        keys = [_code(row[0])[0] for row in rows]
        assert len(keys) == len(set(keys)), "a row stands twice"
        return dict(zip(keys, rows, strict=True))

    def links(self) -> Iterator[str]:
        for token in self.tokens:
            for inner in token.children or ():
                target = inner.attrGet("href") or inner.attrGet("src")
                if target:
                    yield str(target)

    def fences(self, language: str = "") -> list[str]:
        """The blocks of code, or those in one language."""
        return [
            token.content
            for token in self.tokens
            if token.type == "fence" and language in {"", token.info.strip()}
        ]


def _code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.fixture(params=READMES)
def readme(request: pytest.FixtureRequest) -> Text:
    return Text(CHECKOUT / request.param)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    settings = Settings(
        data=tmp_path_factory.mktemp("data"), embedder="none", reranker="none", generator="none"
    )
    made = create_app(settings)
    yield made
    made.extensions["tanyuan"].store.close()


# Settings ------------------------------------------------------------------------------------------


def written(default: object) -> str:
    """A default as the table has it."""
    if default == "":
        return "–"
    if isinstance(default, bool):
        return f"`{int(default)}`"
    if isinstance(default, Path):
        return f"`{default.relative_to(CHECKOUT)}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def test_every_setting_stands_there_with_its_default(readme: Text) -> None:
    table = readme.rows("TANYUAN_CONFIG")
    defaults = {environment_name(item.name): written(item.default) for item in fields(Settings)}
    assert {name: row[1] for name, row in table.items()} == defaults | {"TANYUAN_CONFIG": "–"}
    assert all(row[2] for row in table.values())


def test_only_variables_that_something_reads_are_named(readme: Text) -> None:
    known = {environment_name(item.name) for item in fields(Settings)} | {"TANYUAN_CONFIG"}
    others = (CHECKOUT / "docker/compose.yaml", *CHECKOUT.glob("tests/*/*.py"))
    for file in others:
        known |= set(re.findall(r"TANYUAN_[A-Z_]+", file.read_text(encoding="utf-8")))
    assert set(re.findall(r"TANYUAN_[A-Z_]+", readme.source)) - known == set()


def test_settings_files_shown_can_be_loaded(readme: Text, tmp_path: Path) -> None:
    assert readme.fences("toml")
    for number, content in enumerate(readme.fences("toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(content, encoding="utf-8")
        Settings.load({"TANYUAN_CONFIG": str(file)})


# Routes and errors ---------------------------------------------------------------------------------


def calls(app: Flask) -> set[str]:
    """Method and path of everything that answers, but for the pages' own files."""
    found = set()
    for rule in app.url_map.iter_rules():
        if not rule.rule.startswith(NOT_CALLS):
            path = re.sub(r"<(?:[^<>]*:)?(\w+)>", r"{\1}", rule.rule)
            found |= {f"{method} {path}" for method in rule.methods or ()} - {f"HEAD {path}"}
    return {call for call in found if not call.startswith("OPTIONS ")}


def test_every_route_stands_there_with_what_its_key_must_allow(readme: Text, app: Flask) -> None:
    table = readme.rows("GET /v1/search")
    assert set(table) == calls(app)
    needed = {f"{one.method} {one.path}": one.permission for one in OPERATIONS}
    assert {call: row[1] for call, row in table.items()} == {
        call: f"`{needed[call]}`" if needed.get(call) else "–" for call in table
    }


def test_only_paths_that_answer_are_named(readme: Text, app: Flask) -> None:
    paths = re.findall(
        r"(?<![\w./-])/(?:v1/|docs|healthz|readyz|metrics|openapi)[^\s`\"'?)|,;，；。）]*",
        re.sub(r"https?://[^\s/]+", "", readme.source),
    )
    assert paths
    adapter = app.url_map.bind("localhost")
    dead = []
    for path in paths:
        try:
            adapter.match(re.sub(r"\{\w+\}", "x", path), "GET")
        except MethodNotAllowed:
            continue
        except (NotFound, RequestRedirect):
            dead.append(path)
    assert dead == []


def _kinds(kind: type[TanyuanError]) -> Iterator[type[TanyuanError]]:
    yield kind
    for inner in kind.__subclasses__():
        yield from _kinds(inner)


def test_every_error_code_stands_there_with_its_status(readme: Text) -> None:
    statuses = {code: status for status, code in HTTP_CODES.items()}
    statuses |= {
        kind.code: int(status_of(kind))
        for kind in _kinds(TanyuanError)
        if kind.__module__.startswith("server.")
    }
    table = readme.rows("invalid_input")
    assert {code: int(row[1]) for code, row in table.items()} == statuses
    assert all(HTTPStatus(int(row[1])) and row[2] for row in table.values())


# Scripts -------------------------------------------------------------------------------------------


def test_every_script_stands_there(readme: Text) -> None:
    executable = {
        f"scripts/{file.name}"
        for file in (CHECKOUT / "scripts").iterdir()
        if file.is_file() and os.access(file, os.X_OK)
    }
    assert set(readme.rows("scripts/run")) == executable


def test_only_scripts_that_are_there_are_named(readme: Text) -> None:
    named = set(re.findall(r"(?<![\w/])scripts/[\w./-]*\w", readme.source))
    assert {path for path in named if not (CHECKOUT / path).exists()} == set()


# Links, and both languages alike -------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_links_and_images_lead_somewhere(name: str) -> None:
    text = Text(CHECKOUT / name)
    dead = []
    for link in text.links():
        parts = urlsplit(link)
        if parts.scheme:
            continue
        file = CHECKOUT / unquote(parts.path) if parts.path else text.path
        found = file.exists() and (
            not parts.fragment or unquote(parts.fragment) in Text(file).anchors()
        )
        if not found:
            dead.append(link)
    assert dead == []


def test_each_readme_leads_to_the_other() -> None:
    for one, other in (READMES, READMES[::-1]):
        assert other in list(Text(CHECKOUT / one).links())[:2]


def outline(text: Text) -> list[str]:
    """Headings by level, tables by size, blocks of code by language, and pictures, in order."""
    parts = []
    for token in text.tokens:
        if token.type == "heading_open":
            parts.append(token.tag)
        elif token.type in {"table_open", "tr_open", "th_open"}:
            parts.append(token.type)
        elif token.type == "fence":
            parts.append(f"fence {token.info}")
        parts += [
            f"picture {inner.attrGet('src')}"
            for inner in token.children or ()
            if inner.type == "image"
        ]
    return parts


def test_both_readmes_have_the_same_outline() -> None:
    one, other = (outline(Text(CHECKOUT / name)) for name in READMES)
    assert one == other


def test_tables_of_both_readmes_name_the_same_things() -> None:
    one, other = (
        [[_code(row[0]) for row in table] for table in Text(CHECKOUT / name).tables()]
        for name in READMES
    )
    assert one == other


def test_figures_and_commands_are_the_same_in_both_readmes() -> None:
    """Blocks of code but for their comments; numbers of the tables, which are easily changed in one."""
    blocks, numbers = [], []
    for name in READMES:
        text = Text(CHECKOUT / name)
        lines = "\n".join(text.fences("bash") + text.fences("json")).splitlines()
        blocks.append([re.sub(r"\s*#.*", "", line) for line in lines])
        numbers.append(
            [re.findall(r"\d+(?:[.,]\d+)*", "|".join(row)) for t in text.tables() for row in t]
        )
    assert blocks[0] == blocks[1]
    assert [sorted(row) for row in numbers[0]] == [sorted(row) for row in numbers[1]]


def test_changes_tell_of_this_version() -> None:
    titles = [words for level, words in Text(CHECKOUT / "CHANGELOG.md").headings() if level == "h2"]
    assert any(title.startswith(__version__) for title in titles)
