"""A profile as a value: written down, read back, refused where it is wrong."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidInput
from server.retrieval.fusion import Fusion
from server.retrieval.profile import WEIGHTED, Profile

weights = st.floats(0, 1000, allow_nan=False)
profiles = st.builds(
    Profile,
    field_weights=st.fixed_dictionaries(dict.fromkeys(WEIGHTED, weights)).filter(
        lambda made: any(made.values())
    ),
    fusion=st.builds(
        Fusion,
        method=st.sampled_from(["rrf", "convex"]),
        bm25=st.floats(0.1, 1000),
        vector=weights,
        rank_constant=st.integers(1, 1000),
        window=st.integers(1, 10_000),
    ),
)


@given(profiles)
def test_what_is_written_down_is_read_back(profile: Profile) -> None:
    written = json.loads(json.dumps(profile.as_dict()))
    assert Profile.from_dict(written) == profile
    assert Profile.from_dict(written).as_dict() == written


@given(profiles, profiles)
def test_what_differs_is_enough_to_make_one_of_the_other(base: Profile, profile: Profile) -> None:
    assert Profile.from_dict(profile.changes(base), base=base) == profile
    assert profile.changes(profile) == {}


def test_a_part_overrides_that_part_of_the_defaults_alone() -> None:
    made = Profile.from_dict({"fusion": {"vector": 2}, "field_weights": {"title_words": 0.5}})
    default = Profile()
    assert made.fusion == Fusion(vector=2.0)
    assert made.field_weights == {**default.field_weights, "title_words": 0.5}
    assert made.changes() == {"fusion": {"vector": 2.0}, "field_weights": {"title_words": 0.5}}
    assert Profile.from_dict({}) == default


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"fusoin": {}}, "fusoin: unknown"),
        ({"fusion": {"windw": 3}}, "fusion.windw: unknown"),
        ({"field_weights": {"titles": 1}}, "field_weights.titles: unknown"),
        ({"fusion": {"window": "200"}}, "fusion.window: "),
        ({"fusion": {"window": True}}, "fusion.window: "),
        ({"fusion": {"window": 20.5}}, "fusion.window: "),
        ({"fusion": {"window": 0}}, "window from 1 to 10,000"),
        ({"fusion": {"method": "sum"}}, "fusion.method: .*'rrf' or 'convex'"),
        ({"fusion": {"bm25": 0, "vector": 0}}, "not both 0"),
        ({"fusion": {"bm25": -1}}, "at least 0"),
        ({"fusion": None}, "fusion: "),
        ({"fusion": 3}, "fusion: "),
        ({"field_weights": {"words": -0.1}}, "field_weights.words is from 0 to 1,000"),
        ({"field_weights": {"words": 1001}}, "field_weights.words is from 0 to 1,000"),
        ({"field_weights": {"words": None}}, "field_weights.words: "),
        ({"field_weights": dict.fromkeys(WEIGHTED, 0)}, "at least one field"),
        ({"field_weights": {"words": math.nan}}, "no JSON value"),
        ({"field_weights": {"words": math.inf}}, "no JSON value"),
        ({"field_weights": {"words": object()}}, "no JSON value"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(values: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidInput, match=named) as refused:
        Profile.from_dict(values)
    assert refused.value.field
