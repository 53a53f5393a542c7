"""Folds of queries, for choosing on some and measuring on others."""

import random
from collections.abc import Iterable

from server.errors import InvalidInput


def folds(query_ids: Iterable[str], count: int, *, seed: int) -> tuple[tuple[str, ...], ...]:
    """The queries dealt out at random into ``count`` parts whose sizes differ by one at most.

    The same queries, in whatever order, and the same seed give the same folds. Raises InvalidInput for
    fewer queries than folds, and for fewer than two folds.
    """
    shuffled = sorted(query_ids)
    if not 2 <= count <= len(shuffled):
        raise InvalidInput(
            f"Folds are from 2 to the number of judged queries, {len(shuffled)}; got {count}.",
            field="folds",
        )
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - nothing to guess
    return tuple(tuple(shuffled[at::count]) for at in range(count))
