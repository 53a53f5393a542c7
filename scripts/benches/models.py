"""BGE models on the CPU: our ONNX exports, fp32 and int8, against FlagEmbedding's own calls.

Models of the shapes of bge-small-zh-v1.5, bge-base-zh-v1.5 and bge-reranker-base get random weights,
made on the spot. Each contender lives in a process of its own; every task goes to all of them in turns,
FlagEmbedding with its defaults. Tasks: one query, texts of mixed lengths (8 to 512 tokens), passages of
mixed lengths (20 to 512 tokens) to rerank. Memory is the most that each process ever held.

On a busy machine torch's threads, which spin while they wait, make FlagEmbedding many times as slow as on
an idle one; OMP_WAIT_POLICY=passive in the environment lets them sleep.
"""

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benches.shapes import SHAPES, make, texts
from benches.shared import Timed, alternate, markdown, milliseconds, positive, ratio, sample_texts

CONTENDERS = ("FlagEmbedding", "fp32", "int8")
QUERY = "出差到一线城市住酒店，每晚最多可以报销多少钱？"
Work = tuple[str, list[str]]  # a method's name and what it takes


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="bench models",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", choices=SHAPES, action="append", help="one of the shapes (default: all)"
    )
    parser.add_argument("--texts", type=positive, default=512, help="to embed (%(default)s)")
    parser.add_argument("--passages", type=positive, default=50, help="to rerank (%(default)s)")
    parser.add_argument("--queries", type=positive, default=20, help="turns (%(default)s)")
    parser.add_argument(
        "--rounds", type=positive, default=3, help="turns of texts and passages (%(default)s)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="48 texts, 12 passages, 5 queries, 1 round"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.texts, arguments.passages = 48, 12
        arguments.queries, arguments.rounds = 5, 1
    with tempfile.TemporaryDirectory(prefix="tanyuan-bench-") as folder:
        result = {
            "cores": len(os.sched_getaffinity(0)),
            "load": [round(load, 1) for load in os.getloadavg()],
            "models": {
                name: measured(name, Path(folder), arguments) for name in arguments.model or SHAPES
            },
        }
    print(json.dumps(result) if arguments.json else shown(result))
    return 0


def measured(name: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures of one model: by task the times of each contender and how many times as long
    FlagEmbedding takes, and the memory likewise."""
    work = tasks(name, arguments)
    with ExitStack() as stack:
        in_process(_prepared, name, folder)  # so that no contender pays for it
        contenders = {
            each: stack.enter_context(contender(each, name, folder)) for each in CONTENDERS
        }
        for ask in contenders.values():
            ask(("warm_up", []))
        figures = {
            task: compared(
                alternate(contenders, tqdm([each] * turns, desc=f"{name}: {task}", disable=None))
            )
            for task, (each, turns) in work.items()
        }
        memory = {each: ask(("memory", [])) for each, ask in contenders.items()}
    theirs = memory["FlagEmbedding"]
    figures["memory"] = {
        each: {"MB": round(bytes_ / 1e6), "ratio": round(theirs / bytes_, 2)}
        for each, bytes_ in memory.items()
    }
    return figures


def tasks(name: str, arguments: argparse.Namespace) -> dict[str, tuple[Work, int]]:
    """What is asked, by name, and how often."""
    chance = random.Random(7).random
    if SHAPES[name].kind == "reranker":
        passages = texts(arguments.passages, chance, least=20, most=500)
        return {
            f"rerank {len(passages)} passages": (("rerank", [QUERY, *passages]), arguments.rounds)
        }
    documents = texts(arguments.texts, chance, least=8, most=512)
    return {
        "one query": (("query", [QUERY]), arguments.queries),
        f"embed {len(documents)} texts": (("embed", documents), arguments.rounds),
    }


def compared(times: dict[str, list[Timed[float]]]) -> dict[str, Any]:
    """``seconds`` are those that the process itself measured."""
    own = {each: [Timed(None, t.result) for t in timed] for each, timed in times.items()}
    return {
        each: {**milliseconds(timed), "ratio": ratio(own["FlagEmbedding"], timed)}
        for each, timed in own.items()
    }


# Contenders, each in its process -------------------------------------------------------------------


@contextmanager
def contender(kind: str, name: str, folder: Path) -> Iterator[Callable[[Work], float]]:
    """A function that has work done in a process of its own and gives the seconds, or bytes."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_serve, args=(its, kind, name, folder), daemon=True)
    process.start()
    its.close()

    def ask(work: Work) -> float:
        ours.send(work)
        answer = ours.recv()
        if isinstance(answer, str):
            raise OSError(f"{kind} of {name}: {answer}")
        return float(answer)

    try:
        yield ask
    finally:
        ours.close()
        process.join(10)
        process.kill()


def in_process(function: Callable[..., None], *arguments: object) -> None:
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise OSError(f"{function.__name__} of {arguments[0]} failed; see above.")


def _prepared(name: str, folder: Path) -> None:
    from server.models.agreement import Bounds
    from server.models.onnx_export import export

    # What random weights make of texts hardly differs, and so hardly ranks.
    anyhow = Bounds(overlap=0, tau=-1)
    export(make(name, folder / name), sample_texts(), bounds=anyhow)


def _serve(pipe: Connection, kind: str, name: str, folder: Path) -> None:
    make_methods = _flag_embedding if kind == "FlagEmbedding" else _ours
    try:
        methods = make_methods(kind, folder / name, SHAPES[name].kind)
        while True:
            method, given = pipe.recv()
            began = time.perf_counter()
            if method == "memory":
                pipe.send(_most_memory())
                continue
            methods[method](given)
            pipe.send(time.perf_counter() - began)
    except EOFError:
        return
    except Exception as error:  # noqa: BLE001 - the parent tells of it
        pipe.send(repr(error))


def _flag_embedding(_: str, folder: Path, what: str) -> dict[str, Callable[[list[str]], object]]:
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - its bars, until the process ends
    from FlagEmbedding import FlagModel, FlagReranker

    from server.models.bge import CHINESE_INSTRUCTION

    if what == "reranker":
        reranker = FlagReranker(str(folder))
        return {
            "warm_up": lambda _: reranker.compute_score([("warm", "up")]),
            "rerank": lambda given: reranker.compute_score([(given[0], one) for one in given[1:]]),
        }
    model = FlagModel(str(folder), query_instruction_for_retrieval=CHINESE_INSTRUCTION)
    return {
        "warm_up": lambda _: model.encode_queries(["warm up"]),
        "query": model.encode_queries,
        "embed": model.encode_corpus,
    }


def _ours(kind: str, folder: Path, what: str) -> dict[str, Callable[[list[str]], object]]:
    from server.models import exports
    from server.models.bge import BgeEmbedder
    from server.models.bge_reranker import BgeReranker

    found = exports.find(folder)
    if found is None or not found.graph(kind).is_file():
        raise FileNotFoundError(f"the check of {kind} left it out")
    if what == "reranker":
        reranker = BgeReranker(folder, export=found, precision=kind)
        return {
            "warm_up": lambda _: reranker.warm_up(),
            "rerank": lambda given: reranker.score(given[0], given[1:]),
        }
    embedder = BgeEmbedder(folder, name=f"bge:{folder.name}", export=found, precision=kind)
    return {
        "warm_up": lambda _: embedder.warm_up(),
        "query": lambda given: embedder.embed_query(given[0]),
        "embed": embedder.embed_documents,
    }


def _most_memory() -> int:
    """The most bytes that were resident, of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def shown(result: dict[str, Any]) -> str:
    rows = []
    for name, figures in result["models"].items():
        for task, found in figures.items():
            unit = "MB" if task == "memory" else "p50"
            rows.append(
                {
                    "model": name,
                    "": task,
                    **{f"{each}, {'ms or MB'}": f"{found[each][unit]:,.0f}" for each in CONTENDERS},
                    **{f"{each}, times": found[each]["ratio"] for each in CONTENDERS[1:]},
                }
            )
    return f"{result['cores']} cores, load {result['load'][0]} at the start\n\n{markdown(rows)}"
