"""scripts/bench: it finds its benches, and each measures a small made-up collection."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from server.stores.elasticsearch.client import connect
from tests.models import tiny as models
from tests.product import ROOT
from tests.services.elasticsearch import targets

DOCUMENTS = [
    {"_id": "slips", "title": "差旅", "text": "請附上報銷單據。"},
    {"_id": "ladders", "title": "", "text": "云梯由消防部门管理，100%_合格。"},
    {"_id": "hotels", "title": "", "text": 'Hotels are booked by "the desk".'},
]
QUESTIONS = {"folded": "报销单据", "stemmed": "hotel bookings", "titled": "差旅"}
JUDGED = {"folded": "slips", "stemmed": "hotels", "titled": "slips"}


def write_lines(file: Path, records: list[dict[str, str]]) -> None:
    file.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    write_lines(folder / "corpus.jsonl", DOCUMENTS)
    asked = [{"_id": name, "text": text} for name, text in QUESTIONS.items()]
    write_lines(folder / "queries.jsonl", asked)
    qrels = "".join(f"{query}\t{document}\t1\n" for query, document in JUDGED.items())
    (folder / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{qrels}", "utf-8")
    return folder


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a bench in this process; what it prints, read where it is JSON."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))

    def run(name: str, *options: object) -> Any:
        capsys.readouterr()
        assert import_module(f"benches.{name}").main([str(option) for option in options]) == 0
        printed = capsys.readouterr().out
        return json.loads(printed) if "--json" in options else printed

    return run


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A module that benches share."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return lambda name: import_module(f"benches.{name}")


@pytest.fixture
def url(elasticsearch: Callable[[str], str]) -> str:
    return elasticsearch(targets()[0])


# The script ----------------------------------------------------------------------------------------


def script(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "bench", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_benches_are_listed_with_what_they_measure() -> None:
    listed = json.loads(script("--list", "--json").stdout)
    assert listed.keys() >= {"analyzers", "index", "search", "segmenters"}
    assert not listed.keys() & {"shared", "stores", "__init__"}
    assert all(listed.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a bench"),
        (("speed",), "'speed'; there are analyzers"),
        (("analyzers", "--data", "/nowhere", "--elasticsearch", "none"), "/nowhere"),
        (("index", "--documents", "0"), "--documents"),
    ],
)
def test_wrong_use_is_told_and_exits_with_2(arguments: tuple[str, ...], message: str) -> None:
    done = script(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_options_before_and_after_the_name_reach_the_bench() -> None:
    done = script("--json", "segmenters", "--characters", "500")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["characters"] >= 500


# Analyzers -----------------------------------------------------------------------------------------


def figures(result: Any, fields: str) -> dict[str, float]:
    return {row["system"]: row["nDCG@10"] for row in result["rows"] if row["fields"] == fields}


def test_every_engine_is_measured_on_the_same_questions(
    bench: Any, tiny: Path, url: str, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    options = ("--data", tiny, "--elasticsearch", url, "--runs", runs, "--json")
    result = bench("analyzers", *options)
    one = pytest.approx(1 / 3, abs=1e-4)
    assert result["not_run"] == []
    assert figures(result, "text") == {
        "Tanyuan, words": pytest.approx(2 / 3, abs=1e-4),
        "Tanyuan, bigrams": pytest.approx(2 / 3, abs=1e-4),
        "Tanyuan, words and bigrams": pytest.approx(2 / 3, abs=1e-4),
        "Elasticsearch, standard": 0,
        "Elasticsearch, cjk": 0,
        "jieba cut_for_search": 0,
        "jieba, folded to Simplified": one,
        "character bigrams": 0,
        "single characters": 0,
        "SQLite, trigram": one,
        "SQLite, unicode61": 0,
        "SQLite, porter": one,
    }
    both = figures(result, "title and text")
    assert both["Tanyuan, default"] == 1
    assert both["Elasticsearch, cjk"] == both["jieba cut_for_search"] == one
    assert all(row["index_mb"] >= 0 and row["query_ms"]["p50"] > 0 for row in result["rows"])
    assert len(list(runs.iterdir())) == len(result["rows"])
    assert not connect(url).indices.get(index="bench-*").body


def test_without_elasticsearch_its_rows_are_marked(bench: Any, tiny: Path) -> None:
    other = tiny / "other.jsonl"
    write_lines(other, [{"_id": "folded", "text": "單據"}])
    printed = bench("analyzers", "--data", tiny, f"{tiny}:{other}", "--elasticsearch", "none")
    assert "|  | tiny | tiny, other |" in printed
    assert "| Elasticsearch, standard | not run | not run |" in printed
    assert "| jieba cut_for_search | .000 | 1.000 |" in printed
    assert "tiny, 3 documents" in printed


def test_sqlite_takes_any_query_as_text(part: Callable[[str], Any], tmp_path: Path) -> None:
    engines, terms = part("engines"), part("terms")
    engine = engines.Fts5(tmp_path / "index", "trigram", terms.trigrams)
    engine.add([(each["_id"], each["text"]) for each in DOCUMENTS])
    assert engine.search('by "the') == ["hotels"]
    assert engine.search("云梯") == ["ladders"]  # too short for a trigram
    assert engine.search("%_") == ["ladders"]
    assert engine.search("_合") == ["ladders"]
    assert engine.search("b_") == []
    assert engine.search("NEAR(") == []
    engine.close()


def test_terms_of_the_references(part: Callable[[str], Any]) -> None:
    terms = part("terms")
    assert terms.bigrams("差旅费 ＧＢ 费") == ["差旅", "旅费", "gb", "费"]
    assert terms.characters("差旅 GB2") == ["差", "旅", "gb2"]
    assert terms.trigrams("差旅费用") == ["差旅费", "旅费用"]
    assert terms.words("a_b 差旅") == ["a", "b", "差旅"]
    assert terms.jieba_words()("报销，Hotel") == ["报销", "hotel"]
    assert terms.simplified(terms.characters)("報銷") == ["报", "销"]


# The others ----------------------------------------------------------------------------------------


def test_tasks_take_turns_in_going_first(part: Callable[[str], Any]) -> None:
    order: list[str] = []
    tasks = {name: lambda item, name=name: order.append(f"{name}{item}") or item for name in "ab"}
    times = part("shared").alternate(tasks, [1, 2, 3])
    assert order == ["a1", "b1", "b2", "a2", "a3", "b3"]
    assert [each.result for each in times["b"]] == [1, 2, 3]


def test_times_are_of_each_item_against_itself(part: Callable[[str], Any]) -> None:
    shared = part("shared")
    slow = [shared.Timed(None, seconds) for seconds in (0.002, 0.4, 0.03)]
    quick = [shared.Timed(None, seconds) for seconds in (0.001, 0.1, 0.01)]
    assert shared.ratio(slow, quick) == 3
    assert shared.milliseconds(quick)["p50"] == 10
    assert shared.milliseconds(quick[:1])["p95"] == 1


def test_searches_are_timed_on_both_stores_side_by_side(bench: Any, url: str) -> None:
    options = ("--documents", "8", "--limit", "3", "--elasticsearch", url, "--json")
    result = bench("search", *options)
    assert (result["documents"], result["questions"]) == (8, 3)
    rows = {row["mode"]: row for row in result["milliseconds"]}
    assert rows.keys() == {"bm25", "vector", "hybrid"}
    for row in rows.values():
        assert row["ratio"] > 0
        for store in ("embedded", "elasticsearch"):
            assert row[store]["p95"] >= row[store]["p50"] > 0
    assert not connect(url).indices.get(index="bench-*").body


def test_indexing_is_timed_on_both_stores_side_by_side(bench: Any, url: str) -> None:
    result = bench("index", "--documents", "8", "--batch", "4", "--elasticsearch", url, "--json")
    assert result["documents"] == 8
    assert result["ratio"] > 0
    for store in ("embedded", "elasticsearch"):
        assert result[store]["characters_per_second"] > result[store]["documents_per_second"] > 0
    assert not connect(url).indices.get(index="bench-*").body


def test_the_embedded_store_is_measured_alone_on_a_collection_of_ones_own(
    bench: Any, tiny: Path
) -> None:
    options = ("--data", tiny, "--elasticsearch", "none")
    assert "| embedded |" in bench("index", *options)
    printed = bench("search", *options, "--embedder", "none")
    assert printed.startswith("3 documents, 3 questions")
    assert "| bm25 |" in printed
    assert "| hybrid |" not in printed


def test_both_segmenters_cut_alike(bench: Any, tiny: Path) -> None:
    result = bench("segmenters", "--data", tiny, "--json")
    assert result["differing"] == []
    assert result["runs"] == 3
    assert "are cut otherwise." in bench("segmenters", "--data", tiny)


def test_load_measures_both_ways_and_finds_the_values_of_one_thread(
    bench: Any, tmp_path: Path
) -> None:
    embedder = models.bert(tmp_path / "embedder")
    reranker = models.reranker(tmp_path / "reranker")
    few = ("--threads", 4, "--calls", 8, "--rounds", 2, "--json")
    result = bench("load", "--embedder", f"bge:{embedder}", "--reranker", f"bge:{reranker}", *few)
    queries, reranked = result["rows"]
    assert queries["work"] == "queries"
    for row in (queries, reranked):
        assert row["as served, calls/s"] > 0
        assert row["one by one, calls/s"] > 0
        assert row["times as fast"] > 0
        assert row["CPU, times less"] > 0
        assert row["largest difference"] < 1e-5
