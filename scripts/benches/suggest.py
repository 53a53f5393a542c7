"""Suggestions: how long a collection's phrases take to be made, how long a restart takes to read them, and
how long a request takes then.

Indexes the corpus of a folder in BEIR form, without vectors, into a collection of its own, which is
removed afterwards, and types beginnings of its own phrases, warm: characters, pinyin, initials, two words
of which the second is begun, and words with a slip. On Elasticsearch it is the one that
TANYUAN_ELASTICSEARCH_URL names.
"""

import argparse
import json
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from server.app import open_services
from server.documents import Document
from server.retrieval.lexicon_notes import LexiconNotes
from server.retrieval.pinyin import has_han, readings
from server.settings import Settings
from server.web.services import Services

COLLECTION = "bench-suggest"
BATCH = 200
READER = frozenset({"bench"})  # a caller under a permission filter
Typed = Mapping[str, Sequence[str]]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="suggest", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with corpus.jsonl")
    parser.add_argument("--store", default="embedded", help="embedded or elasticsearch")
    parser.add_argument("--limit", type=int, default=20_000, help="documents at most")
    parser.add_argument("--requests", type=int, default=200, help="of each kind")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args(argv)
    documents = read(arguments.data / "corpus.jsonl", arguments.limit)
    with tempfile.TemporaryDirectory() as folder:
        services = open_services(
            Settings.load(
                data=Path(folder),
                store=arguments.store,
                embedder="none",
                reranker="none",
                generator="none",
            )
        )
        try:
            report = measure(services, documents, arguments.requests)
        finally:
            services.store.delete_collection(COLLECTION)
            services.close()
    if arguments.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        for name, value in report.items():
            print(f"{name:32} {value:>10,}")
    return 0


def read(file: Path, limit: int) -> list[Document]:
    with file.open(encoding="utf-8") as lines:
        rows = (json.loads(line) for _, line in zip(range(limit), lines, strict=False))
        return [
            Document.create(id=row["_id"], title=row.get("title", ""), text=row["text"])
            for row in rows
        ]


def measure(services: Services, documents: Sequence[Document], requests: int) -> dict[str, float]:
    """Counts, seconds and milliseconds, by name."""
    services.indexer.ensure_collection(COLLECTION)
    for start in range(0, len(documents), BATCH):
        services.indexer.put(COLLECTION, documents[start : start + BATCH])
    services.store.refresh(COLLECTION)
    before = memory()
    began = time.perf_counter()
    phrases = services.suggester.prepare(COLLECTION)
    report: dict[str, float] = {
        "documents": len(documents),
        "phrases": phrases,
        "made in s": round(time.perf_counter() - began, 1),
        "memory MB": round(memory() - before),
    }
    began = time.perf_counter()
    if LexiconNotes(services.store.notes).newer(COLLECTION, 0):  # one made in no time is not kept
        report["read in s"] = round(time.perf_counter() - began, 1)
    for kind, texts in beginnings(documents, requests).items():

        def complete(text: str) -> object:
            return services.suggester.suggest(text, COLLECTION, groups=READER, size=8)

        def correct(text: str) -> object:
            return services.suggester.did_you_mean(text, COLLECTION, groups=READER)

        report |= timed(f"suggest, {kind}", complete, texts)
        report |= timed(f"did you mean, {kind}", correct, texts)
    return report


def timed(name: str, call: Callable[[str], object], texts: Sequence[str]) -> dict[str, float]:
    """Median and 95th percentile in ms of the second time that each is asked."""
    took = []
    for text in texts:
        call(text)
        began = time.perf_counter()
        call(text)
        took.append((time.perf_counter() - began) * 1000)
    took.sort()
    high = took[min(len(took) - 1, round(0.95 * len(took)))]
    return {
        f"{name}: median ms": round(statistics.median(took), 1),
        f"{name}: p95 ms": round(high, 1),
    }


def beginnings(documents: Sequence[Document], count: int) -> Typed:
    """What somebody may type on the way to a title or to words of a text, the same at every run."""
    chance = random.Random(20_000)
    chosen = [chance.choice(documents) for _ in range(count)]
    names = [(document.title or document.text)[:12] for document in chosen]
    read_out = [readings(name)[0] for name in names]
    return {
        "characters": [name[: chance.randint(1, 5)] for name in names],
        "pinyin": ["".join(read)[: chance.randint(1, 9)] for read in read_out],
        "initials": [
            "".join(each[0] for each in read)[: chance.randint(2, 5)] for read in read_out
        ],
        "last word": [f"{document.text[:2]} {document.text[4:5]}" for document in chosen],
        "slips": [slip(name, chance) for name in names],
    }


def slip(name: str, chance: random.Random) -> str:
    """A name with one character doubled (Chinese) or two changed over (others)."""
    at = chance.randrange(max(1, len(name) - 1))
    if has_han(name):
        return name[: at + 1] + name[at:]
    return name[:at] + name[at : at + 2][::-1] + name[at + 2 :]


def memory() -> float:
    """MB of this process at its highest."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
