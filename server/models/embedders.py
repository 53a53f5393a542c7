"""Embedders: the configured one, and those that collections were indexed with."""

import threading
import time
from collections.abc import Callable

from server.errors import ConfigurationError, ModelUnavailable, RecipeMismatch
from server.models.contract import Embedder
from server.recipes import Recipe

_AGAIN_SECONDS = 30.0  # until one that could not be had is looked for again


class Embedders:
    """Thread-safe. ``open_model`` gives the embedder that a recipe's ``model`` names, as
    TANYUAN_EMBEDDER would, and raises ConfigurationError where it can't be had here."""

    def __init__(
        self, configured: Embedder | None, open_model: Callable[[str], Embedder | None]
    ) -> None:
        self.configured = configured
        self._open_model = open_model
        self._opened: dict[str, Embedder] = {}  # by fingerprint
        self._failed: dict[str, tuple[float, str]] = {}  # fingerprint → when, and why
        self._opening = threading.Lock()

    def of(self, recipe: Recipe) -> Embedder:
        """The embedder that made the recipe's vectors. Raises RecipeMismatch, saying why it can't be
        had."""
        configured = self.configured
        if configured is not None and configured.fingerprint == recipe.embedder:
            return configured
        with self._opening:
            found = self._opened.get(recipe.embedder)
            if found is not None:
                return found
            failed_at, reason = self._failed.get(recipe.embedder, (-_AGAIN_SECONDS, ""))
            if time.monotonic() - failed_at >= _AGAIN_SECONDS:
                opened, reason = self._find(recipe)
                if opened is not None:
                    self._opened[recipe.embedder] = opened
                    return opened
                self._failed[recipe.embedder] = (time.monotonic(), reason)
        raise RecipeMismatch(reason)

    def _find(self, recipe: Recipe) -> tuple[Embedder | None, str]:
        if not recipe.model:
            return None, f"its embedder {recipe.embedder} is not the one configured here"
        try:
            opened = self._open_model(recipe.model)
            if opened is not None and opened.fingerprint == recipe.embedder:
                return opened, ""
        except (ConfigurationError, ModelUnavailable) as error:
            return None, f"its embedder {recipe.model} can't be had here: {error.message}"
        made = opened.fingerprint if opened is not None else "none"
        return None, f"its embedder was {recipe.embedder}, and {recipe.model} is {made} here"
