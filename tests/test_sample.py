"""The sample collection keeps what its README says."""

import json
from collections import Counter
from pathlib import Path

from server.evaluation.dataset import load_qrels

SAMPLE = Path(__file__).parents[1] / "scripts" / "sample"
DOCUMENTS = SAMPLE / "documents"


def queries():
    lines = (SAMPLE / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_there_are_enough_documents_in_both_languages():
    languages = Counter(
        line.removeprefix("  language: ")
        for path in DOCUMENTS.rglob("*.md")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("  language: ")
    )

    assert sum(languages.values()) >= 80
    assert min(languages["zh"], languages["en"]) >= 25


def test_a_third_of_the_questions_needs_meaning_and_a_tenth_has_no_answer():
    kinds = Counter(query["kind"] for query in queries())

    assert sum(kinds.values()) == 60
    assert kinds["semantic"] == 20
    assert kinds["unanswerable"] == 6


def test_judgements_name_documents_that_are_there():
    qrels = load_qrels(SAMPLE / "qrels.tsv")

    judged = {document_id for grades in qrels.values() for document_id in grades}
    assert {name for name in judged if not (DOCUMENTS / name).is_file()} == set()
    answerable = {query["_id"] for query in queries() if query["kind"] != "unanswerable"}
    assert qrels.keys() == answerable
