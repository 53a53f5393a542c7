"""A process that makes new generations of an embedded collection live, and prints what it is about to do.

``python -m tests.stores.embedded_rebuilder FOLDER COLLECTION ROUNDS [STOP]``: ROUNDS 0 goes on until
killed. Before the step named STOP it waits to be killed. After a promotion the generations before are
dropped.
"""

import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

from server.stores.embedded.store import EmbeddedStore
from tests.stores.builders import RECIPE, derivation

NEXT = replace(RECIPE, analyzer="rebuilt-1")  # vectors as before, so that the same searches do


def rebuild(folder: str, collection: str, rounds: int, stop: str) -> None:
    store = EmbeddedStore(Path(folder))
    generations = store.generations

    def step(name: str) -> None:
        print(name, flush=True)  # noqa: T201
        if name == stop:
            time.sleep(600)

    def fill(generation: str) -> None:
        while batch := list(islice(generations.pending(collection, generation), 100)):
            step("derive")
            generations.derive(collection, generation, [derivation(each, NEXT) for each in batch])

    done = 0
    while not rounds or done < rounds:
        step("create")
        made = generations.create(collection, recipe=NEXT)
        fill(made.id)
        step("settle")
        generations.settle(collection, made.id)
        step("fence")
        fence = generations.fence(collection)
        fill(made.id)
        step("promote")
        generations.promote(collection, made.id, fence=fence)
        for old in generations.all(collection):
            if old.state != "live":
                step("drop")
                generations.drop(collection, old.id)
        done += 1
    step("done")
    store.close()


if __name__ == "__main__":
    rebuild(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] if len(sys.argv) > 4 else "")
