"""The main job as its users do it: index by script, start the server, ask it over HTTP."""

import urllib.parse
from collections.abc import Callable
from pathlib import Path

from tests.product import SAMPLE, script, serving
from tests.product_fixtures import Indexed


def test_the_sample_is_indexed_and_found_by_words_and_by_meaning(
    sample: Indexed, copy_of_sample: Callable[[], Path]
) -> None:
    documents = len([*(SAMPLE / "documents").rglob("*.md")])
    assert sample.report["failed"] == []
    assert sample.report["indexed"] + sample.report["unchanged"] == documents
    with serving(copy_of_sample()) as server:
        assert server.call("/readyz")["ready"]
        [collection] = server.call("/v1/collections")["collections"]
        assert collection["name"] == "default"
        assert collection["documents"] == documents
        found = server.call(f"/v1/search?q={urllib.parse.quote('差旅报销标准')}")
        best = found["hits"][0]
        assert best["document_id"] == "finance/travel-expenses-2025.md"
        assert {"bm25", "vector", "fused"} <= best["ranks"].keys()
        both = [hit for hit in found["hits"] if {"bm25", "vector"} <= hit["ranks"].keys()]
        assert len(both) == len(found["hits"]) == 10
        assert [part["stage"] for part in found["degraded"]] == ["rerank"]


def test_indexing_again_changes_nothing(copy_of_sample: Callable[[], Path]) -> None:
    data = copy_of_sample()
    again = script("index_documents", str(SAMPLE / "documents"), data=data)
    assert again["indexed"] == 0
    assert again["failed"] == []
