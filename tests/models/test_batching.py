"""Work that comes while the engine is busy goes together; nobody waits, fails or gets mixed up for it."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.models.batching import Batching, Rows
from server.models.workers import Workers
from tests.models.forks import in_child

LANE = "queries"


class Engine:
    """A fake that stands for a model: a row of an item is the item and its square.

    ``passes``: the items of each pass. While ``open`` is not set, passes wait. An item that is in
    ``poison``, or more items than ``most``, fail the pass.
    """

    def __init__(self, *, most: int = 1_000) -> None:
        self.passes: list[list[int]] = []
        self.open = threading.Event()
        self.open.set()
        self.poison: set[int] = set()
        self.most = most

    def forward(self, items: Sequence[int]) -> Rows:
        self.passes.append(list(items))
        assert self.open.wait(20)
        if self.poison & set(items) or len(items) > self.most:
            raise ValueError(f"can't take {items}")
        return rows(items)


def rows(items: Sequence[int]) -> Rows:
    return np.array([[item, item * item] for item in items], np.float32).reshape(-1, 2)


def batching(engine: Engine, *, most: int = 1_000) -> Batching:
    return Batching(
        Workers("test", LANE, "other"),
        engine.forward,
        lambda items, more: len(items) + len(more) <= most,
    )


def ask(
    pool: ThreadPoolExecutor, engine: Engine, passes: Batching, *asked: list[int]
) -> list["Future[Rows]"]:
    """Callers that come in this order, the first to an idle engine that is not ``open``."""
    futures = []
    for number, items in enumerate(asked):
        futures.append(pool.submit(passes.run, LANE, items))
        await_until(lambda: bool(engine.passes) and waiting(passes) >= number)  # noqa: B023
    return futures


def waiting(passes: Batching) -> int:
    return sum(map(len, passes._waiting.values()))


def await_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def behind_one(engine: Engine, passes: Batching, *asked: list[int]) -> list[Rows | BaseException]:
    """What callers get that came in this order while the engine was busy with somebody's 0."""
    engine.open.clear()
    with ThreadPoolExecutor(len(asked) + 1) as pool:
        first, *others = ask(pool, engine, passes, [0], *asked)
        engine.open.set()
        assert np.array_equal(first.result(20), rows([0]))
        return [future.exception(20) or future.result() for future in others]


def test_who_finds_the_engine_idle_goes_at_once_and_alone() -> None:
    engine = Engine()
    passes = batching(engine)
    for item in (3, 4):
        assert np.array_equal(passes.run(LANE, [item]), rows([item]))
    assert engine.passes == [[3], [4]]


def test_those_who_come_meanwhile_go_together_and_each_gets_its_own() -> None:
    engine = Engine()
    found = behind_one(engine, batching(engine), [1], [2, 3], [4], [5, 6, 7])
    assert engine.passes == [[0], [1, 2, 3, 4, 5, 6, 7]]
    assert [row[:, 0].tolist() for row in found] == [[1], [2, 3], [4], [5, 6, 7]]


def test_a_pass_takes_no_more_than_joins_and_keeps_the_order_of_coming() -> None:
    engine = Engine()
    behind_one(engine, batching(engine, most=3), [1], [2], [3, 4], [5, 6, 7, 8], [9])
    assert engine.passes == [[0], [1, 2], [3, 4], [5, 6, 7, 8], [9]]


def test_one_bad_item_fails_its_own_caller_alone() -> None:
    engine = Engine()
    engine.poison = {2}
    found = behind_one(engine, batching(engine), [1], [2, 3], [4])
    assert np.array_equal(found[0], rows([1]))
    assert isinstance(found[1], ValueError)
    assert np.array_equal(found[2], rows([4]))


def test_what_is_too_much_together_goes_apart() -> None:
    engine = Engine(most=2)
    found = behind_one(engine, batching(engine), [1], [2], [3])
    assert [row[:, 0].tolist() for row in found] == [[1], [2], [3]]


def test_a_query_waits_for_one_batch_of_a_long_work_not_for_all_of_it() -> None:
    engine = Engine()
    passes = batching(engine, most=4)

    def long_work() -> None:
        for start in range(100, 140, 4):
            passes.run(LANE, list(range(start, start + 4)))

    engine.open.clear()
    with ThreadPoolExecutor(2) as pool:
        work = pool.submit(long_work)
        await_until(lambda: bool(engine.passes))
        query = pool.submit(passes.run, LANE, [1])
        await_until(lambda: waiting(passes) == 1)
        engine.open.set()
        query.result(20)
        work.result(20)
    assert engine.passes[1] == [1]


def test_lanes_do_not_wait_for_each_other() -> None:
    engine = Engine()
    passes = batching(engine)
    engine.open.clear()
    with ThreadPoolExecutor(2) as pool:
        pool.submit(passes.run, LANE, [1])
        pool.submit(passes.run, "other", [2])
        await_until(lambda: len(engine.passes) == 2)
        engine.open.set()
    assert sorted(engine.passes) == [[1], [2]]


@settings(max_examples=40, deadline=None)
@given(
    asked=st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=6), min_size=1, max_size=24),
    most=st.integers(1, 16),
    poison=st.integers(0, 2_000),
)
def test_whatever_comes_at_once_each_gets_what_it_would_get_alone(
    asked: list[list[int]], most: int, poison: int
) -> None:
    engine = Engine()
    engine.poison = {poison}
    passes = batching(engine, most=most)

    def work(items: list[int]) -> bool:
        if poison in items:
            with pytest.raises(ValueError, match="can't take"):
                passes.run(LANE, items)
            return True
        return np.array_equal(passes.run(LANE, items), rows(items))

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(work, asked))
    limit = max(most, *map(len, asked))
    assert all(len(one) <= limit for one in engine.passes)


def test_an_engine_that_loses_a_row_is_an_error_and_no_mix_up() -> None:
    passes = Batching(Workers("test", LANE), lambda items: rows(items)[1:], lambda *_: True)
    with pytest.raises(RuntimeError, match="1 rows for 2 items"):
        passes.run(LANE, [1, 2])


def test_nobody_waits_for_ever_when_joining_fails() -> None:
    engine = Engine()

    def joins(items: Sequence[int], more: Sequence[int]) -> bool:
        raise KeyError(more)

    found = behind_one(engine, Batching(Workers("test", LANE), engine.forward, joins), [1], [2])
    assert isinstance(found[0], RuntimeError)
    assert np.array_equal(found[1], rows([2]))


def test_a_forked_child_has_its_own_passes() -> None:
    engine = Engine()
    passes = batching(engine)
    engine.open.clear()
    with ThreadPoolExecutor(3) as pool:
        waiting = ask(pool, engine, passes, [1], [2], [3])  # one in the engine, two behind it
        engine.open.set()

        def child() -> list[float]:
            engine.open.set()
            return passes.run(LANE, [7])[:, 0].tolist()

        assert in_child(child) == [7]
        assert [future.result(20)[0, 0] for future in waiting] == [1, 2, 3]
