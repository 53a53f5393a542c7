"""The search call, as a link and with a body."""

import logging
from contextlib import suppress
from dataclasses import replace

from server.errors import (
    CollectionNotFound,
    ModelUnavailable,
    PageTooDeep,
    RecipeMismatch,
    TanyuanError,
)
from server.hits import Retrieval
from server.retrieval.fusion import Fusion, Method
from server.retrieval.query import SearchQuery
from server.web.filters import to_store
from server.web.operations import Answers, Context, Operation, Reply, operation
from server.web.schemas import FusionOptions, SearchInput, SearchParameters

_log = logging.getLogger(__name__)
_RAISES = (CollectionNotFound, PageTooDeep, RecipeMismatch, ModelUnavailable)
_ANSWERS = {
    200: Answers(
        Retrieval,
        "The hits, best first. A stage that was missing is named in `degraded`, and the response is "
        "what the others found.",
    )
}


@operation("GET", "/v1/search", tag="search", answers=_ANSWERS, raises=_RAISES)
def search_by_link(context: Context, query: SearchParameters) -> Reply:
    """Search by a link."""
    return _search(
        context,
        SearchQuery(
            query=query.q,
            collection=query.collection,
            mode=query.mode,
            size=query.size,
            offset=query.offset,
            fusion=Fusion(method=query.fusion) if query.fusion else None,
            rerank=query.rerank,
            group=query.group,
            explain=query.explain,
        ),
    )


@operation("POST", "/v1/search", tag="search", answers=_ANSWERS, raises=_RAISES)
def search(context: Context, body: SearchInput) -> Reply:
    """Search with filters and fusion weights."""
    return _search(
        context,
        SearchQuery(
            query=body.query,
            collection=body.collection,
            mode=body.mode,
            size=body.size,
            offset=body.offset,
            filter=to_store(body.filters),
            fusion=_fusion(body.fusion),
            rerank=body.rerank,
            group=body.group,
            explain=body.explain,
        ),
    )


OPERATIONS: tuple[Operation, ...] = (search_by_link, search)


def _search(context: Context, query: SearchQuery) -> Reply:
    _log.debug("search %r", query.query)
    services = context.services
    groups = context.caller.groups
    found = services.searcher.search(query, groups=groups)
    if query.offset == 0:
        if services.query_log is not None:
            services.query_log.note(query.collection, query.query, found.total)
        with suppress(TanyuanError):  # the hits are there all the same
            meant = services.suggester.did_you_mean(query.query, query.collection, groups=groups)
            found = replace(found, did_you_mean=meant)
    return Reply(found)


def _fusion(given: FusionOptions | Method | None) -> Fusion | None:
    match given:
        case FusionOptions():
            return given.make()
        case None:
            return None
        case method:
            return Fusion(method=method)
