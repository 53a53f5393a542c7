"""Tuning: the profile that judged queries want, and whether it holds on queries that did not choose it.

Values are chosen one after another, each time the one that gains most, until none gains (coordinate
search). The gain is measured by cross-validation: chosen on all folds but one, measured on that one, each
in turn, so that no query is measured by what it helped to choose.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.errors import InvalidInput
from server.evaluation.dataset import Qrels
from server.evaluation.folds import folds
from server.evaluation.replay import Recording, gain
from server.evaluation.significance import ALPHA, Paired, paired
from server.retrieval.profile import WEIGHTED, Profile

DEPTH = 10  # of nDCG
FEWEST_QUERIES = 30
LEAST_GAIN = (
    0.0005  # of a value's change, on the queries that choose; less is noise that moves values
)
_SWEEPS = 4

Values = NDArray[np.float64]  # nDCG@10 by query, in the order of the queries


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunable:
    """A value of the profile that tuning may choose, and from what. ``path``: as in "fusion.window".

    ``needs``: path and value without which it acts on nothing. Words are kinds, each of which is tuned
    by itself; numbers are tried one after another.
    """

    path: str
    values: tuple[Any, ...]
    needs: tuple[str, Any] | None = None

    @property
    def is_kind(self) -> bool:
        return isinstance(self.values[0], str)


_WEIGHTS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0)

TUNABLE: tuple[Tunable, ...] = (
    Tunable(path="fusion.method", values=("log_odds", "convex", "rrf")),
    # Beside the weight of the BM25 list, whose own scale changes nothing.
    Tunable(
        path="fusion.vector",
        values=(0.0, 0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0, 10.0, 20.0),
    ),
    *(Tunable(path=f"field_weights.{name}", values=_WEIGHTS) for name in WEIGHTED),
    Tunable(path="fusion.rank_constant", values=(5, 20, 60, 120), needs=("fusion.method", "rrf")),
    Tunable(path="fusion.window", values=(100, 200, 400)),
)


def largest_window(profile: Profile, tunables: Iterable[Tunable] = TUNABLE) -> int:
    """How deep lists must be recorded so that every profile of a tuning can be replayed."""
    windows = [int(max(one.values)) for one in tunables if one.path == "fusion.window"]
    return max([profile.fusion.window, *windows])


class Trials:
    """nDCG@10 of profiles on recorded queries; each profile is replayed once."""

    def __init__(
        self,
        recordings: Mapping[str, Recording],
        qrels: Qrels,
        *,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.queries = tuple(sorted(recordings))
        self._recordings = recordings
        self._qrels = qrels
        self._progress = progress
        self._known: dict[str, Values] = {}

    def of(self, profile: Profile) -> Values:
        key = json.dumps(profile.as_dict(), sort_keys=True)
        if key not in self._known:
            self._known[key] = np.array(
                [
                    gain(self._recordings[each].documents(profile, DEPTH), self._qrels[each], DEPTH)
                    for each in self.queries
                ]
            )
            self._progress()
        return self._known[key]

    @property
    def count(self) -> int:
        """How many profiles were replayed."""
        return len(self._known)

    def places(self, query_ids: Iterable[str]) -> NDArray[np.int64]:
        """Where queries stand in ``Values``."""
        at = {query_id: place for place, query_id in enumerate(self.queries)}
        return np.array(sorted(at[query_id] for query_id in query_ids), dtype=np.int64)


def p_said(p: float) -> str:
    """A p value for people; randomisation tests tell no smaller ones apart."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """``queries`` that had no part in choosing ``profile``, and their mean nDCG@10 by the profile in
    force (``before``) and by it (``after``)."""

    queries: int
    profile: Profile
    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """``chosen``: on all queries. ``held_out``: how the folds' profiles do on queries that did not
    choose them, beside ``start``; ``before`` and ``after`` are those means."""

    start: Profile
    chosen: Profile
    queries: int
    folds: tuple[Fold, ...]
    before: float
    after: float
    held_out: Paired

    @property
    def objection(self) -> str:
        """Why the chosen profile should not be put in force; empty where nothing speaks against it."""
        if self.chosen == self.start:
            return "No other profile is better on these queries."
        if self.queries < FEWEST_QUERIES:
            return f"{self.queries} judged queries are too few to tell; {FEWEST_QUERIES} are the least."
        if self.held_out.difference <= 0:
            return "It does not gain on queries that had no part in choosing it."
        if self.held_out.p >= ALPHA:
            return (
                "Its gain on queries that had no part in choosing it may be chance "
                f"({p_said(self.held_out.p)})."
            )
        return ""

    def values(self, tunables: Iterable[Tunable] = TUNABLE) -> list[dict[str, Any]]:
        """Of each tunable value: in force, chosen, and chosen by each fold."""
        return [
            {
                "path": each.path,
                "in_force": value_at(self.start, each.path),
                "chosen": value_at(self.chosen, each.path),
                "folds": [value_at(fold.profile, each.path) for fold in self.folds],
            }
            for each in tunables
        ]


def tune(
    trials: Trials,
    start: Profile,
    *,
    fold_count: int,
    seed: int,
    tunables: Sequence[Tunable] = TUNABLE,
) -> Tuning:
    """Choose a profile, and measure by cross-validation what choosing so gains over ``start``.

    Deterministic. Raises InvalidInput for a number of folds that can't be.
    """
    parts = [trials.places(part) for part in folds(trials.queries, fold_count, seed=seed)]
    everything = np.arange(len(trials.queries))
    before = trials.of(start)
    held_out = before.copy()
    measured = []
    for part in parts:
        profile = choose(trials, start, np.setdiff1d(everything, part), tunables)
        held_out[part] = trials.of(profile)[part]
        measured.append(
            Fold(
                queries=len(part),
                profile=profile,
                before=float(before[part].mean()),
                after=float(held_out[part].mean()),
            )
        )
    return Tuning(
        start=start,
        chosen=choose(trials, start, everything, tunables),
        queries=len(trials.queries),
        folds=tuple(measured),
        before=float(before.mean()),
        after=float(held_out.mean()),
        held_out=paired(held_out.tolist(), before.tolist()),
    )


def choose(
    trials: Trials,
    start: Profile,
    places: NDArray[np.int64],
    tunables: Sequence[Tunable] = TUNABLE,
) -> Profile:
    """The profile that is best on the queries at ``places``, reached from ``start``; ``start`` itself
    where none gains LEAST_GAIN."""

    def score(profile: Profile) -> float:
        return float(trials.of(profile)[places].mean())

    kinds = [each for each in tunables if each.is_kind]
    numbers = [each for each in tunables if not each.is_kind]
    best, reached = start, score(start)
    for combination in product(*(each.values for each in kinds)):
        profile = start
        for each, value in zip(kinds, combination, strict=True):
            profile = with_value(profile, each.path, value)
        profile = _climb(profile, numbers, score)
        if score(profile) >= reached + LEAST_GAIN:
            best, reached = profile, score(profile)
    return best


def _climb(
    profile: Profile, tunables: Sequence[Tunable], score: Callable[[Profile], float]
) -> Profile:
    reached = score(profile)
    for _ in range(_SWEEPS):
        before = profile
        for each in tunables:
            if each.needs is not None and value_at(profile, each.needs[0]) != each.needs[1]:
                continue
            trying = [made for value in each.values if (made := _try(profile, each.path, value))]
            best = max(trying, key=score, default=profile)
            if score(best) >= reached + LEAST_GAIN:
                profile, reached = best, score(best)
        if profile == before:
            break
    return profile


def _try(profile: Profile, path: str, value: Any) -> Profile | None:
    """None where the profile would not be one, such as one whose weights are all 0."""
    try:
        return with_value(profile, path, value)
    except InvalidInput:
        return None


def value_at(profile: Profile, path: str) -> Any:
    """None where a mapping of the profile lacks it."""
    value: Any = profile.as_dict()
    for part in path.split("."):
        value = value.get(part)
    return value


def with_value(profile: Profile, path: str, value: Any) -> Profile:
    """Raises InvalidInput for a value that a profile can't have there."""
    nested = value
    for part in reversed(path.split(".")):
        nested = {part: nested}
    return Profile.from_dict(nested, base=profile)
