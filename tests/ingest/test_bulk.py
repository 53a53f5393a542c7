"""NDJSON lines: each bad one is an error of its own."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.documents import Document
from server.errors import InvalidInput, PayloadTooLarge
from server.ingest.bulk import LineError, document_from_json, read_documents, read_numbered

GOOD = b'{"id": "good", "text": "x"}'


def read(data: bytes) -> list[Document | LineError]:
    return list(read_documents(io.BytesIO(data)))


def test_a_line_holds_a_document() -> None:
    line = {
        "id": "a/b",
        "title": "标题",
        "text": "正文",
        "source": "s",
        "acl": ["hr", "public"],
        "metadata": {"year": 2024, "tags": ["x", "y"], "none": None},
    }
    assert read(json.dumps(line).encode()) == [
        Document(
            id="a/b",
            title="标题",
            text="正文",
            source="s",
            acl=("hr", "public"),
            metadata={"year": 2024, "tags": ("x", "y")},
        )
    ]


def test_beir_lines_and_other_endings() -> None:
    documents = read(b'\xef\xbb\xbf{"_id": "1", "text": ""}\r\n\n  \n{"id": "2", "text": ""}')
    assert [document.id for document in documents if isinstance(document, Document)] == ["1", "2"]


@pytest.mark.parametrize(
    ("line", "known", "says"),
    [
        (b"{", None, "not JSON"),
        (b"[1]", None, "object"),
        (b"null", None, "object"),
        (b'{"id": "a", "text": "\xff"}', None, "UTF-8"),
        (b'{"id": "a", "id": "b", "text": ""}', None, "twice"),
        (b'{"id": "a", "text": "", "metadata": {"k": 1, "k": 2}}', None, "twice"),
        (b'{"id": "a", "text": NaN}', None, "NaN"),
        (b'{"id": "a", "text": "", "metadata": {"k": -Infinity}}', None, "Infinity"),
        (b'{"id": "a", "text": "", "metadata": {"k": 1e999}}', "a", "finite"),
        (b'{"id": "a", "text": "", "metadata": {"k": ' + b"9" * 5000 + b"}}", None, "not JSON"),
        (b'{"id": "a", "text": "", "metadata": {"k": 99999999999999999999}}', "a", "2\\^53"),
        (b'{"id": "a", "text": "", "metadata": {"k": {}}}', "a", "metadata.k"),
        (b'{"id": "a", "text": "", "metadata": {"acl": 1}}', "a", "acl"),
        (b'{"id": "a", "text": "", "metadata": []}', "a", "object"),
        (b"[" * 100_000, None, "nested"),
        (b'{"id": "a", "text": "\\ud800"}', "a", "U\\+D800"),
        (b'{"id": "a", "text": "\\u0000"}', "a", "U\\+0000"),
        (b'{"id": "a\\ud800", "text": ""}', None, "U\\+D800"),
        (b'{"id": 7, "text": ""}', None, "string"),
        (b'{"id": "", "text": ""}', None, "empty"),
        (b'{"id": "a", "_id": "a", "text": ""}', "a", "exactly one"),
        (b'{"text": ""}', None, "exactly one"),
        (b'{"id": "a"}', "a", "'text' is missing"),
        (b'{"id": "a", "text": null}', "a", "'text' must be a string"),
        (b'{"id": "a", "text": "", "title": 1}', "a", "'title'"),
        (b'{"id": "a", "text": "", "acl": "hr"}', "a", "'acl'"),
        (b'{"id": "a", "text": "", "acl": [1]}', "a", "'acl'"),
        (b'{"id": "a", "text": "", "acl": ["a,b"]}', "a", "comma"),
        (b'{"id": "a", "text": "", "txet": ""}', "a", "txet"),
        (b'{"id": "' + b"x" * 500 + b'", "text": ""}', None, "id"),
    ],
)
def test_a_bad_line_stops_no_other(line: bytes, known: str | None, says: str) -> None:
    before, error, after = read(GOOD + b"\n" + line + b"\n" + GOOD.replace(b"good", b"last"))
    assert isinstance(before, Document)
    assert isinstance(after, Document)
    assert isinstance(error, LineError)
    assert (error.line, error.id) == (2, known)
    with pytest.raises(InvalidInput, match=says):
        raise error.error


def test_a_long_line_is_passed_over_without_being_held() -> None:
    class Counting(io.BytesIO):
        longest = 0

        def readline(self, size: int | None = -1) -> bytes:
            line = super().readline(size)
            self.longest = max(self.longest, len(line))
            return line

    stream = Counting(b"x" * 5_000_000 + b"\n" + GOOD + b"\n" + b"y" * 5_000_000)
    first, good, last = read_documents(stream, max_line_bytes=1000)
    assert isinstance(first, LineError)
    assert isinstance(first.error, PayloadTooLarge)
    assert isinstance(good, Document)
    assert isinstance(last, LineError)
    assert last.line == 3
    assert stream.longest <= 1024 * 1024


def test_a_line_of_just_the_limit_is_read() -> None:
    for end in (b"", b"\n"):
        stream = io.BytesIO(GOOD + end)
        (document,) = read_documents(stream, max_line_bytes=len(GOOD))
        assert isinstance(document, Document)


def test_lines_are_numbered_as_in_the_file() -> None:
    numbered = read_numbered(io.BytesIO(b"\n" + GOOD + b"\n\n{\n"))
    assert [(number, type(item)) for number, item in numbered] == [(2, Document), (4, LineError)]


def test_files_are_cleaned_and_take_the_given_groups() -> None:
    lines = b'{"id": "a", "text": "x\\u0000y"}\n{"id": "b", "text": "", "acl": []}'
    first, second = read_documents(io.BytesIO(lines), clean=True, acl=("hr",))
    assert isinstance(first, Document)
    assert isinstance(second, Document)
    assert (first.text, first.acl, second.acl) == ("x y", ("hr",), ())


@given(st.binary(max_size=200))
def test_any_bytes_give_documents_or_errors(data: bytes) -> None:
    for item in read(data):
        assert isinstance(item, Document | LineError)


@given(
    st.dictionaries(
        st.sampled_from(["id", "_id", "title", "text", "source", "acl", "metadata", "other"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ),
    )
)
def test_any_object_gives_a_document_or_invalid_input(fields: dict[str, object]) -> None:
    try:
        document = document_from_json(fields)
    except InvalidInput as error:
        assert error.message
    else:
        assert document_from_json(document.as_json()) == document
