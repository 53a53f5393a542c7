"""The references of scripts/bench analyzers, by name."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benches import stores, terms
from benches.engines import ElasticsearchIndex, Fts5, Reference, Tantivy
from server.errors import TanyuanError
from server.stores.elasticsearch.client import connect

Make = Callable[[Path], Reference]

_PATIENCE = 300.0  # seconds: a busy machine must not end a long run
_STANDARD = "Elasticsearch, standard"
_CJK = "Elasticsearch, cjk"
_LOCAL: dict[str, Callable[[], Make]] = {
    "jieba cut_for_search": lambda: partial(Tantivy, terms=terms.jieba_words()),
    "jieba, folded to Simplified": lambda: partial(
        Tantivy, terms=terms.simplified(terms.jieba_words())
    ),
    "character bigrams": lambda: partial(Tantivy, terms=terms.bigrams),
    "single characters": lambda: partial(Tantivy, terms=terms.characters),
    "SQLite, trigram": lambda: partial(Fts5, tokenizer="trigram", terms=terms.trigrams),
    "SQLite, unicode61": lambda: partial(Fts5, tokenizer="unicode61", terms=terms.words),
    "SQLite, porter": lambda: partial(Fts5, tokenizer="porter unicode61", terms=terms.words),
}
NAMES = (_STANDARD, _CJK, *_LOCAL)


@contextmanager
def open_references(elasticsearch: str) -> Iterator[dict[str, Make]]:
    """Name → what makes an empty one, of those that can be had; the others are told of."""
    with ExitStack() as stack:
        url = stack.enter_context(stores.elasticsearch(elasticsearch))
        makers = _of_elasticsearch(url, stack) if url else {}
        yield makers | {name: prepare() for name, prepare in _LOCAL.items()}


def _of_elasticsearch(url: str, stack: ExitStack) -> dict[str, Make]:
    client = connect(url, timeout=_PATIENCE)
    stack.callback(client.close)

    def index(_folder: Path, **analysis: Any) -> ElasticsearchIndex:
        return ElasticsearchIndex(client, f"bench-{uuid.uuid4().hex[:12]}", **analysis)

    makers: dict[str, Make] = {_STANDARD: partial(index, analyzer="standard")}
    try:
        client.indices.analyze(analyzer="cjk", text="词")
        makers[_CJK] = partial(index, analyzer="cjk")
    except TanyuanError:
        made = _cjk_outside(stack)
        if made:
            makers[_CJK] = partial(index, analyzer="whitespace", terms=made)
    return makers


def _cjk_outside(stack: ExitStack) -> terms.Terms | None:
    """Lucene's own class from the jars that the tests' server is made of."""
    from tests.services.elasticsearch import VERSIONS, ServerFailed, jdk, provision
    from tests.services.system import MissingTool, cache_folder

    try:
        libraries = provision(cache_folder(), VERSIONS[0]) / "lib"
        java = jdk(VERSIONS[0]) / "bin" / "java"
    except (ServerFailed, MissingTool, OSError) as error:
        stores.left_out("The analyzer cjk", error)
        return None
    return stack.enter_context(terms.cjk_terms(java, libraries))
