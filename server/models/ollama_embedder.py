"""``ollama:MODEL``: embeddings of an Ollama, through its ``/api/embed``.

The protocol: https://github.com/ollama/ollama/blob/main/docs/api.md
"""

import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from server.errors import ConfigurationError, EmbedderUnavailable
from server.models.endpoint import Endpoint
from server.models.ollama_client import Client
from server.models.replies import Reply, Transient, failure
from server.models.served import Facts, ServedEmbedder, Serving

MAX_TOKENS = 2048  # of a text: the context that Ollama gives a model unless told otherwise
_FIND_SECONDS = 1.8  # a server that starts doesn't wait longer for the list of models
_DIGEST_SECONDS = 10.0  # for which the model is taken to be the same


class OllamaEmbedder(ServedEmbedder):
    """The fingerprint is Ollama's digest of the model, so it is the same under another name and on
    another host. A model that is replaced while this runs is refused, since its vectors would not
    fit those that are there."""

    def __init__(self, model: str, *, host: str, keep_alive: str, serving: Serving) -> None:
        """Asks Ollama for the digest and, where the model is new here, for a vector.

        An Ollama that doesn't answer is no error where it did before. Raises ConfigurationError,
        EmbedderUnavailable.
        """
        super().__init__(model, serving)
        self.name = f"ollama:{model}"
        self._model = model
        self._keep_alive = int(keep_alive) if keep_alive.lstrip("-").isdigit() else keep_alive
        self._endpoint = Endpoint(address(host), setting="OLLAMA_HOST", proxy=serving.proxy)
        self._same = threading.Lock()
        self._same_until = 0.0
        facts = Facts(serving.facts)
        subject = f"{self.name} {self._endpoint.place}"
        known = facts.get(subject)
        try:
            digest = self._find_digest(_FIND_SECONDS)
        except Transient:
            if not _is_whole(known):
                raise
            digest = str(known.get("digest"))
        if known.get("digest") != digest or not _is_whole(known):
            known = {"digest": digest, **self._find_out()}
            facts.put(subject, **known)
        self._digest = digest
        self.dimensions = int(known["dimensions"])
        self.max_tokens = serving.max_tokens or int(known["max_tokens"])
        self.identity = f"ollama:{digest.removeprefix('sha256:')[:16]}:{self.dimensions}"

    def _find_digest(self, seconds: float) -> str:
        def read(reply: Reply) -> str:
            if reply.status != 200:
                raise self._error(reply)
            models = reply.body.get("models") if isinstance(reply.body, dict) else None
            wanted = {self._model, f"{self._model}:latest"}
            for found in models if isinstance(models, list) else ():
                if isinstance(found, dict) and found.get("name") in wanted:
                    return str(found.get("digest"))
            raise self._missing()

        digest: str = self._endpoint.call("/api/tags", seconds=seconds, read=read)
        return digest

    def _find_out(self) -> dict[str, int]:
        """Dimensions, and how many tokens a text may have. Loads the model in Ollama."""

        def read(reply: Reply) -> int:
            if reply.status != 200:
                raise self._error(reply)
            about = reply.body.get("model_info") if isinstance(reply.body, dict) else None
            about = about if isinstance(about, dict) else {}
            trained = about.get(f"{about.get('general.architecture')}.context_length")
            return min(trained, MAX_TOKENS) if isinstance(trained, int) else MAX_TOKENS

        seconds = self._serving.seconds
        tokens = self._endpoint.call(
            "/api/show", {"model": self._model}, seconds=seconds, read=read
        )
        (vector,) = self._vectors(["dimensions"], seconds=seconds)
        return {"dimensions": len(vector), "max_tokens": tokens}

    def _ask(self, texts: Sequence[str], *, seconds: float, query: bool = False) -> Sequence[Any]:  # noqa: ARG002
        deadline = time.monotonic() + seconds
        self._check_digest(seconds)
        return self._vectors(texts, seconds=max(0.001, deadline - time.monotonic()))

    def _check_digest(self, seconds: float) -> None:
        with self._same:
            if time.monotonic() < self._same_until:
                return
            found = self._find_digest(seconds)
            if found != self._digest:
                raise EmbedderUnavailable(
                    f"Ollama's model {self._model} is another one than when this started. Restart to "
                    "make new collections with it; scripts/rebuild takes those that are there over."
                )
            self._same_until = time.monotonic() + _DIGEST_SECONDS

    def _vectors(self, texts: Sequence[str], *, seconds: float) -> Sequence[Any]:
        def read(reply: Reply) -> list[Any]:
            if reply.status != 200:
                raise self._error(reply)
            vectors = reply.body.get("embeddings") if isinstance(reply.body, dict) else None
            if not isinstance(vectors, list) or len(vectors) != len(texts):
                got = f"{len(vectors)} vectors" if isinstance(vectors, list) else "no vectors"
                raise EmbedderUnavailable(f"{self.name} gave {got} for {len(texts)} texts.")
            return vectors

        body = {
            "model": self._model,
            "input": list(texts),
            "truncate": True,
            "keep_alive": self._keep_alive,
        }
        return self._endpoint.call("/api/embed", body, seconds=seconds, read=read)

    def _error(self, reply: Reply) -> EmbedderUnavailable:
        if reply.status == 404 and "model" in reply.words:
            return self._missing()
        return failure(reply, self._endpoint.place, setting="OLLAMA_HOST")

    def _missing(self) -> EmbedderUnavailable:
        return EmbedderUnavailable(
            f"Ollama at {self._endpoint.place} has no model {self._model}; get it with: ollama pull "
            f"{self._model}"
        )


def _is_whole(known: Mapping[str, Any]) -> bool:
    return all(type(known.get(name)) is int for name in ("dimensions", "max_tokens"))


def address(host: str) -> str:
    """OLLAMA_HOST as Ollama reads it (``127.0.0.1:11434``, a host alone, a whole address), as an
    address. Raises ConfigurationError."""
    if "@" in host:
        raise ConfigurationError("OLLAMA_HOST must be an address without user and password.")
    with Client(host, timeout=1.0, tls=ssl.create_default_context()) as client:
        return str(client.place)
