"""The commands, on the sample with real embeddings, and the page that they write in a browser."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.page.browser import launched
from tests.product import ROOT, SAMPLE, environment, script


@pytest.fixture(scope="module")
def written(sample, tmp_path_factory):
    """A folder with what one evaluation of the sample said and wrote."""
    folder = tmp_path_factory.mktemp("written")
    options = ["--html", folder / "report.html", "--runs", folder / "runs", "--run", folder / "run"]
    said = script("evaluate", "--data", str(SAMPLE), *map(str, options), data=sample.data)
    (folder / "said.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


def test_every_stage_is_measured_and_the_runs_are_what_was_measured(sample, written):
    said = json.loads((written / "said.json").read_text(encoding="utf-8"))

    assert [*said["stages"]] == ["bm25", "vector", "fused"]
    assert (said["data"], said["queries"], said["mode"]) == ("sample", 54, "hybrid")
    assert said["nDCG@10"] == said["stages"]["fused"]["nDCG@10"] > 0.7
    assert len(said["per_query"]) == 54
    assert {each["part"] for each in said["latencies"]} >= {"search", "embed", "bm25", "vector"}
    assert (written / "run").read_text() == (written / "runs" / "fused.trec").read_text()
    again = script(
        *("evaluate", "--data", str(SAMPLE), "--from-run", str(written / "runs" / "fused.trec")),
        *("--baseline", str(written / "runs" / "bm25.trec")),
        data=sample.data,
    )
    assert again["nDCG@10"] == said["nDCG@10"]
    (comparison,) = again["comparisons"]
    against = {each["baseline"]: each for each in said["comparisons"]}["bm25"]
    assert comparison["difference"] == against["difference"]
    assert comparison["p"] == against["p"]


def test_variants_are_compared_on_the_sample(sample, tmp_path):
    sets, variants = tmp_path / "sets.json", tmp_path / "variants.json"
    sets.write_text(json.dumps({"mine": {"data": str(SAMPLE), "collection": "default"}}))
    variants.write_text(json.dumps({"words": {"fusion": {"vector": 0}}}))

    said = script(
        *("ablate", "--sets", str(sets), "--variants", str(variants), "--limit", "12"),
        data=sample.data,
    )

    (table,) = said["tables"]
    assert table["means"]["mine"].keys() == {"default", "words"}
    compared = table["compared"]["mine"]["words"]
    assert compared["better"] + compared["equal"] + compared["worse"] == 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", str(SAMPLE), "--collection", "none"], "none"),
        (["--queries", str(SAMPLE / "queries.jsonl")], "BEIR form"),
    ],
)
def test_wrong_use_is_told(sample, arguments, said):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "evaluate", *arguments],
        env=environment(sample.data, embedder="none"),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def browser(chromium: Path):
    with launched(chromium) as started:
        yield started


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_asks_nothing_and_can_be_read_by_all(
    browser: Browser, written: Path, scheme: str, width: int
):
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True
    )
    page = context.new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))

    page.goto((written / "report.html").as_uri())

    assert asked == [(written / "report.html").as_uri()]
    assert complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for heading in (
        "Stages",
        "Query by query: fused against",
        "What each leg finds",
        "Time of a search",
    ):
        assert page.get_by_role("heading", name=heading).is_visible()
    found = Axe().run(page)
    assert found.response["violations"] == [], found.generate_report()
    context.close()
