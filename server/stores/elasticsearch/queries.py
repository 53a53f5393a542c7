"""Request bodies, and answers read back: pure functions, tested without a server."""

from collections.abc import Mapping, Sequence
from typing import Any as AnyValue

import numpy as np

from server.documents import Vector
from server.errors import InvalidInput, TanyuanError
from server.sparse import SparseWeights
from server.stores.contract import MAX_DEPTH, Leg, LegsRequest, TextClause
from server.stores.elasticsearch.errors import from_cause
from server.stores.filters import All, Any, Exists, Filter, Not, Range, Terms, encode_value

Json = dict[str, AnyValue]

SEPARATOR = "\x1f"  # stands in no key and, being a control character, in no value

# Elasticsearch's BM25 keeps the factor k1 + 1 that Lucene dropped in version 8.
_BM25_FACTOR = 2.2
_LEAST_CANDIDATES = 100
# Candidates found by quantised vectors, per hit wanted, that are scored again by the whole ones.
_OVERSAMPLE = 2.0
_MATCH_NONE: Json = {"match_none": {}}


def label_terms(labels: Mapping[str, Sequence[str]]) -> list[str]:
    """The terms of a chunk's labels field: one a key, for Exists, and one a key and value."""
    pairs = [f"{key}{SEPARATOR}{value}" for key, values in labels.items() for value in values]
    return [*labels, *pairs]


def filter_query(condition: Filter) -> Json:
    """A filter as a query. Raises InvalidInput for a range that mixes types."""
    match condition:
        case Terms(key, values):
            found = [f"{key}{SEPARATOR}{encode_value(value)}" for value in values]
            return {"terms": {"labels": found}} if found else _MATCH_NONE
        case Exists(key):
            return {"term": {"labels": key}}
        case Range():
            return _range_query(condition)
        case Not(inner):
            return {"bool": {"must_not": [filter_query(inner)]}}
        case All(parts):
            return {"bool": {"filter": [filter_query(part) for part in parts]}}
        case Any(parts):
            should = [filter_query(part) for part in parts]
            return (
                {"bool": {"should": should, "minimum_should_match": 1}} if should else _MATCH_NONE
            )


def _range_query(condition: Range) -> Json:
    bounds = {
        operator: encode_value(bound)
        for operator, bound in (
            ("gte", condition.gte),
            ("gt", condition.gt),
            ("lte", condition.lte),
            ("lt", condition.lt),
        )
        if bound is not None
    }
    kinds = {bound[0] for bound in bounds.values()}
    if not kinds:
        return filter_query(Exists(condition.key))
    if len(kinds) > 1:
        raise InvalidInput(
            f"The range over {condition.key} mixes numbers and strings.", field="filters"
        )
    # An open end stops where the type does: the next type's letter is the next type's first value.
    kind = kinds.pop()
    if not bounds.keys() & {"gte", "gt"}:
        bounds["gte"] = kind
    if not bounds.keys() & {"lte", "lt"}:
        bounds["lt"] = chr(ord(kind) + 1)
    prefix = f"{condition.key}{SEPARATOR}"
    # Both bounds of a side may be given; each is a range of its own over the same values.
    ranges = [
        {"range": {"labels": {low: prefix + bounds[low], high: prefix + bounds[high]}}}
        for low in ("gte", "gt")
        if low in bounds
        for high in ("lte", "lt")
        if high in bounds
    ]
    return ranges[0] if len(ranges) == 1 else {"bool": {"filter": ranges}}


def term_weights(clauses: Sequence[TextClause]) -> dict[tuple[str, str], float]:
    """(field, term) → weight, equal ones summed: scores are sums, so this is the same query."""
    weights: dict[tuple[str, str], float] = {}
    for clause in clauses:
        for term in clause.terms:
            key = (clause.field, term)
            weights[key] = weights.get(key, 0.0) + clause.weight
    return weights


def text_query(weights: Mapping[tuple[str, str], float], *, at_most: int | None = None) -> Json:
    """Any of the terms, their BM25 scores summed. ``at_most``: keep the heaviest, earlier first.

    Terms are looked up as they are, so nothing in them is syntax.
    """
    items = list(weights.items())
    if at_most is not None:
        items = sorted(items, key=lambda item: -item[1])[:at_most]
    should = [
        {"term": {field: {"value": term, "boost": weight}}} for (field, term), weight in items
    ]
    return {"bool": {"should": should, "minimum_should_match": 1}}


