"""Steps that change what is live: each one request, which Elasticsearch makes whole or not at all.

Every request takes an alias away that has to be there, so that of two that start from the same state
one fails.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from server.errors import StoreTimeout, TanyuanError
from server.recipes import Recipe
from server.stores.elasticsearch.client import Client
from server.stores.elasticsearch.errors import NoAlias
from server.stores.elasticsearch.names import FIRST, Names
from server.stores.generations import Generation

_TRIES = 3
_Action = dict[str, Any]


def fence(client: Client, names: Names, live: Generation) -> str:
    """A fence on ``live``, known to every node of the cluster. Raises NoAlias where one stands.

    What was put through the alias that goes with it had its claim before the last node knew, so a
    scan that begins afterwards sees the claim.
    """
    token = uuid4().hex
    try:
        known = _switch(
            client,
            _remove(names, live, names.accepts(live.id, live.edition, live.recipe)),
            _add(names, live, names.fence(token)),
        )
        for _ in range(_TRIES):
            if known:
                return token
            # Only a change that is made asks all nodes again.
            before, token = token, uuid4().hex
            known = _switch(
                client,
                _remove(names, live, names.fence(before)),
                _add(names, live, names.fence(token)),
            )
    except NoAlias:
        raise
    except TanyuanError:
        with suppress(TanyuanError):
            lift(client, names, live, token)
        raise
    if known:
        return token
    with suppress(TanyuanError):
        lift(client, names, live, token)
    raise StoreTimeout(
        "Not every node of Elasticsearch learned in time of a fence; try again later."
    )


def lift(client: Client, names: Names, live: Generation, token: str) -> None:
    """Raises NoAlias where that fence does not stand."""
    _switch(
        client,
        _remove(names, live, names.fence(token)),
        _add(names, live, names.accepts(live.id, live.edition, live.recipe)),
    )


def promote(client: Client, names: Names, old: Generation, new: Generation, token: str) -> None:
    """Raises NoAlias where the fence does not stand or one of both changed its state."""
    _switch(
        client,
        _remove(names, old, names.fence(token)),
        _remove(names, old, names.state(old.id, "live")),
        _add(names, old, names.state(old.id, "kept")),
        _remove(names, new, names.state(new.id, new.state)),
        _add(names, new, names.state(new.id, "live"), is_write_index=True),
        _add(names, new, names.accepts(new.id, new.edition, new.recipe)),
    )


def restamp(
    client: Client, names: Names, live: Generation, edition: int, recipe: Recipe, token: str
) -> None:
    """Raises NoAlias where the fence does not stand."""
    _switch(
        client,
        _remove(names, live, names.fence(token)),
        _remove(names, live, names.edition(live.id, live.edition)),
        _add(names, live, names.edition(live.id, edition)),
        _add(names, live, names.accepts(live.id, edition, recipe)),
    )


def accept(client: Client, names: Names, live: Generation) -> None:
    """Give the live generation back the alias that writes go through."""
    _switch(client, _add(names, live, names.accepts(live.id, live.edition, live.recipe)))


def count(client: Client, names: Names, newest: str, following: str) -> None:
    """Take a number for a new generation. Raises NoAlias where another was faster."""
    index = f"{names.documents}.{FIRST}"
    actions: list[_Action] = [{"add": {"index": index, "alias": names.newest(following)}}]
    if newest:
        gone = {"index": index, "alias": names.newest(newest), "must_exist": True}
        actions.append({"remove": gone})
    _switch(client, *actions)


def retire(client: Client, names: Names, generation: Generation) -> None:
    """Let one that is not live be none any more. Raises NoAlias where its state changed."""
    _switch(client, _remove(names, generation, names.state(generation.id, generation.state)))


def _remove(names: Names, generation: Generation, alias: str) -> _Action:
    index = names.index(generation.id)
    return {"remove": {"index": index, "alias": alias, "must_exist": True}}


def _add(names: Names, generation: Generation, alias: str, **more: bool) -> _Action:
    return {"add": {"index": names.index(generation.id), "alias": alias, **more}}


def _switch(client: Client, *actions: _Action) -> bool:
    """Whether every node knows of it."""
    made: Sequence[_Action] = actions
    answer = client.indices.update_aliases(actions=made)
    return bool(answer["acknowledged"])
