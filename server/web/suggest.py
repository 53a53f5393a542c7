"""The search box's call: completions of what is typed."""

from server.errors import CollectionNotFound
from server.hits import Suggestions
from server.web.operations import Answers, Context, Operation, Reply, operation
from server.web.schemas import SuggestParameters

_ANSWERS = {
    200: Answers(
        Suggestions,
        "Queries that begin so, the best first, each in documents that the caller may see. None, and "
        "`suggest` in `degraded`, while they are still being made from a collection's documents.",
    )
}


@operation("GET", "/v1/suggest", tag="search", answers=_ANSWERS, raises=(CollectionNotFound,))
def suggest(context: Context, query: SuggestParameters) -> Reply:
    """Complete what is typed into a search box, in Chinese, English or pinyin."""
    return Reply(
        context.services.suggester.suggest(
            query.q, query.collection, groups=context.caller.groups, size=query.size
        )
    )


OPERATIONS: tuple[Operation, ...] = (suggest,)
