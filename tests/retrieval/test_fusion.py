import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidInput
from server.retrieval.fusion import Fusion, Worth, contributions, fuse

scores = st.floats(min_value=-100, max_value=100, allow_nan=False)
ranked = st.dictionaries(st.sampled_from([f"d{n}:0" for n in range(12)]), scores).map(
    lambda found: sorted(found.items(), key=lambda item: (-item[1], item[0]))
)
fusions = st.builds(
    Fusion,
    method=st.sampled_from(["log_odds", "rrf", "convex"]),
    bm25=st.floats(min_value=0.1, max_value=5),
    vector=st.floats(min_value=0, max_value=5),
    sparse=st.floats(min_value=0, max_value=5),
)


@given(ranked, ranked, st.none() | ranked, fusions)
def test_every_chunk_comes_out_once_in_a_determined_order(bm25, vector, sparse, fusion):
    lists = {"bm25": bm25, "vector": vector} | ({} if sparse is None else {"sparse": sparse})
    fused = fuse(lists, fusion)

    ids = [chunk_id for chunk_id, _ in fused]
    assert sorted(ids) == sorted({chunk_id for each in lists.values() for chunk_id, _ in each})
    assert fused == sorted(fused, key=lambda item: (-item[1], item[0]))
    assert fused == fuse(dict(reversed(lists.items())), fusion)


def test_each_list_counts_by_its_own_worth_and_weight():
    lists = {
        "bm25": [("a:0", 2.0)],
        "vector": [("a:0", 0.5), ("b:0", 0.25)],
        "sparse": [("b:0", 0.2), ("a:0", 0.1)],
    }
    worth = Worth(bm25=3, vector=50, sparse=15)

    assert dict(fuse(lists, Fusion(sparse=2), worth)) == pytest.approx(
        {"a:0": 6 + 25 + 3, "b:0": 12.5 + 6}
    )
    assert dict(fuse(lists, Fusion(sparse=0), worth)) == pytest.approx({"a:0": 31, "b:0": 12.5})
    assert dict(fuse(lists, Fusion(method="rrf", sparse=2))) == pytest.approx(
        {"a:0": 1 / 61 + 1 / 61 + 2 / 62, "b:0": 1 / 62 + 2 / 61}
    )
    assert dict(fuse(lists, Fusion(method="convex", sparse=2))) == pytest.approx(
        {"a:0": (1 + 1) / 4, "b:0": 2 / 4}
    )


def test_a_sparse_list_that_was_cut_gives_the_others_its_last():
    lists = {"bm25": [("c:0", 1.0)], "sparse": [("a:0", 0.4), ("b:0", 0.2)]}
    parts = contributions(lists, Fusion(window=2), Worth(sparse=10))
    assert parts["sparse"] == (pytest.approx({"a:0": 4.0, "b:0": 2.0}), pytest.approx(2.0))
    assert contributions(lists, Fusion(window=3), Worth(sparse=10))["sparse"][1] == 0


@given(ranked, fusions)
def test_a_list_fused_alone_keeps_its_order(bm25, fusion):
    fused = fuse({"bm25": bm25}, fusion)

    by_score = {}
    for chunk_id, score in bm25:
        by_score.setdefault(score, set()).add(chunk_id)
    if fusion.method == "rrf":
        assert [chunk_id for chunk_id, _ in fused] == [chunk_id for chunk_id, _ in bm25]
    assert {chunk_id for chunk_id, _ in fused} == {chunk_id for chunk_id, _ in bm25}


@given(ranked, ranked, st.floats(min_value=0.5, max_value=2), st.floats(-50, 50))
def test_convex_fusion_does_not_depend_on_a_list_s_scale(bm25, vector, factor, shift):
    scaled = [(chunk_id, round(score * 2**6) * factor + shift) for chunk_id, score in bm25]
    plain = [(chunk_id, float(round(score * 2**6))) for chunk_id, score in bm25]

    convex = Fusion(method="convex")
    one = dict(fuse({"bm25": plain, "vector": vector}, convex))
    other = dict(fuse({"bm25": scaled, "vector": vector}, convex))

    assert one == pytest.approx(other, abs=1e-6)


def test_reciprocal_ranks_are_those_of_the_paper():
    fused = fuse(
        {"bm25": [("a:0", 9.0), ("b:0", 8.0)], "vector": [("b:0", 0.9), ("c:0", 0.8)]},
        Fusion(method="rrf"),
    )

    assert fused == [
        ("b:0", pytest.approx(1 / 62 + 1 / 61)),
        ("a:0", pytest.approx(1 / 61)),
        ("c:0", pytest.approx(1 / 62)),
    ]


def test_convex_weights_share_the_whole():
    fused = fuse(
        {"bm25": [("a:0", 20.0), ("b:0", 10.0)], "vector": [("b:0", 0.9), ("a:0", 0.1)]},
        Fusion(method="convex", bm25=1, vector=3),
    )

    assert fused == [("b:0", pytest.approx(0.75)), ("a:0", pytest.approx(0.25))]


def test_log_odds_are_scores_times_what_they_are_worth():
    fused = fuse(
        {"bm25": [("a:0", 20.0), ("b:0", 10.0)], "vector": [("b:0", 0.9), ("a:0", 0.8)]},
        Fusion(),
        Worth(bm25=0.5, vector=100),
    )

    assert fused == [("b:0", pytest.approx(95)), ("a:0", pytest.approx(90))]


def test_what_a_cut_list_lacks_gets_what_its_last_has():
    bm25 = [("a:0", 5.0)]  # all that match
    vector = [("b:0", 0.9), ("c:0", 0.7)]  # cut

    by_chunk = dict(fuse({"bm25": bm25, "vector": vector}, Fusion(), Worth(bm25=1, vector=10)))

    assert by_chunk == pytest.approx({"a:0": 5 + 7, "b:0": 9, "c:0": 7})


def test_a_bm25_list_that_was_cut_says_what_its_last_had():
    lists = {"bm25": [("a:0", 5.0), ("b:0", 3.0)], "vector": [("c:0", 0.5)]}

    parts = contributions(lists, Fusion(window=2, bm25=2), Worth(bm25=1, vector=1))

    assert parts["bm25"] == ({"a:0": 10.0, "b:0": 6.0}, 6.0)
    assert contributions(lists, Fusion(window=3), Worth())["bm25"][1] == 0.0


@given(ranked, ranked)
def test_words_that_tell_nothing_leave_the_order_to_the_vectors(bm25, vector):
    fused = fuse({"bm25": bm25, "vector": vector}, Fusion(), Worth(bm25=0.0, vector=100))

    meant = dict(vector)
    order = [meant[chunk_id] for chunk_id, _ in fused if chunk_id in meant]
    assert order == sorted(order, reverse=True)


def test_only_the_window_enters():
    deep = [(f"d{n}:0", 100.0 - n) for n in range(10)]

    fused = fuse({"bm25": deep}, Fusion(window=3))

    assert [chunk_id for chunk_id, _ in fused] == ["d0:0", "d1:0", "d2:0"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "sum"},
        {"bm25": -1.0},
        {"bm25": 0.0, "vector": 0.0},
        {"vector": float("nan")},
        {"rank_constant": 0},
        {"window": 0},
        {"window": 10_001},
    ],
)
def test_wrong_fusion_is_refused(wrong):
    with pytest.raises(InvalidInput):
        Fusion(**wrong)
