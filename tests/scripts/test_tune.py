"""scripts/tune on a collection of its own: from judgements to a profile in force, and back."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server.feedback import Feedback, HitJudgement
from server.stores.embedded.store import EmbeddedStore
from tests.evaluation.test_tuning import TITLES, documents
from tests.product import ROOT, environment, script

SETTINGS = {"embedder": "none", "reranker": "none", "generator": "none"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    lines = [{"id": each.id, "title": each.title, "text": each.text} for each in documents()]
    write_lines(folder / "documents.jsonl", lines)
    script("index_documents", str(folder / "documents.jsonl"), data=folder, **SETTINGS)
    return folder


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    write_lines(
        folder / "queries.jsonl",
        [{"_id": f"q{at:02}", "text": title} for at, title in enumerate(TITLES)],
    )
    rows = [f"q{at:02}\td{at:02}\t1\n" for at in range(len(TITLES))]
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows), "utf-8")
    return folder


def write_lines(path: Path, lines: list[dict[str, str]]) -> None:
    path.write_text("\n".join(json.dumps(each) for each in lines), "utf-8")


def run(data: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "tune", *arguments],
        env=environment(data, **SETTINGS),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def said(data: Path, *arguments: str) -> Any:
    return script("tune", *arguments, data=data, **SETTINGS)


def test_a_profile_from_judgements_to_roll_back(data: Path, judged: Path) -> None:
    dry = said(data, "--data", str(judged), "--dry-run")
    assert (dry["in_force"], dry["saved"], dry["objection"]) == (0, None, None)
    assert dry["p"] < 0.05

    files = ("--queries", str(judged / "queries.jsonl"), "--qrels", str(judged / "qrels.tsv"))
    done = run(data, *files, "--author", "anna")
    assert done.returncode == 0, done.stderr
    assert "It is version 1 of the profile" in done.stdout
    shown = said(data, "--show")
    assert (shown["in_force"], shown["profile"]) == (1, dry["chosen"])
    [version] = shown["versions"]
    assert (version["author"], version["report"]["gain"]) == ("anna", dry["gain"])

    assert said(data, "--rollback") == {"version": 2, "changed": True}
    assert "Version 3, as version 1." in run(data, "--rollback", "1").stdout
    assert said(data, "--defaults") == {"version": 4, "changed": True}
    table = run(data, "--show").stdout
    assert "In force: version 4" in table
    assert "*    4" in table


def test_a_profile_from_feedback(data: Path) -> None:
    nobody = run(data, "--feedback")
    assert nobody.returncode == 2
    assert "Nobody has judged" in nobody.stderr
    store = EmbeddedStore(data / "store")
    feedback = Feedback(store.notes)
    for at, title in enumerate(TITLES[:12]):
        judgement = HitJudgement(query=title, document_id=f"d{at:02}", grade=3)
        feedback.judge("default", judgement)
    store.close()
    done = run(data, "--feedback")
    assert done.returncode == 1, done.stderr
    assert "Nothing was changed. 12 judged queries are too few to tell" in done.stdout
    saved = said(data, "--feedback", "--save-anyway")
    assert saved["saved"] == saved["in_force"] + 1
    assert saved["source"] == "feedback"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "give --data DIR"),
        (("--queries", "q.jsonl"), "go together"),
        (("--feedback", "--data", "x"), "give --data DIR"),
        (("--show", "--feedback"), "take no judgements"),
        (("--data", "/nowhere"), "/nowhere"),
    ],
)
def test_wrong_use_says_why(data: Path, arguments: tuple[str, ...], why: str) -> None:
    done = run(data, *arguments)
    assert done.returncode == 2
    assert why in done.stderr
