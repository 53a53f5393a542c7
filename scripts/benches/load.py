"""Models under load: many threads at once, their work joined as served, against one call at a time.

Each round goes through the same queries twice: once as request threads ask, once with a lock around each
call, so that the model has them one by one. The difference is that between the values of the threads and
those of one thread. Without --embedder, BERT of bge-small-zh-v1.5's shape or bge-base's with random weights,
and a reranker of the same shape.
"""

import argparse
import json
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benches.shared import made_up, markdown, positive
from server.errors import ConfigurationError
from server.models.choice import choose_embedder, choose_reranker
from server.models.contract import Embedder, Reranker
from server.settings import Settings

SHAPES = {  # hidden, layers, heads
    "bge-small": (512, 4, 8),
    "bge-base": (768, 12, 12),
}
PASSAGES = 8  # of a call of the reranker, as a search makes them
Call = Callable[[str], object]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="bench load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--shape", choices=SHAPES, default="bge-small", help="(%(default)s)")
    parser.add_argument("--embedder", help="as TANYUAN_EMBEDDER, instead of random weights")
    parser.add_argument("--reranker", help="as TANYUAN_RERANKER; none: not measured")
    parser.add_argument("--threads", type=positive, default=16, help="(%(default)s)")
    parser.add_argument(
        "--calls",
        type=positive,
        default=64,
        help="a round; the reranker gets an eighth (%(default)s)",
    )
    parser.add_argument("--rounds", type=positive, default=4, help="(%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    chance = random.Random(7)
    documents, questions = made_up(200)
    queries = [
        chance.choice(questions)[: chance.choice([8, 16, 32])] for _ in range(arguments.calls)
    ]
    passages = [document.text[: chance.choice([15, 30, 45])] for document in documents]

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tanyuan-bench-")))
        embedder = embedder_of(arguments.embedder, folder, arguments.shape)
        work: dict[str, tuple[Call, Sequence[str]]] = {"queries": (embedder.embed_query, queries)}
        if arguments.reranker != "none":
            few = queries[: max(arguments.threads, len(queries) // 8)]
            reranker = reranker_of(arguments.reranker, folder, arguments.shape)
            work[f"{PASSAGES} windows a call, reranked"] = (reranking(reranker, passages), few)
        rows = [
            {"work": name}
            | measured(call, asked, threads=arguments.threads, rounds=arguments.rounds)
            for name, (call, asked) in work.items()
        ]
    result = {"threads": arguments.threads, "calls": len(queries), "rows": rows}
    print(json.dumps(result) if arguments.json else markdown(rows))
    return 0


def reranking(reranker: Reranker, passages: Sequence[str]) -> Call:
    def score(query: str) -> object:
        start = len(query) * 7 % (len(passages) - PASSAGES)
        return reranker.score(query, passages[start : start + PASSAGES])

    return score


def measured(call: Call, queries: Sequence[str], *, threads: int, rounds: int) -> dict[str, object]:
    """Calls a second and CPU time a call both ways, the medians of the ratios, and the largest difference
    of a value. CPU time is of all threads, and tells more where other programs want the cores."""
    call(queries[0])  # loads the model
    alone = [np.asarray(call(query)) for query in queries]
    lock = threading.Lock()

    def one_by_one(query: str) -> object:
        with lock:
            return call(query)

    seconds: dict[str, list[float]] = {"as served": [], "one by one": []}
    cpu: dict[str, list[float]] = {"as served": [], "one by one": []}
    difference = 0.0
    ways = [("as served", call), ("one by one", one_by_one)]
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            for name, way in ways:
                began, worked = time.perf_counter(), time.process_time()
                values = list(pool.map(way, queries))
                seconds[name].append(time.perf_counter() - began)
                cpu[name].append(time.process_time() - worked)
                pairs = zip(values, alone, strict=True)
                differences = [np.abs(np.asarray(value) - own).max() for value, own in pairs]
                difference = max(difference, *map(float, differences))
            ways.reverse()
    count = len(queries)
    row: dict[str, object] = {}
    for name, times in seconds.items():
        row[f"{name}, calls/s"] = round(count / statistics.median(times), 1)
        row[f"{name}, CPU ms"] = round(1000 * statistics.median(cpu[name]) / count, 1)
    return row | {
        "times as fast": ratio(seconds["one by one"], seconds["as served"]),
        "CPU, times less": ratio(cpu["one by one"], cpu["as served"]),
        "largest difference": float(f"{difference:.1g}"),
    }


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    return round(statistics.median(one / other for one, other in zip(of, to, strict=True)), 2)


def embedder_of(name: str | None, folder: Path, shape: str) -> Embedder:
    made = f"bge:{random_bert(folder / 'embedder', shape)}" if name is None else name
    choice = choose_embedder(Settings(embedder=made, models=str(folder)))
    if choice.adapter is None:
        raise ConfigurationError(f"--embedder {name}: {choice.reason}.")
    return choice.adapter


def reranker_of(name: str | None, folder: Path, shape: str) -> Reranker:
    made = f"bge:{random_reranker(folder / 'reranker', shape)}" if name is None else name
    choice = choose_reranker(Settings(reranker=made, models=str(folder)))
    if choice.adapter is None:
        raise ConfigurationError(f"--reranker {name}: {choice.reason}.")
    return choice.adapter


def random_bert(folder: Path, shape: str) -> Path:
    """Weights that are random: as fast as real ones of that shape, and without meaning."""
    import torch
    from transformers import BertConfig, BertModel

    from tests.models import tiny

    tiny.bert(folder)
    torch.manual_seed(1)
    BertModel(BertConfig(vocab_size=21_128, **sizes(shape))).save_pretrained(folder)
    reading(folder, 512)
    return folder


def random_reranker(folder: Path, shape: str) -> Path:
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    from tests.models import tiny

    tiny.reranker(folder)
    torch.manual_seed(1)
    special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1}
    config = XLMRobertaConfig(vocab_size=1_000, num_labels=1, **special, **sizes(shape))
    XLMRobertaForSequenceClassification(config).save_pretrained(folder)
    reading(folder, 510)
    return folder


def sizes(shape: str) -> dict[str, int]:
    hidden, layers, heads = SHAPES[shape]
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "max_position_embeddings": 512,
    }


def reading(folder: Path, tokens: int) -> None:
    file = folder / "tokenizer_config.json"
    stated = json.loads(file.read_text(encoding="utf-8")) | {"model_max_length": tokens}
    file.write_text(json.dumps(stated), encoding="utf-8")
