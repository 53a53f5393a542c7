"""Whether each component can serve now, for ``/readyz`` and the page."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout

from server.errors import TanyuanError
from server.models.choice import Choice
from server.models.contract import Embedder, Generator, Reranker
from server.stores.contract import Store
from server.web.services import Component

CHECK_SECONDS = 2.0


class Readiness:
    """Asks the store and the generator at every call, and knows how far the models are loaded."""

    def __init__(
        self,
        store: Store,
        embedder: Choice[Embedder],
        reranker: Choice[Reranker],
        generator: Choice[Generator],
    ) -> None:
        self._store = store
        self._generator = generator
        self._models = (embedder, reranker)
        self._not_loaded: dict[str, str] = {}  # component → why it can't serve yet
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="readiness")

    def warm_up(self) -> None:
        """Load the models in the background, so that the first query finds them ready."""
        self._not_loaded = {
            choice.component: "is being loaded" for choice in self._models if choice.adapter
        }
        threading.Thread(target=self._load, name="warm-up", daemon=True).start()

    def _load(self) -> None:
        for choice in self._models:
            if choice.adapter is None:
                continue
            try:
                choice.adapter.warm_up()
            except TanyuanError as error:
                self._not_loaded[choice.component] = error.message
                if not hasattr(choice.adapter, "check"):
                    continue
            del self._not_loaded[choice.component]

    def components(self) -> Mapping[str, Component]:
        """Readiness by component; answers within some CHECK_SECONDS."""
        generator = self._generator
        checks: dict[str, tuple[str, Callable[[], str]]] = {
            "store": (self._store.kind, self._store.check)
        }
        if generator.adapter is not None:
            checks["generator"] = (generator.name, generator.adapter.check)
        embedder = self._models[0]
        check = getattr(embedder.adapter, "check", None)  # one on a server may be gone, and be back
        if check and "embedder" not in self._not_loaded:
            checks["embedder"] = (embedder.name, check)
        asked = {name: self._pool.submit(check) for name, (_, check) in checks.items()}
        components: dict[str, Component] = {
            choice.component: Component(
                ready=not choice.missing and choice.component not in self._not_loaded,
                name=choice.name,
                detail=self._not_loaded.get(choice.component, choice.reason),
            )
            for choice in (*self._models, generator)
        }
        for name, answer in asked.items():
            try:
                ready, detail = True, answer.result(timeout=CHECK_SECONDS)
            except FutureTimeout:
                ready, detail = False, f"no answer within {CHECK_SECONDS:.0f} s"
            except TanyuanError as error:
                ready, detail = False, error.message
            components[name] = Component(ready=ready, name=checks[name][0], detail=detail)
        return components
