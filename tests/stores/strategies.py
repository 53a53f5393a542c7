"""Hypothesis strategies for labelled documents and filters, and what a filter means in plain Python."""

from typing import Any as Anything

from hypothesis import strategies as st

from server.documents import Document, Scalar
from server.stores.filters import All, Any, Exists, Filter, Not, Range, Terms

KEYS = ("year", "kind", "部门", "a.b", "flag")
NUMBERS: tuple[Scalar, ...] = (-2, -1.5, 0, 1, 1.0, 2, 10, 2**53, 1e300, -1e-300)
STRINGS: tuple[Scalar, ...] = ("", "1", "10", "2", "a", "A", "é", "中文", "a b", "b/c", '"', "𠮷")
GROUPS = ("public", "hr", "财务", "it")
IDS = ("a", "b", "a/b", "c:1", "中 文", '"d"')

numbers = st.sampled_from(NUMBERS)
strings = st.sampled_from(STRINGS)
scalars = numbers | strings | st.booleans()


@st.composite
def labelled_documents(draw: st.DrawFn) -> list[dict[str, Anything]]:
    """Arguments of documents: id, acl, metadata, source."""
    return [
        {
            "document_id": name,
            "acl": draw(st.lists(st.sampled_from(GROUPS), max_size=3)),
            "source": draw(st.sampled_from(("", "wiki", "s3://中文"))),
            "metadata": draw(
                st.dictionaries(
                    st.sampled_from(KEYS), scalars | st.lists(scalars, max_size=3), max_size=4
                )
            ),
        }
        for name in draw(st.lists(st.sampled_from(IDS), unique=True, max_size=len(IDS)))
    ]


@st.composite
def ranges(draw: st.DrawFn, key: str) -> Range:
    bounds = draw(st.sampled_from((numbers, strings)))
    return Range(
        key=key,
        **draw(st.dictionaries(st.sampled_from(("gte", "gt", "lte", "lt")), bounds, min_size=1)),
    )


leaves = (
    st.builds(Terms, st.sampled_from(KEYS), st.lists(scalars, max_size=3).map(tuple))
    | st.builds(Terms, st.just("acl"), st.lists(st.sampled_from(GROUPS), max_size=3).map(tuple))
    | st.builds(Terms, st.just("document_id"), st.lists(st.sampled_from(IDS)).map(tuple))
    | st.sampled_from((*KEYS, "source", "acl", "missing")).flatmap(ranges)
    | st.builds(Exists, st.sampled_from((*KEYS, "source", "acl", "document_id", "missing")))
)
filters = st.recursive(
    leaves,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(All, st.lists(inner, max_size=3).map(tuple))
        | st.builds(Any, st.lists(inner, max_size=3).map(tuple))
    ),
    max_leaves=6,
)


def holds(condition: Filter, document: Document) -> bool:
    """Whether a filter lets a document in, by the words of ``server.stores.filters``."""
    match condition:
        case Terms(key, wanted):
            return any(_equal(a, b) for a in _values(document, key) for b in wanted)
        case Range():
            return any(_within(condition, value) for value in _values(document, condition.key))
        case Exists(key):
            return bool(_values(document, key))
        case Not(inner):
            return not holds(inner, document)
        case All(parts):
            return all(holds(part, document) for part in parts)
        case Any(parts):
            return any(holds(part, document) for part in parts)


def _values(document: Document, key: str) -> tuple[Scalar, ...]:
    own: dict[str, tuple[Scalar, ...]] = {
        "acl": document.acl,
        "document_id": (document.id,),
        "source": (document.source,) if document.source else (),
    }
    if key in own:
        return own[key]
    value = document.metadata.get(key, ())
    return value if isinstance(value, tuple) else (value,)


def _kind(value: Scalar) -> type:
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)


def _equal(a: Scalar, b: Scalar) -> bool:
    return _kind(a) is _kind(b) and a == b


def _within(condition: Range, value: Scalar) -> bool:
    def below(a: Scalar, b: Scalar) -> bool:
        if isinstance(a, str) and isinstance(b, str):
            return a < b  # Python compares by code point, as UTF-8 bytes do
        return float(a) < float(b)

    for bound, accepts in (
        (condition.gte, lambda b: not below(value, b)),
        (condition.gt, lambda b: below(b, value)),
        (condition.lte, lambda b: not below(b, value)),
        (condition.lt, lambda b: below(value, b)),
    ):
        if bound is not None and not (_kind(bound) is _kind(value) and accepts(bound)):
            return False
    return True
