"""BM25 over our analysis against other analyzers and engines, on judged collections.

All get the same documents, each whole, and the same questions as they are; only our own search cuts long
documents into passages. Printed are nDCG@10, MRR@10 and Recall@100 by ir_measures, over the text alone and
over title and text, then size and time of the largest set's indexes and the time of a search for 100
documents; --json has those of all. Each nDCG@10 is compared with ours, of all fields together, question by
question (randomisation test), and all comparisons of a table are adjusted together (Holm): ▼ stands behind
one that is significantly lower than ours, ▲ behind one that is higher (p < .05).

"Tanyuan" is the product itself: embedded store, mode bm25, no model. The references: Elasticsearch with its
analyzers standard and cjk (Lucene's own class makes cjk's terms for a server without that module);
jieba's cut_for_search, pairs of characters and single characters under Lucene's BM25 in tantivy, with
NFKC and lower case; SQLite's FTS5 with trigram, unicode61 and porter. smartcn and ik are plugins that have
to be installed into a server, and are not compared.

A set is a folder in BEIR form, or FOLDER:QUERIES to ask another file's questions (ids as in the folder's
qrels): xquad_en:xquad_zh/queries.jsonl asks Chinese questions of English text.
"""

import argparse
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm import tqdm

from benches.corpora import SETS, Corpus, read
from benches.engines import Documents, Engine, Ours
from benches.references import NAMES as REFERENCES
from benches.references import Make, open_references
from benches.shared import alternate, folder_bytes, markdown, milliseconds, positive, seconds_of
from benches.stores import COLLECTION, add_elasticsearch, product
from server.evaluation.dataset import Dataset
from server.evaluation.measures import measure_each
from server.evaluation.runs import Ranking, Rankings, as_run, write_trec
from server.evaluation.significance import ALPHA, holm, paired
from server.retrieval.profile import Profile

MEASURES = ("nDCG@10", "MRR@10", "Recall@100")
TESTED = "nDCG@10"
TEXT, BOTH = "text", "title and text"
NOT_RUN = "not run"
# How the product searches: fields and their weights, or by default.
OURS: Mapping[str, Mapping[str, Profile | None]] = {
    TEXT: {
        "Tanyuan, words": Profile(field_weights={"words": 1.0}),
        "Tanyuan, bigrams": Profile(field_weights={"bigrams": 1.0, "characters": 1.0}),
        "Tanyuan, words and bigrams": Profile(
            field_weights={"words": 1.0, "bigrams": 1.0, "characters": 1.0}
        ),
    },
    BOTH: {"Tanyuan, default": None},
}
# The one of each that all others are compared with: all of our fields together.
COMPARED = {fields: list(systems)[-1] for fields, systems in OURS.items()}

Row = dict[str, Any]


@dataclass(frozen=True)
class Built:
    """An engine that holds a corpus, what its index takes on disk and took to make."""

    engine: Engine
    bytes: int
    seconds: float


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="bench analyzers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", nargs="+", required=True, metavar="SET", help=SETS)
    parser.add_argument("--limit", type=positive, help="only the first N questions of a set")
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="write runs in TREC's form")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_elasticsearch(parser)
    arguments = parser.parse_args(argv)
    corpora = read(arguments.data)
    rows: list[Row] = []
    with open_references(arguments.elasticsearch) as makers:
        for corpus in corpora:
            rows += compared(corpus, makers, limit=arguments.limit, runs=arguments.runs)
        missing = [name for name in REFERENCES if name not in makers]
    for fields in OURS:
        adjust([row for row in rows if row["fields"] == fields])
    result = {"rows": rows, "not_run": missing}
    print(json.dumps(result, ensure_ascii=False) if arguments.json else "\n\n".join(tables(rows)))
    return 0


