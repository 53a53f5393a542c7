"""``ernie:embedding-v1``: ERNIE Embedding-V1 of Baidu's Qianfan.

The protocol: https://cloud.baidu.com/doc/WENXINWORKSHOP/s/alj562vvu (embeddings),
https://cloud.baidu.com/doc/WENXINWORKSHOP/s/tlmyncueh (error codes),
https://developer.baidu.com/wiki/index.php?title=docs/oauth/client (access tokens).
"""

import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from server.errors import ConfigurationError, EmbedderUnavailable
from server.models.endpoint import Endpoint, key_of
from server.models.replies import (
    ATTEMPTS_TO_REACH,
    Reply,
    TooLong,
    Transient,
    asked,
    failure,
    in_order,
    is_about_length,
)
from server.models.served import ServedEmbedder, Serving

URL_SETTING = "TANYUAN_ERNIE_URL"
KEY_SETTING, SECRET_SETTING = "TANYUAN_ERNIE_API_KEY", "TANYUAN_ERNIE_SECRET_KEY"
TOKEN_PATH = "/oauth/2.0/token"  # noqa: S105 - an address
EMBEDDING_PATH = "/rpc/2.0/ai_custom/v1/wenxinworkshop/embeddings/embedding-v1"
MODEL = "embedding-v1"
DIMENSIONS, MAX_TOKENS, MAX_CHARS, MAX_TEXTS = 384, 384, 1000, 16
# Error codes: too many requests or a fault of Baidu's, which pass; a token that is void; a quota, which
# doesn't pass by waiting; what the keys may not do.
PASSING = frozenset({1, 2, 4, 15, 18, 336000, 336100, 336501, 336502})
TOKEN_IS_VOID = frozenset({100, 110, 111})
USED_UP = frozenset({17, 19})
NOT_ALLOWED = frozenset({6, 13, 14, 336004})
_EARLY_SECONDS = 3600.0  # a token is renewed before its end, at most a tenth of its life
_LIFE_SECONDS = 30 * 86_400.0  # of a token that doesn't say


class ErnieEmbedder(ServedEmbedder):
    """Asks for an access token at the first text, keeps it, and renews it before it ends or when it is
    refused. The token is part of an address, which no log and no error holds."""

    batch_texts = MAX_TEXTS

    def __init__(
        self, model: str, *, url: str, key: str, secret_key: str, serving: Serving
    ) -> None:
        """Connects to nothing yet. Raises ConfigurationError."""
        if model.lower() != MODEL:
            raise ConfigurationError(
                f"TANYUAN_EMBEDDER names ernie:{model}; there is only ernie:{MODEL}."
            )
        super().__init__(MODEL, serving)
        self._key = key_of(key, KEY_SETTING)
        self._secret_key = key_of(secret_key, SECRET_SETTING)
        if not self._key or not self._secret_key:
            raise ConfigurationError(
                f"TANYUAN_EMBEDDER is ernie:{MODEL}, which needs {KEY_SETTING} and {SECRET_SETTING}, "
                "those of an application at https://console.bce.baidu.com/qianfan."
            )
        self.name = f"ernie:{MODEL}"
        self.dimensions = DIMENSIONS
        self.max_tokens = min(serving.max_tokens or MAX_TOKENS, MAX_TOKENS)
        self.identity = f"ernie:{MODEL}:{DIMENSIONS}"
        self._endpoint = Endpoint(
            url,
            setting=URL_SETTING,
            secrets=(self._key, self._secret_key),
            proxy=serving.proxy,
        )
        self._token = ""
        self._token_ends = 0.0
        self._renewing = threading.Lock()

    def count_tokens(self, text: str) -> int:
        """As many as the limits of tokens and of characters leave: a text of MAX_CHARS is full."""
        by_chars = math.ceil(len(text) * MAX_TOKENS / MAX_CHARS)
        return max(super().count_tokens(text), by_chars)

    def _prepare(self, text: str) -> str:
        return super()._prepare(text[:MAX_CHARS])

    def _ask(self, texts: Sequence[str], *, seconds: float, query: bool = False) -> Sequence[Any]:  # noqa: ARG002
        deadline = time.monotonic() + seconds
        used = ""

        def token() -> Mapping[str, str]:
            nonlocal used
            used = self._valid_token(max(0.001, deadline - time.monotonic()))
            return {"access_token": used}

        return self._endpoint.call(
            EMBEDDING_PATH,
            {"input": list(texts)},
            seconds=seconds,
            read=lambda reply: self._read(reply, len(texts), used),
            secret_query=token,
        )

    def _valid_token(self, seconds: float) -> str:
        with self._renewing:
            if not self._token or time.monotonic() >= self._token_ends:
                try:
                    self._token, life = self._endpoint.call(
                        TOKEN_PATH,
                        {},
                        seconds=seconds,
                        read=self._read_token,
                        secret_query=lambda: {
                            "grant_type": "client_credentials",
                            "client_id": self._key,
                            "client_secret": self._secret_key,
                        },
                    )
                except Transient as error:  # tried again already
                    raise EmbedderUnavailable(error.message) from error
                self._endpoint.keep_secret(self._token)
                self._token_ends = time.monotonic() + life - min(_EARLY_SECONDS, life / 10)
            return self._token

    def _read_token(self, reply: Reply) -> tuple[str, float]:
        body = reply.body if isinstance(reply.body, dict) else {}
        token, life = body.get("access_token"), body.get("expires_in")
        if isinstance(token, str) and token:
            return token, float(life) if isinstance(life, int | float) else _LIFE_SECONDS
        if reply.status not in {200, 400, 401}:
            raise failure(reply, self._endpoint.place, setting=URL_SETTING, key_setting=KEY_SETTING)
        raise EmbedderUnavailable(
            f"{self._endpoint.place} gave no access token for these keys"
            f"{f' ({reply.words})' if reply.words else ''}; check {KEY_SETTING} and {SECRET_SETTING}."
        )

    def _read(self, reply: Reply, count: int, token: str) -> list[Any]:
        place = self._endpoint.place
        body = reply.body if isinstance(reply.body, dict) else {}
        code = body.get("error_code")
        if isinstance(code, int) and code:
            raise self._error(code, reply, token)
        if reply.status != 200:
            raise failure(reply, place, setting=URL_SETTING, key_setting=KEY_SETTING)
        return in_order(reply.body, count, place)

    def _error(self, code: int, reply: Reply, token: str) -> EmbedderUnavailable:
        what = f"{self._endpoint.place} refused (error {code}: {reply.words})"
        if code in TOKEN_IS_VOID:
            with self._renewing:
                if self._token == token:  # another thread may have a new one
                    self._token = ""
            return Transient(
                f"{what}; check {KEY_SETTING} and {SECRET_SETTING}.",
                pause=0.0,
                attempts=ATTEMPTS_TO_REACH,
            )
        if code in PASSING:
            return Transient(f"{what}.", pause=asked(reply))
        if code in USED_UP:
            return EmbedderUnavailable(
                f"{what}: the quota is used up, or the account has to be paid, at "
                "https://console.bce.baidu.com/qianfan."
            )
        if code in NOT_ALLOWED:
            return EmbedderUnavailable(
                f"{what}; see that the application of {KEY_SETTING} may use Embedding-V1."
            )
        if is_about_length(reply.words):
            return TooLong(f"{what}.")
        return EmbedderUnavailable(f"{what}.")
