"""Documents a second into each store, without vectors: analysis, chunks, the write and its refresh.

The same batches go to both stores in turns, each shown to search before it counts.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from benches.corpora import SETS, read
from benches.shared import alternate, made_up, markdown, milliseconds, positive, ratio
from benches.stores import BATCH, add_elasticsearch, elasticsearch, product
from server.documents import Document


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="bench index",
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
        "--batch", type=positive, default=BATCH, help="documents put together (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_elasticsearch(parser)
    arguments = parser.parse_args(argv)
    if arguments.data:
        documents = list(read([arguments.data])[0].documents[: arguments.documents])
    else:
        documents = made_up(arguments.documents)[0]
    result = measured(documents, arguments.batch, arguments.elasticsearch)
    print(json.dumps(result) if arguments.json else shown(result))
    return 0


def measured(documents: Sequence[Document], batch: int, server: str) -> dict[str, object]:
    """Speeds by store, and Elasticsearch's time as a multiple of the embedded store's."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tanyuan-bench-")))
        url = stack.enter_context(elasticsearch(server))
        stores = {"embedded": stack.enter_context(product(folder / "data"))}
        if url:
            stores["elasticsearch"] = stack.enter_context(
                product(folder / "none", elasticsearch=url)
            )
        batches = [documents[at : at + batch] for at in range(0, len(documents), batch)]
        times = alternate(
            {name: store.put for name, store in stores.items()},
            tqdm(batches, unit="batch", disable=None),
        )
    characters = sum(len(document.text) for document in documents)
    rows = {}
    for name, timed in times.items():
        seconds = sum(each.seconds for each in timed)
        rows[name] = {
            "documents_per_second": round(len(documents) / seconds, 1),
            "characters_per_second": round(characters / seconds),
            "batch_ms": milliseconds(timed),
        }
    result: dict[str, object] = {"documents": len(documents), "characters": characters, **rows}
    if url:
        result["ratio"] = ratio(times["elasticsearch"], times["embedded"])
    return result


def shown(result: dict) -> str:
    lines = [
        {
            "": name,
            "documents a second": found["documents_per_second"],
            "characters a second": f"{found['characters_per_second']:,}",
            "median and p95 of a batch": f"{found['batch_ms']['p50']}, {found['batch_ms']['p95']} ms",
        }
        for name, found in result.items()
        if isinstance(found, dict)
    ]
    text = f"{result['documents']:,} documents, {result['characters']:,} characters\n\n{markdown(lines)}"
    if "ratio" in result:
        text += f"\n\nElasticsearch takes {result['ratio']} times as long (median of the batches)."
    return text
