"""Training of the light ranker: few weights, chosen on some collections and proven on others.

A search is made once a query, with every kind of evidence at weight 1; thousands of weights are then
tried in memory. Each set counts alike, however many queries it has, and is measured by weights that it
had no part in choosing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from server.documents import document_id_of
from server.evaluation.replay import gain
from server.evaluation.significance import Paired, paired
from server.evaluation.variants import JudgedSet
from server.retrieval.light import LightWeights
from server.retrieval.profile import Profile
from server.retrieval.query import SearchQuery
from server.retrieval.searcher import Searcher

DEPTH = 10
GRID: Mapping[str, tuple[float, ...]] = {
    "windows": (0.0, 0.3, 0.4, 0.5, 0.6, 0.8),
    "bm25": (0.0, 0.2, 0.35, 0.5, 0.7, 1.0),
    "coverage": (0.0, 1.5, 3.0, 4.5, 6.0),
    "phrase": (0.0, 2.0, 3.5, 5.0, 7.0),
}
# Evidence at weight 1, but for the feedback, which depends on all the others.
_UNIT = LightWeights(windows=1.0, bm25=1.0, coverage=1.0, phrase=1.0, feedback=0.0)
_KINDS = tuple(GRID)
_SWEEPS = 3
_LEAST_GAIN = 1e-5

Progress = Callable[[Iterable[tuple[str, str]]], Iterable[tuple[str, str]]]


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A query's candidates in fused order: the ``documents`` that they are of, what each kind of
    GRID says of them, float64 (candidates, kinds), and their cosines' log-odds."""

    documents: tuple[str, ...]
    vector: NDArray[np.float64]
    evidence: NDArray[np.float64]
    grades: Mapping[str, int]

    def fused(self) -> float:
        """nDCG@10 as the fusion left them."""
        return gain(list(dict.fromkeys(self.documents)), self.grades, DEPTH)

    def ranked(self, weights: NDArray[np.float64]) -> float:
        """nDCG@10 by these weights, in the order of GRID."""
        scores = self.vector + self.evidence @ weights
        order = np.argsort(-scores, kind="stable")
        return gain(
            list(dict.fromkeys(self.documents[place] for place in order)), self.grades, DEPTH
        )


Examples = Mapping[str, Sequence[Example]]  # by set


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """How a set does by weights chosen on the sets of other groups: mean nDCG@10 ``before`` (fused)
    and ``after``, compared query by query."""

    name: str
    weights: LightWeights
    before: float
    after: float
    compared: Paired


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """``weights``: chosen on all sets."""

    weights: LightWeights
    proofs: tuple[Proof, ...]

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def collect(
    searcher: Searcher, judged: JudgedSet, *, progress: Progress = lambda queries: queries
) -> list[Example]:
    """Search every query of a set. Raises what Searcher.search raises."""
    examples = []
    for query_id, text in progress(judged.dataset.queries.items()):
        query = SearchQuery(
            query=text,
            collection=judged.collection,
            profile=replace(Profile(), light=_UNIT),
            size=1,
            highlight=False,
        )
        trace = searcher.trace(query, groups=None)
        said = {
            chunk_id: trace.evidence[chunk_id]
            for chunk_id, _ in trace.lists.get("fused", ())
            if chunk_id in trace.evidence
        }
        examples.append(
            Example(
                documents=tuple(document_id_of(chunk_id) for chunk_id in said),
                vector=np.array(
                    [each["vector"] + each.get("sparse", 0.0) for each in said.values()],
                    dtype=np.float64,
                ),
                evidence=np.array(
                    [[each[kind] for kind in _KINDS] for each in said.values()], dtype=np.float64
                ).reshape(len(said), len(_KINDS)),
                grades=judged.dataset.qrels[query_id],
            )
        )
    return examples


def train(examples: Examples, groups: Mapping[str, str]) -> Training:
    """Choose weights on all sets, and prove each set by weights chosen without its group.

    ``groups``: set → group, for sets whose documents or questions are others' too. Deterministic.
    """
    proofs = []
    for name, own in examples.items():
        others = {each: rows for each, rows in examples.items() if groups[each] != groups[name]}
        weights = choose(others, groups) if others else LightWeights()
        before = [example.fused() for example in own]
        after = [example.ranked(_array(weights)) for example in own]
        proofs.append(
            Proof(
                name=name,
                weights=weights,
                before=float(np.mean(before)),
                after=float(np.mean(after)),
                compared=paired(after, before),
            )
        )
    return Training(weights=choose(examples, groups), proofs=tuple(proofs))


def choose(examples: Examples, groups: Mapping[str, str]) -> LightWeights:
    """The weights that are best in the mean over groups, by coordinate search from the defaults."""

    def score(weights: LightWeights) -> float:
        by_group: dict[str, list[float]] = {}
        array = _array(weights)
        for name, rows in examples.items():
            mean = float(np.mean([example.ranked(array) for example in rows]))
            by_group.setdefault(groups[name], []).append(mean)
        return float(np.mean([np.mean(each) for each in by_group.values()]))

    best = LightWeights()
    reached = score(best)
    for _ in range(_SWEEPS):
        before = best
        for kind, values in GRID.items():
            tried = {value: score(replace(best, **{kind: value})) for value in values}
            value = max(tried, key=tried.__getitem__)
            if tried[value] > reached + _LEAST_GAIN:
                best, reached = replace(best, **{kind: value}), tried[value]
        if best == before:
            break
    return best


def _array(weights: LightWeights) -> NDArray[np.float64]:
    return np.array([getattr(weights, kind) for kind in _KINDS], dtype=np.float64)
