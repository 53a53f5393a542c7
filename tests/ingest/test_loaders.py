"""Files of each kind to documents."""

import io
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.documents import Document
from server.errors import InvalidInput, TanyuanError
from server.ingest.bulk import LineError
from server.ingest.loaders.decoding import decode
from server.ingest.loaders.files import Found, file_id, find_files, kind_of, load_documents
from server.ingest.loaders.table import Columns

CHINESE = "员工出差须提前三天申请，逾期不予报销。\n标准见附表。"


def load(
    data: bytes | str, name: str, *, columns: Columns | None = None
) -> list[Document | LineError]:
    data = data.encode() if isinstance(data, str) else data
    return list(load_documents(io.BytesIO(data), name=name, acl=("staff",), columns=columns))


def one(data: bytes | str, name: str) -> Document:
    (document,) = load(data, name)
    assert isinstance(document, Document)
    return document


# Encodings


@pytest.mark.parametrize(
    "encoding",
    [
        "utf-8",
        "utf-8-sig",
        "utf-16",
        "utf-16-le",
        "utf-16-be",
        "utf-32",
        "gb18030",
        "gbk",
        "gb2312",
    ],
)
def test_chinese_in_its_usual_encodings(encoding: str) -> None:
    assert decode(CHINESE.encode(encoding)) == CHINESE


@pytest.mark.parametrize(
    "data",
    [
        "歐洲梵語的學術研究由德國學者開創".encode("big5"),
        "café déjà vu à la carte".encode("latin-1"),
        "東京都は日本の首都である".encode("shift-jis"),
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x01\x02",
        b"\xff\xfe\x00\xd8",
        b"\x80\x81\xff",
    ],
)
def test_what_is_not_such_text_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="UTF-8"):
        decode(data)


def test_line_breaks_and_controls_are_made_plain() -> None:
    assert decode(b"a\r\nb\rc\x01d\x7f") == "a\nb\nc d "


@given(
    st.binary(max_size=300), st.sampled_from(["", "gbk", "hex", "utf-16", "no such", "punycode"])
)
def test_any_bytes_are_text_or_refused(data: bytes, declared: str) -> None:
    try:
        text = decode(data, declared)
    except InvalidInput:
        return
    Document.create(id="x", text=text)


# Text and Markdown


def test_text_file() -> None:
    document = one("  hello\r\nworld", "hr/leave rules.txt")
    assert document.id == document.source == "hr/leave rules.txt"
    assert (document.title, document.text) == ("leave rules", "  hello\nworld")
    assert document.acl == ("staff",)


def test_markdown_front_matter() -> None:
    document = one(
        "---\ntitle: 请假\nacl: [hr, boss]\nsource: wiki\nmetadata: {dept: hr}\n"
        "date: 2024-06-01\ntags: [a, b]\nmenu: {x: {y: z}}\n'bad key': 1\n---\n# 一级\n正文",
        "a.md",
    )
    assert (document.title, document.acl, document.source) == ("请假", ("boss", "hr"), "wiki")
    assert document.metadata == {"dept": "hr", "date": "2024-06-01", "tags": ("a", "b")}
    assert document.text == "# 一级\n正文"


def test_toml_front_matter() -> None:
    document = one('+++\ntitle = "T"\nacl = "hr"\ndate = 2024-06-01\n+++\nbody', "a.md")
    assert (document.title, document.acl, document.text) == ("T", ("hr",), "body")
    assert document.metadata == {"date": "2024-06-01"}


@pytest.mark.parametrize(
    "text",
    [
        "---\nacl: [hr\n---\nbody",
        "---\nacl: 5\n---\nbody",
        "---\nacl:\n---\nbody",
        "---\nmetadata: [1]\n---\nbody",
        "---\na: " + "[" * 20_000 + "\n---\nbody",
        "---\na: !!python/object/apply:os.system [ls]\n---\nbody",
        "+++\ntitle = \n+++\nbody",
    ],
)
def test_front_matter_that_may_restrict_access_is_never_passed_over(text: str) -> None:
    with pytest.raises(InvalidInput):
        load(text, "a.md")


@pytest.mark.parametrize("text", ["---\nsome text\n---\nmore", "---\nno end", "----\na: b\n----\n"])
def test_rules_are_not_front_matter(text: str) -> None:
    assert one(text, "a.md").text == text


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# 标题 #\n正文", "标题"),
        ("\n\n标题\n====\n正文", "标题"),
        ("正文\n# 标题", "name"),
        ("## 小节\n正文", "name"),
        ("第三章 总则\n正文", "name"),
        ("", "name"),
    ],
)
def test_markdown_title(text: str, title: str) -> None:
    assert one(text, "name.md").title == title


# HTML

PAGE = """<!doctype html><html><head><meta charset="gbk"><title>差旅 &amp; 报销</title>
<style>p {}</style><script>alert("x")</script></head><body><nav><a href="/">首页</a></nav>
<h1>差旅</h1><p>员工出差
须申请，<b>不得</b>逾期。See   <i>the</i> list.</p>
<ul><li>交通<ul><li>飞机</li></ul></li><li>住宿</li></ul><ol><li>one<li>two</ol>
<table><tr><th>城市</th><th>标准</th></tr><tr><td>北京<br>上海</td><td>a|b <p>元</p></td></tr></table>
<pre>x = 1
  y</pre><img alt="图一"><!-- hidden --><div>end</div></body></html>"""


