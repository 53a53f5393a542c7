"""scripts/dictionary on a collection of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.product import ROOT, environment, script

WORD = "云梯平台"
SETTINGS = {"embedder": "none", "reranker": "none", "generator": "none"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    documents = folder / "documents.jsonl"
    texts = {"a": f"部署{WORD}之前先做评估。", "b": "云梯由消防部门管理。", "c": "差旅报销流程。"}
    documents.write_text(
        "\n".join(json.dumps({"id": name, "text": text}) for name, text in texts.items()), "utf-8"
    )
    script("index_documents", str(documents), data=folder, **SETTINGS)
    return folder


def run(data: Path, *arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "dictionary", *arguments],
        env=environment(data, **SETTINGS),
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )


def said(data: Path, *arguments: str) -> Any:
    return script("dictionary", *arguments, data=data, **SETTINGS)


def test_a_dictionary_from_draft_to_roll_back(data: Path) -> None:
    added = run(data, "add", WORD, "灰度发布 3", "--author", "anna", "--comment", "products")
    assert added.returncode == 0, added.stderr
    assert "Version 1: 2 lines added" in added.stdout
    assert run(data, "list").stdout == f"{WORD}\n灰度发布 3\n"
    preview = run(data, "preview")
    assert "1 documents change" in preview.stdout
    before, after = preview.stdout.split("before: ")[1].split("after:")
    assert "云梯 / 平台" in before
    assert WORD in after.split(" / ") or f" {WORD} " in after.replace("/", " ")

    applied = said(data, "apply")
    assert (applied["state"], applied["done"], applied["embedded"]) == ("promoted", 1, 0)
    history = said(data, "history")
    assert history["in_force"] == 1
    [version] = history["versions"]
    assert (version["author"], version["comment"], version["added"]) == ("anna", "products", 2)

    assert said(data, "rollback")["done"] == 1
    assert said(data, "list")["lines"] == []
    assert said(data, "list", "--version", "1")["lines"] == [WORD, "灰度发布 3"]
    rolled = run(data, "rollback", "1")
    assert "Version 3 of the dictionary of default is in force: 1 documents" in rolled.stdout
    assert run(data, "history").stdout.startswith("*      3")
    assert said(data, "abandon") is None


def test_a_file_is_imported_and_listed_as_it_was(data: Path) -> None:
    kind = ("--kind", "synonyms")
    file = "# networks\nvpn => 虚拟专用网络\n差旅费, 出差费用\n"
    imported = run(data, *kind, "import", "-", given=file)
    assert imported.returncode == 0, imported.stderr
    assert run(data, *kind, "list").stdout == file
    assert said(data, *kind, "remove", "VPN=>虚拟专用网络") == {"version": 2, "changed": True}
    assert said(data, *kind, "add", "差旅费,出差费用") == {"version": 2, "changed": False}
    assert said(data, *kind, "rollback") == {"version": 3, "changed": True}
    assert run(data, *kind, "list").stdout == file


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "云梯 平台"), "line 1"),
        (("--collection", "none", "add", WORD), "none"),
        (("list", "--version", "99"), "no version 99"),
        (("import", "missing.txt"), "missing.txt"),
        (("--kind", "synonyms", "apply"), "act at once"),
        (("--kind", "other", "list"), "invalid choice"),
        ((), "required"),
    ],
)
def test_wrong_use_is_told_and_exits_with_2(
    data: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = run(data, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
