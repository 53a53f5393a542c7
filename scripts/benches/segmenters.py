"""rjieba, which the product uses, against jieba: characters a second, and how far they agree.

Both cut the same runs of Chinese characters in search mode, one thread each, in turns.
"""

import argparse
import json
import re
import tempfile
from collections.abc import Iterator, Sequence

import rjieba

from benches.corpora import SETS, read
from benches.shared import alternate, markdown, milliseconds, positive, ratio, sample_texts
from benches.terms import quiet_jieba

_HAN = re.compile("[\u4e00-\u9fd5]+")
_CHARS = 20_000  # that one turn cuts


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="bench segmenters",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", nargs="+", default=[], metavar="SET", help=f"{SETS}; the sample")
    parser.add_argument(
        "--characters", type=positive, default=2_000_000, help="at most so many (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    result = compared(list(runs(texts(arguments.data), arguments.characters)))
    print(json.dumps(result, ensure_ascii=False) if arguments.json else shown(result))
    return 0


def texts(sets: Sequence[str]) -> list[str]:
    found = [document.text for corpus in read(sets) for document in corpus.documents]
    return found or sample_texts()


def runs(given: Sequence[str], limit: int) -> Iterator[str]:
    """Different runs of Chinese characters, until there are ``limit`` characters."""
    seen: set[str] = set()
    total = 0
    for text in given:
        for run in _HAN.findall(text):
            if total < limit and run not in seen:
                seen.add(run)
                total += len(run)
                yield run


def compared(found: Sequence[str]) -> dict[str, object]:
    """Speeds, and the runs that the two cut otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        python = quiet_jieba().Tokenizer()
        python.tmp_dir = folder  # for its cache
        python.initialize()
        rust = rjieba.Jieba()
        rust.tokenize("预热", "search")
        answers = alternate(
            {
                "rjieba": lambda turn: [rust.tokenize(run, "search") for run in turn],
                "jieba": lambda turn: [list(python.tokenize(run, mode="search")) for run in turn],
            },
            turns(found),
        )
    characters = sum(map(len, found))
    differing = [
        run
        for turn, ours, theirs in zip(
            turns(found), answers["rjieba"], answers["jieba"], strict=True
        )
        for run, one, other in zip(turn, ours.result, theirs.result, strict=True)
        if [tuple(token) for token in one] != [tuple(token) for token in other]
    ]
    return {
        "characters": characters,
        "runs": len(found),
        "characters_per_second": {
            name: round(characters / sum(each.seconds for each in timed))
            for name, timed in answers.items()
        },
        "turn_ms": {name: milliseconds(timed) for name, timed in answers.items()},
        "times_as_fast": ratio(answers["jieba"], answers["rjieba"]),
        "differing": differing,
    }


def turns(found: Sequence[str]) -> Iterator[list[str]]:
    """The runs in turns of about _CHARS characters."""
    turn: list[str] = []
    size = 0
    for run in found:
        turn.append(run)
        size += len(run)
        if size >= _CHARS:
            yield turn
            turn, size = [], 0
    if turn:
        yield turn


def shown(result: dict) -> str:
    rows = [
        {"": name, "characters a second": f"{speed:,}", "median of a turn, ms": turn["p50"]}
        for (name, speed), turn in zip(
            result["characters_per_second"].items(), result["turn_ms"].values(), strict=True
        )
    ]
    differing = result["differing"]
    named = f": {'、'.join(differing[:20])}" if differing else ""
    return (
        f"{markdown(rows)}\n\nrjieba is {result['times_as_fast']} times as fast. Of {result['runs']:,} "
        f"different runs ({result['characters']:,} characters) {len(differing)} are cut otherwise{named}."
    )
