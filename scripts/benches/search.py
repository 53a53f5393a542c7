"""Time of a search on each store: bm25, vector and hybrid, the stores in turns.

A search goes through the product (terms, both lists, fusion, the passages of ten hits, highlights), without
HTTP and without a reranker. Vectors are made up by default, so that what is measured is the product and not
a model; --embedder e5 measures with a real one, and its time is in the search.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tqdm import tqdm

from benches.corpora import SETS, read
from benches.shared import alternate, made_up, markdown, milliseconds, positive, ratio
from benches.stores import COLLECTION, add_elasticsearch, elasticsearch, product
from server.documents import Document
from server.hits import Mode, Retrieval
from server.models.contract import Embedder
from server.retrieval.query import SearchQuery
from server.retrieval.searcher import Searcher

MODES: tuple[Mode, ...] = ("bm25", "vector", "hybrid")


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="bench search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", metavar="SET", help=f"{SETS}; documents of the sample's sentences"
    )
    parser.add_argument(
        "--documents", type=positive, default=2_000, help="at most N documents (%(default)s)"
    )
    parser.add_argument(
        "--limit", type=positive, default=200, help="at most N questions (%(default)s)"
    )
    parser.add_argument("--size", type=positive, default=10, help="hits of a search (%(default)s)")
    parser.add_argument(
        "--embedder", default="made-up", help="made-up, or as TANYUAN_EMBEDDER (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_elasticsearch(parser)
    arguments = parser.parse_args(argv)
    documents, questions = given(arguments.data, arguments.documents)
    result = measured(documents, questions[: arguments.limit], arguments)
    print(json.dumps(result) if arguments.json else shown(result))
    return 0


def given(data: str | None, documents: int) -> tuple[list[Document], list[str]]:
    if data is None:
        return made_up(documents)
    (corpus,) = read([data])
    (dataset,) = corpus.sets.values()
    return list(corpus.documents[:documents]), list(dataset.queries.values())


def embedder_of(name: str) -> Embedder | str:
    if name != "made-up":
        return name
    from tests.fakes import FakeEmbedder

    return FakeEmbedder(dimensions=384)


def measured(
    documents: Sequence[Document], questions: Sequence[str], arguments: argparse.Namespace
) -> dict[str, object]:
    """Times by mode and store, and Elasticsearch's as a multiple of the embedded store's."""
    embedder = embedder_of(arguments.embedder)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tanyuan-bench-")))
        url = stack.enter_context(elasticsearch(arguments.elasticsearch))
        stores = {"embedded": stack.enter_context(product(folder / "data", embedder=embedder))}
        if url:
            stores["elasticsearch"] = stack.enter_context(
                product(folder / "none", elasticsearch=url, embedder=embedder)
            )
        for store in stores.values():
            store.put(documents)
        rows = []
        for mode in MODES if embedder != "none" else MODES[:1]:
            tasks = {
                name: partial(search, store.searcher(), mode=mode, size=arguments.size)
                for name, store in stores.items()
            }
            for task in tasks.values():
                task(questions[0])  # opens the collection
            label = f"{mode}, {len(documents):,} documents"
            times = alternate(tasks, tqdm(questions, desc=label, unit="search", disable=None))
            row: dict[str, object] = {"mode": mode}
            row |= {name: milliseconds(timed) for name, timed in times.items()}
            if url:
                row["ratio"] = ratio(times["elasticsearch"], times["embedded"])
            rows.append(row)
    return {"documents": len(documents), "questions": len(questions), "milliseconds": rows}


def search(searcher: Searcher, question: str, *, mode: Mode, size: int) -> Retrieval:
    query = SearchQuery(query=question, collection=COLLECTION, mode=mode, size=size, rerank=False)
    return searcher.search(query, groups=None)


def shown(result: dict) -> str:
    lines = []
    for row in result["milliseconds"]:
        line = {"mode": row["mode"]}
        for store in ("embedded", "elasticsearch"):
            times = row.get(store)
            line[f"{store}, p50 and p95"] = f"{times['p50']}, {times['p95']} ms" if times else None
        line["Elasticsearch / embedded"] = row.get("ratio")
        lines.append(line)
    return (
        f"{result['documents']:,} documents, {result['questions']:,} questions\n\n{markdown(lines)}"
    )
