"""``openai:MODEL``: OpenAI's embeddings, and every server that speaks its ``/v1/embeddings``.

The protocol: https://platform.openai.com/docs/api-reference/embeddings
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np

from server.errors import EmbedderUnavailable
from server.models.endpoint import Endpoint, key_of
from server.models.replies import Reply, Transient, failure, in_order
from server.models.served import Facts, ServedEmbedder, Serving

URL_SETTING, KEY_SETTING = "TANYUAN_OPENAI_URL", "TANYUAN_OPENAI_API_KEY"
# OpenAI's own models: dimensions and tokens of a text.
KNOWN = {
    "text-embedding-3-small": (1536, 8192),
    "text-embedding-3-large": (3072, 8192),
    "text-embedding-ada-002": (1536, 8192),
}
MAX_TOKENS = 512  # of models that nothing is known of


class OpenAIEmbedder(ServedEmbedder):
    """``dimensions``: to be asked of models that can give fewer; 0: the model's own.

    ``query_model``: the name under which a server has the model for queries, where that is another.
    """

    def __init__(
        self,
        model: str,
        *,
        url: str,
        key: str = "",
        dimensions: int = 0,
        query_model: str = "",
        serving: Serving,
    ) -> None:
        """Asks the server only where it was never asked and the model is none of KNOWN.

        Raises ConfigurationError, EmbedderUnavailable.
        """
        super().__init__(model, serving)
        self.name = f"openai:{model}"
        self._model = model
        self._query_model = query_model or model
        self._asked_dimensions = dimensions
        key = key_of(key, KEY_SETTING)
        self._endpoint = Endpoint(
            url,
            setting=URL_SETTING,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            secrets=(key,),
            proxy=serving.proxy,
        )
        known_dimensions, known_tokens = KNOWN.get(model, (0, MAX_TOKENS))
        self.max_tokens = serving.max_tokens or known_tokens
        self.dimensions = dimensions or known_dimensions or self._find_dimensions()
        models = model if self._query_model == model else f"{model}+{query_model}"
        self.identity = f"openai:{models}:{self.dimensions}"

    def _find_dimensions(self) -> int:
        facts = Facts(self._serving.facts)
        subject = f"{self.name} {self._endpoint.place}"
        known = facts.get(subject).get("dimensions")
        if isinstance(known, int) and known > 0:
            return known
        (vector,) = self._ask(["dimensions"], seconds=self._serving.seconds)
        facts.put(subject, dimensions=len(vector))
        return len(vector)

    def _ask(self, texts: Sequence[str], *, seconds: float, query: bool = False) -> Sequence[Any]:
        # Floats are what every server of this protocol gives; base64 is taken from those that prefer it.
        body: dict[str, Any] = {
            "model": self._query_model if query else self._model,
            "input": list(texts),
            "encoding_format": "float",
        }
        if self._asked_dimensions:
            body["dimensions"] = self._asked_dimensions
        return self._endpoint.call(
            "/embeddings", body, seconds=seconds, read=lambda reply: self._read(reply, len(texts))
        )

    def _read(self, reply: Reply, count: int) -> list[Any]:
        place = self._endpoint.place
        if reply.status == 404:
            names = " or ".join(repr(name) for name in {self._model: 1, self._query_model: 1})
            said = f" ({reply.words})" if reply.words else ""
            raise EmbedderUnavailable(
                f"{place} has no model {names}, or no embeddings at this address{said}; check "
                f"TANYUAN_EMBEDDER and {URL_SETTING}, which ends in /v1 as a rule."
            )
        if reply.status != 200:
            error = failure(reply, place, setting=URL_SETTING, key_setting=KEY_SETTING)
            if isinstance(error, Transient) and _is_unpaid(reply.body):
                raise EmbedderUnavailable(error.message)  # waiting doesn't help
            raise error
        return [_numbers(vector, place) for vector in in_order(reply.body, count, place)]


def _numbers(embedding: object, place: str) -> Any:
    if isinstance(embedding, str):
        try:
            return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
        except (binascii.Error, ValueError) as error:
            raise EmbedderUnavailable(f"{place} gave a vector in broken base64.") from error
    if not isinstance(embedding, list):
        raise EmbedderUnavailable(f"{place} gave something that is no vector of numbers.")
    return embedding


def _is_unpaid(body: Any) -> bool:
    error = body.get("error") if isinstance(body, dict) else None
    return isinstance(error, dict) and "insufficient_quota" in {
        error.get("code"),
        error.get("type"),
    }
