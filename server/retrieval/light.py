"""The light ranker: orders the first fused hits by evidence that is cheap to read from the passages.

It stands where no reranker model can be had. Linear in log-odds, so that every hit can say what placed it;
few weights, found and proven by scripts/train_ranker on collections that had no part in finding them
(DECISIONS.md).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from server.analysis.contract import Analyzer
from server.documents import Passage, Vector
from server.errors import InvalidInput
from server.hits import Ranker
from server.retrieval.evidence import QueryTerms
from server.retrieval.fusion import Worth

MAX_WEIGHT = 1_000.0
FEEDBACK_PASSAGES = 3  # the first ones, whose windows draw the query's vector towards them

Evidence = Mapping[str, float]  # by kind, in log-odds; their sum is the score


@dataclass(frozen=True, slots=True, kw_only=True)
class LightWeights:
    """What each kind of evidence weighs.

    ``windows``: the share of a passage's best window of sentences in its cosine, from 0 to 1.
    ``bm25``: what remains of the fusion's BM25, since the next two say some of it again.
    ``coverage``: log-odds of a passage that has all of the query's words (by idf). ``phrase``: of one
    that has the whole query side by side. ``feedback``: how far the best windows of the first
    passages draw the query's vector towards them (Rocchio, in The SMART Retrieval System, 1971).

    Raises InvalidInput.
    """

    windows: float = 0.5
    bm25: float = 0.4
    coverage: float = 2.0
    phrase: float = 5.0
    feedback: float = 0.2

    def __post_init__(self) -> None:
        for each in fields(self):
            most = 1.0 if each.name in {"windows", "feedback"} else MAX_WEIGHT
            value = getattr(self, each.name)
            if not (math.isfinite(value) and 0 <= value <= most):
                raise InvalidInput(
                    f"light.{each.name} is from 0 to {most:,.0f}.", field=f"light.{each.name}"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A passage that the fusion put forward. ``fused``: its log-odds by retriever."""

    passage: Passage
    fused: Mapping[Ranker, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class LightRanker:
    """Weighs the candidates of one query. ``vector``: the query's, float32 (dimensions,)."""

    weights: LightWeights
    terms: QueryTerms
    worth: Worth
    vector: Vector
    analyzer: Analyzer

    def rank(self, candidates: Sequence[Candidate]) -> dict[str, Evidence]:
        """What speaks for each chunk, by its id."""
        said = [
            self._words(candidate)
            | self._meaning(candidate, self.vector)
            | {name: each for name, each in candidate.fused.items() if name == "sparse"}
            for candidate in candidates
        ]
        drawn = self._drawn(candidates, said)
        if drawn is not None:
            again = [self._meaning(candidate, drawn)["windows"] for candidate in candidates]
            gains = [new - kinds["windows"] for new, kinds in zip(again, said, strict=True)]
            # Nearly all come nearer; those without windows must not fall behind for it.
            moved = [
                gain
                for gain, candidate in zip(gains, candidates, strict=True)
                if candidate.passage.windows is not None
            ]
            usual = sum(moved) / len(moved)
            for gain, candidate, kinds in zip(gains, candidates, said, strict=True):
                kinds["feedback"] = 0.0 if candidate.passage.windows is None else gain - usual
        return {
            candidate.passage.chunk.id: kinds
            for candidate, kinds in zip(candidates, said, strict=True)
        }

    def _words(self, candidate: Candidate) -> dict[str, float]:
        read = self.analyzer.analyze(candidate.passage.full_text)
        return {
            "bm25": self.weights.bm25 * candidate.fused["bm25"],
            "coverage": self.weights.coverage * self.terms.coverage(read),
            "phrase": self.weights.phrase * self.terms.longest_phrase(read),
        }

    def _meaning(self, candidate: Candidate, query: Vector) -> dict[str, float]:
        """The passage's cosine, and what its best window adds to it or takes from it."""
        whole, windows = candidate.fused["vector"], candidate.passage.windows
        if windows is None:  # too short for two, or of a collection that was made without
            return {"vector": whole, "windows": 0.0}
        best = self.worth.vector * float(np.max(windows @ query))
        return {"vector": whole, "windows": self.weights.windows * (best - whole)}

    def _drawn(
        self, candidates: Sequence[Candidate], said: Sequence[Mapping[str, float]]
    ) -> Vector | None:
        """The query's vector drawn towards the best windows of the first passages, each as likely as
        it is; None where that changes nothing."""
        scores = np.array([sum(kinds.values()) for kinds in said])
        first = [
            (scores[place], windows)
            for place in np.argsort(-scores, kind="stable")
            if (windows := candidates[place].passage.windows) is not None
        ][:FEEDBACK_PASSAGES]
        if not self.weights.feedback or not first:
            return None
        shares = np.exp(np.array([score - first[0][0] for score, _ in first]))
        best = np.stack([windows[np.argmax(windows @ self.vector)] for _, windows in first])
        centre = (shares / shares.sum()).astype(np.float32) @ best
        drawn: Vector = self.vector + np.float32(self.weights.feedback) * centre
        drawn /= np.linalg.norm(drawn)
        return drawn
