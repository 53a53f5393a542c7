"""What benches share: times side by side, made-up documents, tables."""

import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from server.analysis.sentences import split_sentences
from server.documents import Document

SAMPLE = Path(__file__).resolve().parents[1] / "sample" / "documents"

Item = TypeVar("Item")
Result = TypeVar("Result")


# Times ---------------------------------------------------------------------------------------------


class Timed(NamedTuple, Generic[Result]):
    """What a task gave, and how long it took."""

    result: Result
    seconds: float


def alternate(
    tasks: Mapping[str, Callable[[Item], Result]], items: Iterable[Item]
) -> dict[str, list[Timed[Result]]]:
    """Every item goes to all tasks before the next one, another task first each time, so that what the
    machine does besides falls on all alike."""
    done: dict[str, list[Timed[Result]]] = {name: [] for name in tasks}
    order = list(tasks)
    for item in items:
        for name in order:
            began = time.perf_counter()
            result = tasks[name](item)
            done[name].append(Timed(result, time.perf_counter() - began))
        order = order[1:] + order[:1]
    return done


def seconds_of(do: Callable[..., object], *arguments: object) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    do(*arguments)
    return time.perf_counter() - began


def milliseconds(timed: Sequence[Timed]) -> dict[str, float]:
    """Median, quartiles and 95th percentile."""
    values = [each.seconds * 1000 for each in timed]
    cuts = (
        statistics.quantiles(values, n=20, method="inclusive") if len(values) > 1 else values * 19
    )
    named = {"p25": cuts[4], "p50": cuts[9], "p75": cuts[14], "p95": cuts[18]}
    return {name: round(value, 2) for name, value in named.items()}


def ratio(of: Sequence[Timed], to: Sequence[Timed]) -> float:
    """How many times as long ``of`` took: the median over the items, each against itself."""
    pairs = zip(of, to, strict=True)
    return round(statistics.median(one.seconds / other.seconds for one, other in pairs), 2)


# Texts and tables ----------------------------------------------------------------------------------


def folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def sample_texts() -> list[str]:
    """The handbook of the made-up company, in Chinese and English."""
    return [path.read_text(encoding="utf-8") for path in sorted(SAMPLE.rglob("*.md"))]


def made_up(number: int) -> tuple[list[Document], list[str]]:
    """Documents of the sample's sentences at random, and questions: pieces of them. Always the same."""
    chance = random.Random(number)
    sentences = [
        text[start:end]
        for text in sample_texts()
        for start, end in split_sentences(text)
        if end - start > 8
    ]
    documents = [
        Document.create(
            id=f"d{place:06}",
            title="",
            text="\n".join(chance.choices(sentences, k=8)) + f" {place}",
        )
        for place in range(number)
    ]
    questions = [sentence[:40] for sentence in chance.sample(sentences, min(200, len(sentences)))]
    return documents, questions


def markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """A table of rows with the same keys."""
    header = list(rows[0])
    lines = [header, ["---"] * len(header)]
    lines += [["–" if row[name] is None else str(row[name]) for name in header] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def positive(text: str) -> int:
    """An option's whole number above 0."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number
