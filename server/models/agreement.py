"""How far a model's other forms (ONNX in fp32, in int8) agree with the model, and how far they must."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.models.contract import Embedder, Reranker

LENGTHS = (12, 40, 100, 250, 600)  # characters of the passages that are compared
QUERY_LENGTH = 24
PASSAGES, QUERIES = 50, 20
PAIRED_PASSAGES, PAIRED_QUERIES = 24, 4
TOP = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """fp32 must give the model's own values (``cosine`` at least; ``difference`` of scores at most), since
    collections are not indexed again for it; other precisions must rank alike (``overlap`` and ``tau`` at
    least)."""

    cosine: float = 0.9999
    difference: float = 1e-3
    overlap: float = 0.9
    tau: float = 0.9

    def alike(self, found: Mapping[str, float]) -> bool:
        return found["overlap"] >= self.overlap and found["tau"] >= self.tau


STATED = Bounds()

Checks = dict[str, Any]
Scores = NDArray[np.floating[Any]]


def embedder_checks(
    embedder: Embedder,
    others: Mapping[str, Embedder],
    texts: Sequence[str],
    bounds: Bounds = STATED,
) -> dict[str, Checks]:
    """By the others' names: the least ``cosine`` of a text's two vectors, ``rankings``, ``usable``."""
    passages, queries = cut(texts, PASSAGES, LENGTHS), cut(texts, QUERIES, [QUERY_LENGTH])

    def vectors(one: Embedder) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return np.stack([one.embed_query(query) for query in queries]), one.embed_documents(
            passages
        )

    own = vectors(embedder)
    found = {}
    for name, other in others.items():
        theirs = vectors(other)
        cosine = min(float((a * b).sum(axis=1).min()) for a, b in zip(own, theirs, strict=True))
        alike = rankings(own[0] @ own[1].T, theirs[0] @ theirs[1].T)
        usable = cosine >= bounds.cosine if name == "fp32" else bounds.alike(alike)
        found[name] = {"cosine": round(cosine, 6), **alike, "usable": usable}
    return found


def reranker_checks(
    reranker: Reranker,
    others: Mapping[str, Reranker],
    texts: Sequence[str],
    bounds: Bounds = STATED,
) -> dict[str, Checks]:
    """By the others' names: the largest ``difference`` of a pair's two scores beside the ``deviation`` of
    all, ``rankings``, ``usable``."""
    passages = cut(texts, PAIRED_PASSAGES, LENGTHS)
    queries = cut(texts, PAIRED_QUERIES, [QUERY_LENGTH])
    own = np.array([reranker.score(query, passages) for query in queries])
    found = {}
    for name, other in others.items():
        theirs = np.array([other.score(query, passages) for query in queries])
        difference = float(np.abs(own - theirs).max())
        alike = rankings(own, theirs)
        usable = difference <= bounds.difference if name == "fp32" else bounds.alike(alike)
        found[name] = {
            "difference": round(difference, 6),
            "deviation": round(float(own.std()), 6),
            **alike,
            "usable": usable,
        }
    return found


def rankings(one: Scores, other: Scores) -> dict[str, float]:
    """Of the scores of the same candidates, a row a query: the share of the TOP that both have in common
    (``overlap``) and Kendall's tau (``tau``), each the mean over the queries."""
    first, theirs = (np.argsort(-scores, axis=1, kind="stable")[:, :TOP] for scores in (one, other))
    overlap = [
        len({*a} & {*b}) / len(a) for a, b in zip(first.tolist(), theirs.tolist(), strict=True)
    ]
    upper = np.triu_indices(one.shape[1], 1)
    signs = (np.sign(x[:, upper[0]] - x[:, upper[1]]) for x in (one, other))
    tau = np.prod(list(signs), axis=0).mean()
    return {"overlap": round(float(np.mean(overlap)), 4), "tau": round(float(tau), 4)}


def cut(texts: Sequence[str], count: int, lengths: Sequence[int]) -> list[str]:
    """Parts from all over the texts, by turns of each length; always the same."""
    whole = "\n".join(texts)
    step = max(1, len(whole) // count)
    return [
        whole[place * step : place * step + length]
        for place, length in enumerate(islice(cycle(lengths), count))
    ]