def text_search(
    query: Json, condition: Filter | None, k: int, *, holding: Sequence[str] = ()
) -> Json:
    """The BM25 retriever's search: all matches counted, ties by chunk id."""
    if holding:
        query = {"bool": {"must": [query], "filter": [holding_query(holding, condition)]}}
    elif condition is not None:
        query = {"bool": {"must": [query], "filter": [filter_query(condition)]}}
    return {
        "query": query,
        "size": k,
        "sort": ["_score", {"id": "asc"}],
        "track_total_hits": True,
        "_source": False,
    }


def holding_query(terms: Sequence[str], condition: Filter | None) -> Json:
    """Chunks that hold all terms, each in their bigrams or their title's; no scores."""
    filters: list[Json] = [
        {
            "bool": {
                "should": [{"term": {field: term}} for field in ("bigrams", "title_bigrams")],
                "minimum_should_match": 1,
            }
        }
        for term in dict.fromkeys(terms)
    ]
    if condition is not None:
        filters.append(filter_query(condition))
    return {"bool": {"filter": filters}}


def vector_search(vector: Vector, condition: Filter | None, k: int) -> Json:
    """The kNN retriever's search, whose filter applies while it looks, not to what it found."""
    knn: Json = {
        "field": "vector",
        "query_vector": vector_json(vector),
        "k": k,
        "num_candidates": min(MAX_DEPTH, max(2 * k, _LEAST_CANDIDATES)),
        "rescore_vector": {"oversample": _OVERSAMPLE},
    }
    if condition is not None:
        knn["filter"] = filter_query(condition)
    return {"knn": knn, "size": k, "_source": False}


def sparse_search(
    weights: SparseWeights, condition: Filter | None, k: int, *, at_most: int | None = None
) -> Json:
    """The sparse retriever's search: products of weights, summed. ``at_most``: keep the heaviest tokens."""
    items = list(zip(weights.ids.tolist(), weights.weights.tolist(), strict=True))
    if at_most is not None:
        items = sorted(items, key=lambda item: -item[1])[:at_most]
    should = [
        {"term": {"sparse": {"value": str(token), "boost": weight}}} for token, weight in items
    ]
    query: Json = {"bool": {"should": should, "minimum_should_match": 1}}
    if condition is not None:
        query = {"bool": {"must": [query], "filter": [filter_query(condition)]}}
    return {
        "query": query,
        "size": k,
        "sort": ["_score", {"id": "asc"}],
        "track_total_hits": False,
        "_source": False,
    }


def vector_json(vector: Vector) -> list[float]:
    """Scaled to length 1 more exactly than float32 is, in as many digits as float32 holds."""
    exact = vector.astype(np.float64)
    return [float(value) for value in np.round(exact / np.linalg.norm(exact), 9)]


def leg_searches(
    request: LegsRequest,
    *,
    with_vector: bool = True,
    with_sparse: bool = True,
    at_most: int | None = None,
) -> dict[str, Json]:
    """Leg → body of its search, for the legs that have something to look for."""
    searches: dict[str, Json] = {}
    weights = term_weights(request.text or ())
    if weights:
        query = text_query(weights, at_most=at_most)
        searches["bm25"] = text_search(query, request.filter, request.k, holding=request.holding)
    if request.vector is not None and with_vector:
        searches["vector"] = vector_search(request.vector, request.filter, request.k)
    if request.sparse is not None and len(request.sparse.ids) and with_sparse:
        searches["sparse"] = sparse_search(
            request.sparse, request.filter, request.k, at_most=at_most
        )
    return searches


def read_leg(name: str, response: Json) -> Leg | TanyuanError:
    """A leg from one response of ``_msearch``."""
    if "error" in response:
        return from_cause(int(response.get("status", 500)), response["error"])
    hits = response["hits"]["hits"]
    if name == "bm25":
        # Ranked by Elasticsearch with ties by id, which a float32 rounded twice must not undo.
        ranked = [(hit["_id"], float(hit["_score"]) / _BM25_FACTOR) for hit in hits]
    elif name == "sparse":
        ranked = [(hit["_id"], float(hit["_score"])) for hit in hits]
    else:
        # Elasticsearch's score of a dot product is (1 + cosine) / 2.
        scored = [(hit["_id"], 2.0 * float(hit["_score"]) - 1.0) for hit in hits]
        ranked = sorted(scored, key=lambda hit: (-hit[1], hit[0]))
    total = response["hits"]["total"]["value"] if name == "bm25" else len(ranked)
    return Leg(hits=tuple(ranked), total=total, took_ms=float(response["took"]))


def read_generations(response: Json) -> set[str]:
    """The generations whose indices the hits of one response came from."""
    hits = response.get("hits", {}).get("hits", ())
    return {hit["_index"].rpartition(".")[2] for hit in hits}
