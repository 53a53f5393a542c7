"""Sets and variants as files name them, and the table of an ablation."""

import json

import pytest

from server.errors import InvalidInput
from server.evaluation.ablation import Measured, ablation
from server.evaluation.variants import folder_set, profile_of, read_sets, read_variants
from server.retrieval.profile import Profile


def measured(name, default, variant):
    def values(each):
        return {f"q{number}": value for number, value in enumerate(each)}

    rows = {"default": values(default), "no | titles": values(variant)}
    return Measured(name=name, values={"nDCG@10": rows}, degraded={})


def test_a_cell_has_the_figure_its_difference_and_whether_it_is_significant():
    gained = measured("one", [0.5] * 20, [0.6] * 20)
    unclear = measured("two", [0.5, 0.7], [0.7, 0.4])
    same = measured("three", [1.0, 1.0], [1.0, 1.0])

    found = ablation([gained, unclear, same], measure="nDCG@10")

    assert found.as_markdown().splitlines() == [
        "| nDCG@10 | one | two | three |",
        "| --- | --- | --- | --- |",
        "| default | .500 | .600 | 1.000 |",
        "| no \\| titles | **.600 (+.100)** | .550 (−.050) | 1.000 (±.000) |",
    ]
    plain = json.loads(json.dumps(found.as_dict()))
    compared = plain["compared"]["one"]["no | titles"]
    assert compared["difference"] == 0.1
    assert compared["p"] < compared["p_adjusted"] < 0.001


@pytest.fixture
def folder(tmp_path):
    data = tmp_path / "english"
    data.mkdir()
    (data / "queries.jsonl").write_text('{"_id": "q1", "text": "leave"}\n', encoding="utf-8")
    (data / "qrels.tsv").write_text("q1\ta\t1\n", encoding="utf-8")
    (tmp_path / "chinese.jsonl").write_text('{"_id": "q1", "text": "年假"}\n', encoding="utf-8")
    return data


def test_sets_are_folders_or_stand_in_a_file(folder):
    sets = folder.parent / "sets.json"
    named = {"zh to en": {"data": "english", "queries": "chinese.jsonl", "collection": "c"}}
    sets.write_text(json.dumps(named), encoding="utf-8")

    plain, (crossed,) = folder_set(folder), read_sets(sets)

    assert (plain.name, plain.collection, plain.dataset.queries) == (
        "english",
        "english",
        {"q1": "leave"},
    )
    assert (crossed.name, crossed.collection) == ("zh to en", "c")
    assert crossed.dataset.queries == {"q1": "年假"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": {"folder": "x"}}', "a.data: Field required"),
        ('{"a": {"data": "english", "mode": "bm25"}}', "a.mode: Extra inputs"),
        ('{"a": {"data": "none"}}', "no qrels.tsv"),
        ("[]", "expected a JSON object"),
        ("{", "no JSON"),
    ],
)
def test_a_wrong_file_of_sets_is_named(folder, content, said):
    sets = folder.parent / "sets.json"
    sets.write_text(content, encoding="utf-8")

    with pytest.raises(InvalidInput, match=said):
        read_sets(sets)


def test_variants_change_the_default_profile_and_come_after_it(tmp_path):
    file = tmp_path / "variants.json"
    changes = {
        "rrf": {"fusion": {"method": "rrf"}},
        "no titles": {"field_weights": {"title_words": 0}},
    }
    file.write_text(json.dumps(changes), encoding="utf-8")

    variants = read_variants(file)

    assert [*variants] == ["default", "rrf", "no titles"]
    assert variants["default"] == Profile()
    assert variants["rrf"].fusion.method == "rrf"
    assert variants["rrf"].fusion.window == Profile().fusion.window
    assert variants["no titles"].field_weights == {**Profile().field_weights, "title_words": 0}


@pytest.mark.parametrize(
    "values",
    [
        {"fusoin": {}},
        {"fusion": {"methd": "rrf"}},
        {"fusion": {"method": "best"}},
        {"fusion": {"vector": -1}},
        {"fusion": {"window": "deep"}},
        {"field_weights": {"colour": 1}},
        {"field_weights": 1},
        [],
    ],
)
def test_a_wrong_profile_is_refused(values):
    with pytest.raises(InvalidInput):
        profile_of(values)


def test_a_wrong_variant_is_named(tmp_path):
    file = tmp_path / "variants.json"
    file.write_text('{"mine": {"fusoin": {}}}', encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"mine: .*fusoin"):
        read_variants(file)
    file.write_text('{"default": {}}', encoding="utf-8")
    with pytest.raises(InvalidInput, match="default is the name"):
        read_variants(file)