def test_page_becomes_markdown() -> None:
    document = one(PAGE.encode("gbk"), "a.html")
    assert document.title == "差旅 & 报销"
    assert document.text == (
        "# 差旅\n\n员工出差须申请，不得逾期。See the list.\n\n- 交通\n  - 飞机\n- 住宿\n\n1. one\n2. two\n\n"
        "| 城市 | 标准 |\n| --- | --- |\n| 北京 上海 | a\\|b 元 |\n\n```\nx = 1\n  y\n```\n\n图一\n\nend"
    )


def test_page_titles_fall_back() -> None:
    assert one("<h1>A <b>B</b></h1>x", "n.html").title == "A B"
    assert one("x", "n.html").title == "n"
    assert one("", "n.html").text == ""


@pytest.mark.parametrize(
    "markup",
    [
        "<div>" * 100_000 + "text" + "</div>" * 100_000,
        "<b>" * 50_000 + "text",
        "<a" * 200_000 + ">text",
        "<table><tr><td>" * 20_000 + "text",
        "<ul><li>" * 20_000 + "text",
        "<p>text" * 100_000,
        "text" + "&" * 300_000,
        "text<pre>" * 50_000,
        "字\n" * 200_000 + "text",
        "字" + " " * 500_000 + "text",
    ],
    ids=lambda markup: markup[:15],
)
def test_bad_markup_costs_no_more_than_its_length(markup: str) -> None:
    began = time.process_time()
    (document,) = load(markup, "a.html")
    assert time.process_time() - began < 5
    assert isinstance(document, Document)
    assert "text" in document.text or "<a" in markup


MARKUP = [
    "<table>", "</table>", "<tr>", "<td>", "</td>", "<p>", "</p>", "<li>", "<ul>", "</ul>", "<pre>",
    "</pre>", "<h2>", "</h2>", "<script>", "</script>", "<title>", "<nav>", "<br>", "<!--", "-->",
    "<svg>", "</svg>", "x", " 字\n", "&lt;", "|", "<", "\x01",
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(MARKUP), max_size=40).map("".join))
def test_any_markup_gives_a_document(markup: str) -> None:
    assert isinstance(one(markup, "a.html"), Document)


# CSV


def test_csv_with_a_text_column() -> None:
    rows = '\ufeff编号,标题,正文,部 门,acl\nA1,请假,"三天，\n可续",人事,hr;boss\n\nA2,报销,附票,,\n'
    first, second = load(rows, "rules.csv")
    assert first == Document(
        id="A1", title="请假", text="三天，\n可续", source="rules.csv", acl=("boss", "hr"),
        metadata={"部_门": "人事"},
    )  # fmt: skip
    assert isinstance(second, Document)
    assert (second.id, second.acl, second.metadata) == ("A2", (), {})


def test_csv_without_one() -> None:
    (row,) = load("城市;标准 (元);#\n北京;500;7\n", "hotel.csv")
    assert row == Document(
        id="hotel.csv#1", text="城市: 北京\n标准 (元): 500\n#: 7", source="hotel.csv",
        acl=("staff",), metadata={"城市": "北京", "标准_元": "500", "column3": "7"},
    )  # fmt: skip


def test_csv_columns_may_be_named() -> None:
    columns = Columns(document_id="Key", title="Head", text="Note")
    (row,) = load("Key\tHead\tNote\nk\th\tn\n", "a.tsv", columns=columns)
    assert isinstance(row, Document)
    assert (row.id, row.title, row.text) == ("k", "h", "n")
    with pytest.raises(InvalidInput, match="no column 'Key'"):
        load("a,b\n1,2\n", "a.csv", columns=columns)


def test_a_bad_row_stops_no_other() -> None:
    error, good = load("id,text\n1,a,b\n2,c\n", "a.csv")
    assert isinstance(error, LineError)
    assert error.line == 2
    assert isinstance(good, Document)


@pytest.mark.parametrize("text", ["", "a,a\n1,2\n", ",".join(f"c{n}" for n in range(1001))])
def test_a_csv_file_needs_a_header(text: str) -> None:
    with pytest.raises(InvalidInput):
        load(text, "a.csv")


@given(st.text(alphabet='ab,";\n\t\r 中', max_size=60))
def test_any_csv_gives_rows_or_an_error(text: str) -> None:
    try:
        rows = load(text, "a.csv")
    except TanyuanError:
        return
    assert all(isinstance(row, Document | LineError) for row in rows)


# Files and folders


def test_jsonl_reports_lines() -> None:
    good, bad = load('{"_id": "1", "text": "x"}\n{', "a.jsonl")
    assert isinstance(good, Document)
    assert isinstance(bad, LineError)
    assert good.acl == ("staff",)


def test_other_kinds_are_named() -> None:
    assert kind_of("A.TXT") == "txt"
    assert kind_of("a.exe") is None
    with pytest.raises(InvalidInput, match="kind"):
        load("x", "a.exe")


def test_folders_are_walked_in_order(tmp_path: Path) -> None:
    for name in ["b/2.txt", "b/1.txt", "a.md", ".hidden/x.txt", ".x.txt", "c.pdf"]:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path)
    found = list(find_files([tmp_path, tmp_path / "b" / "1.txt"]))
    assert [file.name for file in found] == ["a.md", "c.pdf", "b/1.txt", "b/2.txt", "1.txt"]
    assert found[1].kind is None
    assert found[0] == Found(tmp_path / "a.md", "a.md")
    with pytest.raises(InvalidInput, match="no file or folder"):
        list(find_files([tmp_path / "missing"]))


def test_long_paths_give_short_ids() -> None:
    one_id, other = file_id("深" * 200 + "/a.txt"), file_id("深" * 200 + "/b.txt")
    assert one_id != other
    assert len(one_id.encode()) <= 400
    assert file_id("hr/a.txt") == "hr/a.txt"
