"""The calls on collections."""

from server.errors import CollectionNotFound
from server.stores.contract import Collection
from server.web.operations import Answers, Context, Operation, Reply, operation
from server.web.schemas import (
    CollectionDeleted,
    CollectionInput,
    CollectionList,
    CollectionName,
)

_TAG = "collections"


@operation(
    "GET",
    "/v1/collections",
    tag=_TAG,
    answers={200: Answers(CollectionList, "The collections by name.")},
)
def list_collections(context: Context) -> Reply:
    """List the collections.

    Every caller sees every collection's name and counts; documents are another matter.
    """
    return Reply(CollectionList(collections=context.services.store.collections()))


@operation(
    "PUT",
    "/v1/collections/{collection}",
    tag=_TAG,
    permission="write",
    answers={
        200: Answers(Collection, "It was there; its description is now this."),
        201: Answers(Collection, "It was created."),
    },
)
def put_collection(context: Context, collection: CollectionName, body: CollectionInput) -> Reply:
    """Create a collection, or change its description."""
    services = context.services
    try:
        return Reply(services.store.describe(collection, body.description))
    except CollectionNotFound:
        made = services.indexer.ensure_collection(collection, body.description)
        return Reply(made, status=201)


@operation(
    "GET",
    "/v1/collections/{collection}",
    tag=_TAG,
    answers={200: Answers(Collection, "The collection.")},
    raises=(CollectionNotFound,),
)
def get_collection(context: Context, collection: CollectionName) -> Reply:
    """Describe a collection: counts, and the recipe that its index was made by."""
    return Reply(context.services.store.collection(collection))


@operation(
    "DELETE",
    "/v1/collections/{collection}",
    tag=_TAG,
    permission="admin",
    answers={200: Answers(CollectionDeleted, "It is gone.")},
    raises=(CollectionNotFound,),
)
def delete_collection(context: Context, collection: CollectionName) -> Reply:
    """Delete a collection with all its documents. Only for admins; there is no way back."""
    services = context.services
    documents = services.store.delete_collection(collection)
    if services.query_log is not None:
        services.query_log.forget(collection)
    return Reply(CollectionDeleted(name=collection, documents=documents))


OPERATIONS: tuple[Operation, ...] = (
    list_collections,
    put_collection,
    get_collection,
    delete_collection,
)
