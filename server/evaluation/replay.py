"""Replay: what a query finds by any profile, from lists that were retrieved once.

A profile changes how lists are summed, cut and fused, and not what a text field's BM25 or a cosine is.
So the store is asked once a query and field, and thousands of profiles cost no search. What a search does
between the retrievers and the fused list is done here by the same functions.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from server.documents import document_id_of
from server.hits import Ranker
from server.retrieval.fusion import Fusion, Ranked, Worth, fuse
from server.retrieval.profile import WEIGHTED, Profile
from server.retrieval.query import SearchQuery
from server.retrieval.searcher import Searcher
from server.stores.contract import MAX_DEPTH, Store
from server.stores.filters import Terms


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """What was retrieved for one query.

    ``chunks``: ids in order, and ``scores``, float32 (chunks, WEIGHTED), what BM25 gives each in each
    field at weight 1. ``vector``: the kNN list, None where the collection has no vectors; ``sparse``: that
    of sparse weights. ``worth``: of the lists' scores for this query.
    """

    chunks: tuple[str, ...]
    scores: NDArray[np.float32]
    vector: Ranked | None
    worth: Worth | None = None
    sparse: Ranked | None = None

    def documents(self, profile: Profile, size: int) -> list[str]:
        """The best ``size`` documents by their best chunk, as a search by this profile ranks them
        before the reranker."""
        # As a search does, which fills its page though the window be smaller.
        fusion = replace(profile.fusion, window=max(size, profile.fusion.window))
        ranked = self._ranked(replace(profile, fusion=fusion))
        documents: dict[str, None] = {}
        for chunk_id, _ in ranked:
            documents[document_id_of(chunk_id)] = None
            if len(documents) == size:
                break
        return list(documents)

    def _ranked(self, profile: Profile) -> Ranked:
        words = self._words(profile)
        if self.vector is None:
            return words
        lists: dict[Ranker, Ranked] = {"bm25": words, "vector": self.vector}
        if self.sparse is not None and profile.fusion.sparse:
            lists["sparse"] = self.sparse
        return fuse(lists, profile.fusion, self.worth)

    def _words(self, profile: Profile) -> Ranked:
        weights = [profile.field_weights.get(name, 0.0) for name in WEIGHTED]
        sums = self.scores @ np.array(weights)
        best = np.argsort(-sums, kind="stable")[: profile.fusion.window]  # stable: ties by chunk id
        return [(self.chunks[at], float(sums[at])) for at in best if sums[at] > 0]


class Recorder:
    """Asks a collection's retrievers for everything that a profile could use. ``depth``: of each list;
    no profile with a larger window can be replayed."""

    def __init__(self, store: Store, searcher: Searcher, *, depth: int) -> None:
        self._store = store
        self._searcher = searcher
        self._depth = depth

    def record(self, collection: str, query: str) -> Recording:
        """Retrieve for a caller who may see everything.

        Raises CollectionNotFound, and what a retriever raises: half the evidence would choose badly.
        """
        base = SearchQuery(
            query=query,
            collection=collection,
            size=1,
            fusion=Fusion(window=self._depth),
            rerank=False,
            highlight=False,
        )
        found = {name: dict(self._words(base, name)) for name in WEIGHTED}
        chunks = sorted({chunk_id for scores in found.values() for chunk_id in scores})
        documents = tuple(sorted({document_id_of(chunk_id) for chunk_id in chunks}))
        among = replace(
            base, filter=Terms("document_id", documents), fusion=Fusion(window=MAX_DEPTH)
        )
        for name, scores in found.items():
            if len(scores) == self._depth:  # others may have scores below the list's end
                scores.update(self._words(among, name))
        rows = [[scores.get(each, 0.0) for scores in found.values()] for each in chunks]
        vector, sparse, worth = self._vectors(base)
        return Recording(
            chunks=tuple(chunks),
            scores=np.array(rows, dtype=np.float32).reshape(len(chunks), len(found)),
            vector=vector,
            worth=worth,
            sparse=sparse,
        )

    def _words(self, base: SearchQuery, name: str) -> Ranked:
        """One text field's list, at weight 1."""
        alone = Profile(field_weights={name: 1.0})
        query = replace(base, mode="bm25", profile=alone)
        return _shared(self._searcher.trace(query, groups=None).lists["bm25"])

    def _vectors(self, base: SearchQuery) -> tuple[Ranked | None, Ranked | None, Worth | None]:
        """The kNN list, that of sparse weights, and what all lists' scores are worth, which is known
        where all are asked."""
        if not self._store.live(base.collection).recipe.embedder:
            return None, None, None
        trace = self._searcher.trace(base, groups=None)
        sparse = _shared(trace.lists["sparse"]) if "sparse" in trace.lists else None
        return _shared(trace.lists["vector"]), sparse, trace.worth


def _shared(ranked: Ranked) -> Ranked:
    """With ids that all recordings share, as thousands of queries find the same chunks."""
    return [(sys.intern(chunk_id), score) for chunk_id, score in ranked]


def gain(documents: Sequence[str], grades: Mapping[str, int], depth: int) -> float:
    """nDCG at ``depth`` with linear gain, as trec_eval has it: from 0 to 1, the ideal order 1."""
    discounts = [1 / math.log2(rank + 1) for rank in range(1, depth + 1)]
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)
    best = sum(grade * each for grade, each in zip(ideal, discounts, strict=False))
    found = (max(0, grades.get(document, 0)) for document in documents)
    got = sum(grade * each for grade, each in zip(found, discounts, strict=False))
    return got / best if best else 0.0
