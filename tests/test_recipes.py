"""Recipes: what is stamped on a generation and compared."""

from dataclasses import replace

from server.recipes import CHUNKS, SPARSE, Recipe, mismatch

# As it was stamped before recipes had windows, with the hash that keys and aliases have of it.
OLD = {
    **{"embedder": "bge:1", "dimensions": 768, "analyzer": "jieba-1", "chunker": "chunker-1/448"},
    **{"mapping": 1, "model": "bge:x", "dictionary": 3},
}
OLD_HASH = "8afd36d2"


def test_an_older_recipe_keeps_its_json_and_hash() -> None:
    recipe = Recipe.from_json(OLD)
    assert recipe.windows == ""
    assert recipe.as_json() == OLD
    assert recipe.hash == OLD_HASH


def test_sparse_weights_make_a_difference() -> None:
    without = Recipe(embedder="e", dimensions=4, analyzer="a", chunker="c", windows="w")
    given = replace(without, sparse="m3-1:abc")
    assert "sparse" not in without.as_json()
    assert Recipe.from_json(given.as_json()) == given
    assert given.hash != without.hash
    assert given.differences(without) == {"sparse": ("m3-1:abc", "")}
    found = mismatch("c", given, without, SPARSE)
    assert found is not None
    assert "sparse 'm3-1:abc', here ''" in found.message


def test_windows_make_a_difference() -> None:
    without = Recipe.from_json(OLD)
    windowed = replace(without, windows="windows-1/40")
    assert windowed.hash != without.hash
    assert Recipe.from_json(windowed.as_json()) == windowed
    assert windowed.differences(without) == {"windows": ("windows-1/40", "")}
    found = mismatch("c", windowed, without, CHUNKS)
    assert found is not None
    assert "windows 'windows-1/40', here ''" in found.message
    assert mismatch("c", windowed, without, frozenset({"embedder", "dimensions"})) is None


def test_where_it_was_found_makes_none() -> None:
    recipe = Recipe.from_json(OLD)
    assert replace(recipe, model="bge:y", dictionary=4).hash == recipe.hash
