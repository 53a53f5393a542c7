import pytest

from server.errors import RerankerUnavailable
from server.retrieval.rerank import BATCH, rerank


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class SlowReranker:
    """Scores by length and takes a set time a batch; records the batches."""

    name = "slow"

    def __init__(self, clock, seconds, fails_at=None):
        self.clock, self.seconds, self.fails_at = clock, seconds, fails_at
        self.batches = []

    def score(self, query, passages):
        self.batches.append(list(passages))
        if self.fails_at == len(self.batches):
            raise RerankerUnavailable("The reranker broke.")
        self.clock.now += self.seconds
        return [len(passage) / 1000 for passage in passages]


passages = [(f"d{n}:0", "字" * (n + 1)) for n in range(3 * BATCH + 1)]


def test_all_are_scored_within_the_budget():
    clock = Clock()
    reranker = SlowReranker(clock, 0.1)

    result = rerank("问", passages, reranker, seconds=2, clock=clock)

    assert result.scores == {
        chunk_id: pytest.approx(len(text) / 1000) for chunk_id, text in passages
    }
    assert not result.degraded
    assert all(len(batch) <= BATCH for batch in reranker.batches)


def test_what_does_not_fit_the_budget_is_left_out_and_named():
    clock = Clock()

    result = rerank("问", passages, SlowReranker(clock, 1.0), seconds=2.5, clock=clock)

    assert list(result.scores) == [chunk_id for chunk_id, _ in passages[: 2 * BATCH]]
    assert clock.now == 2.0
    (degraded,) = result.degraded
    assert degraded.stage == "rerank"
    assert "16 of 25" in degraded.reason


def test_a_failure_keeps_the_fused_order_whole():
    clock = Clock()

    result = rerank("问", passages, SlowReranker(clock, 0.1, fails_at=2), seconds=9, clock=clock)

    assert result.scores == {}
    assert result.degraded[0].reason == "The reranker broke."


def test_nothing_to_rerank_calls_nobody():
    reranker = SlowReranker(Clock(), 0.1)

    assert rerank("问", [], reranker, seconds=1, clock=Clock()).scores == {}
    assert reranker.batches == []