def compared(
    corpus: Corpus, makers: Mapping[str, Make], *, limit: int | None, runs: Path | None
) -> list[Row]:
    """A row for each set, what is searched, and engine; its run goes to the folder ``runs``."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="tanyuan-bench-") as place, ExitStack() as stack:
        folder = Path(place)
        with product(folder / "ours") as ours:
            seconds = seconds_of(ours.put, corpus.documents)
        taken = folder_bytes(folder / "ours")
        ours = stack.enter_context(product(folder / "ours"))
        for fields, weights in OURS.items():
            engines = {
                name: Built(Ours(ours.searcher(profile), COLLECTION), taken, seconds)
                for name, profile in weights.items()
            }
            if fields == TEXT or corpus.titled:
                engines |= references(
                    corpus.texts(titles=fields == BOTH), makers, folder / fields, stack
                )
            for name, dataset in corpus.sets.items():
                about = {"set": name, "fields": fields, "documents": len(corpus.documents)}
                for row, run in asked(
                    dataset,
                    engines,
                    compared_with=COMPARED[fields],
                    limit=limit,
                    label=f"{name}, {fields}",
                ):
                    rows.append(about | row)
                    if runs:
                        keep(run, runs, f"{name}; {fields}; {row['system']}")
    return rows


def references(
    documents: Documents, makers: Mapping[str, Make], folder: Path, stack: ExitStack
) -> dict[str, Built]:
    """The references, each holding the documents."""
    folder.mkdir()
    engines = {}
    for number, (name, make) in enumerate(makers.items()):
        engine = make(folder / str(number))
        stack.callback(engine.close)
        seconds = seconds_of(engine.add, documents)
        engines[name] = Built(engine, engine.bytes(), seconds)
    return engines


def asked(
    dataset: Dataset,
    engines: Mapping[str, Built],
    *,
    compared_with: str,
    limit: int | None,
    label: str,
) -> Iterator[tuple[Row, Rankings]]:
    """What each engine makes of the set's questions. A row's ``p`` is that of its nDCG@10 against the
    engine ``compared_with``, None for that one itself."""
    questions = dict(list(dataset.queries.items())[:limit])
    judged = {query_id: dataset.qrels[query_id] for query_id in questions}
    answers = alternate(
        {name: built.engine.search for name, built in engines.items()},
        tqdm(questions.values(), desc=label, unit="question", disable=None),
    )
    rankings = {
        name: {
            query_id: Ranking(tuple(found.result))
            for query_id, found in zip(questions, answers[name], strict=True)
        }
        for name in engines
    }
    values = {name: measure_each(judged, as_run(run)) for name, run in rankings.items()}
    main = [*values[compared_with][TESTED].values()]
    for name, built in engines.items():
        row = {
            "system": name,
            "questions": len(questions),
            **{measured: mean_of(values[name][measured]) for measured in MEASURES},
            "p": None
            if name == compared_with
            else paired([*values[name][TESTED].values()], main).p,
            "index_mb": round(built.bytes / 1e6, 1),
            "index_s": round(built.seconds, 1),
            "query_ms": milliseconds(answers[name]),
        }
        yield row, rankings[name]


def mean_of(values: Mapping[str, float]) -> float:
    return round(fmean(values.values()), 4)


def adjust(rows: Sequence[Row]) -> None:
    """Adjust the p values of rows for being so many."""
    tested = [row for row in rows if row["p"] is not None]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p"] = round(p, 5)


def keep(rankings: Rankings, folder: Path, name: str) -> None:
    """Write them as a run under a name made of what it is."""
    slug = re.sub(r"\W+", "-", name.lower())
    folder.mkdir(parents=True, exist_ok=True)
    write_trec(rankings, folder / f"{slug}.trec", tag=slug)


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """Each measure over each choice of fields, then what the largest set costs."""
    found = {(row["system"], row["set"], row["fields"]): row for row in rows}
    sets = list(dict.fromkeys(row["set"] for row in rows))
    for measured in MEASURES:
        for fields in (TEXT, BOTH):
            lines = []
            for system in (*OURS[fields], *REFERENCES):
                cells = {"": system}
                for name in sets:
                    # Without titles, title and text are the text.
                    row = found.get((system, name, fields)) or found.get((system, name, TEXT))
                    ours = (
                        found.get((COMPARED[row["fields"]], name, row["fields"])) if row else None
                    )
                    cells[name] = shown(measured, row, ours) if row and ours else NOT_RUN
                lines.append(cells)
            yield f"{measured}, {fields}\n\n{markdown(lines)}"
    largest = max(rows, key=lambda row: row["documents"])
    costs = [
        {
            "": f"{row['system']}; {row['fields']}",
            "index, MB": row["index_mb"],
            "indexing, s": row["index_s"],
            "query, ms": row["query_ms"]["p50"],
            "p95, ms": row["query_ms"]["p95"],
        }
        for row in rows
        if row["set"] == largest["set"]
    ]
    yield f"{largest['set']}, {largest['documents']:,} documents\n\n{markdown(costs)}"


def shown(measured: str, row: Row, ours: Row) -> str:
    """A figure, with a mark where it differs significantly from ours."""
    figure = f"{row[measured]:.3f}".lstrip("0")
    if measured != TESTED or row["p"] is None or row["p"] >= ALPHA:
        return figure
    return f"{figure} {'▼' if row[measured] < ours[measured] else '▲'}"
