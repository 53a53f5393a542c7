"""Settings, frozen; the only reader of the environment.

Each field is read from ``TANYUAN_<NAME>`` (``OLLAMA_HOST`` and ``HF_ENDPOINT`` are other products' own
names), else from the TOML file that ``TANYUAN_CONFIG`` names (keys are the fields' names), else the
default. README.md documents every one, and a test holds it to that.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from server.errors import ConfigurationError

PrecisionKind = Literal["auto", "fp32", "int8"]
StoreKind = Literal["embedded", "chroma", "milvus", "elasticsearch"]

# The default data lie in the checkout, so that scripts find them from whatever folder they are called.
CHECKOUT = Path(__file__).resolve().parent.parent

_LEAST = {
    "threads": 1,
    "elasticsearch_shards": 1,
    "elasticsearch_replicas": 0,
    "generator_answer_tokens": 1,
    "rerank_top_n": 1,
    "keep_generations": 0,
    "vector_cache": 0,
    "max_body": 1024,
}
ENVIRONMENT_NAMES = {"ollama_host": "OLLAMA_HOST", "hub_endpoint": "HF_ENDPOINT"}


_OFF, _ON = frozenset({"0", "false", "off"}), frozenset({"1", "true", "on"})
_HOST = re.compile(r"(?=.*(?:[^\W\d]|[:.]))[\w:](?:[\w.:-]*\w)?")


def environment_name(field_name: str) -> str:
    """The environment variable of a setting."""
    return ENVIRONMENT_NAMES.get(field_name, f"TANYUAN_{field_name.upper()}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. Sizes are bytes and times are seconds unless the name says otherwise."""

    data: Path = CHECKOUT / "data"
    host: str = "127.0.0.1"
    port: int = 8000
    threads: int = 16
    store: StoreKind = "embedded"
    index_prefix: str = "tanyuan"
    elasticsearch_url: str = "http://127.0.0.1:9200"
    elasticsearch_api_key: str = field(default="", repr=False)
    elasticsearch_user: str = ""
    elasticsearch_password: str = field(default="", repr=False)
    elasticsearch_ca: str = ""
    elasticsearch_shards: int = 1
    elasticsearch_replicas: int = 0
    elasticsearch_timeout: float = 30.0
    milvus_uri: str = ""  # of a Milvus server; empty: Milvus Lite in <data>/store/milvus
    milvus_token: str = field(default="", repr=False)
    embedder: str = "auto"
    embedder_query_prefix: str = ""  # these apply to embedders on a server
    embedder_passage_prefix: str = ""
    embedder_max_tokens: int = 0  # that the model reads of a text; 0: as its makers say, else 512
    embedder_timeout: float = 60.0  # for a batch of passages, all attempts together
    embedder_proxy: str = field(default="", repr=False)
    openai_url: str = "https://api.openai.com/v1"
    openai_api_key: str = field(default="", repr=False)
    openai_dimensions: int = 0  # 0: the model's own
    openai_query_model: str = ""  # where queries have a model of their own
    ernie_url: str = "https://aip.baidubce.com"
    ernie_api_key: str = field(default="", repr=False)
    ernie_secret_key: str = field(default="", repr=False)
    reranker: str = "auto"
    generator: str = "auto"
    precision: PrecisionKind = "auto"  # of BGE models that were exported to ONNX
    hub_endpoint: str = "https://huggingface.co"  # or a mirror; only scripts/fetch_models asks it
    models: str = ""  # folder of model weights; empty: <data>/models
    chunk_tokens: int = 0  # the most tokens of a chunk; 0: as many as suit the embedder
    windows: bool = (
        True  # keep vectors of the sentence windows of chunks; False embeds half as much
    )
    vector_cache: int = 256 * 1024 * 1024  # the most of <data>/vectors.sqlite; 0: none is kept
    keep_generations: int = 1  # old ones that stay for scripts/rollback
    dictionary: str = ""  # jieba user dictionary; empty: <data>/dictionary.txt where it exists
    ollama_host: str = "http://127.0.0.1:11434"
    generator_context: int = 8192  # num_ctx: tokens of prompt and answer together
    generator_answer_tokens: int = 1024
    generator_timeout: float = 120.0  # longest silence of the generator
    generator_keep_alive: str = "30m"
    offline: str = "1"  # or 0, or hosts that embedders may ask all the same, parted by commas
    search_timeout: float = 5.0  # a search's deadline
    rerank_timeout: float = 2.0  # the reranker's share of it
    rerank_top_n: int = 50
    answer_passages: int = 12
    max_body: int = 32 * 1024 * 1024
    query_log: bool = True  # which queries were asked, without who asked
    log_level: str = "info"

    def __post_init__(self) -> None:
        for name, kinds in (("store", get_args(StoreKind)), ("precision", get_args(PrecisionKind))):
            if getattr(self, name) not in kinds:
                raise _wrong(name, f"one of {', '.join(kinds)}", getattr(self, name))
        if self.milvus_uri and not _is_milvus(self.milvus_uri):
            raise _wrong(
                "milvus_uri",
                "like http://127.0.0.1:19530, user and password being in TANYUAN_MILVUS_TOKEN",
                "another form",  # which may hold a password
            )
        if not 0 <= self.port <= 65_535:  # 0: the system chooses
            raise _wrong("port", "a port number", self.port)
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise _wrong(name, f"at least {least}", getattr(self, name))
        if self.generator_context < 2 * self.generator_answer_tokens:
            raise _wrong(
                "generator_context",
                "at least twice TANYUAN_GENERATOR_ANSWER_TOKENS, to leave room for the passages",
                self.generator_context,
            )
        if self.chunk_tokens and not 32 <= self.chunk_tokens <= 8192:
            raise _wrong("chunk_tokens", "0, or from 32 to 8192", self.chunk_tokens)
        self._check_served()
        for name in (
            "elasticsearch_timeout",
            "embedder_timeout",
            "generator_timeout",
            "search_timeout",
            "rerank_timeout",
        ):
            if not 0 < getattr(self, name) <= 86_400:
                raise _wrong(name, "a number of seconds above 0", getattr(self, name))

    def _check_served(self) -> None:
        if self.embedder_max_tokens and not 32 <= self.embedder_max_tokens <= 131_072:
            raise _wrong("embedder_max_tokens", "0, or from 32 to 131072", self.embedder_max_tokens)
        if not 0 <= self.openai_dimensions <= 65_536:
            raise _wrong(
                "openai_dimensions", "0, or a number of dimensions", self.openai_dimensions
            )
        if self.exceptions and not all(map(_HOST.fullmatch, self.exceptions)):
            raise _wrong("offline", "1, 0, or names of hosts parted by commas", self.offline)

    @classmethod
    def load(cls, environment: Mapping[str, str] = os.environ, **overrides: object) -> "Settings":
        """Read the environment and the TOML file; ``overrides`` (a script's options) win.

        Raises ConfigurationError naming the variable, the file or the unknown key.
        """
        values: dict[str, Any] = _read_file(environment.get("TANYUAN_CONFIG", ""))
        known = {item.name: item for item in fields(cls)}
        unknown = sorted(values.keys() - known.keys())
        if unknown:
            raise ConfigurationError(
                f"The file that TANYUAN_CONFIG names has unknown keys: {', '.join(unknown)}."
            )
        for name in known:
            raw = environment.get(environment_name(name), "")
            if raw:
                values[name] = raw
        values.update({key: value for key, value in overrides.items() if value is not None})
        return cls(**{key: _convert(key, value) for key, value in values.items()})

    @property
    def exceptions(self) -> frozenset[str] | None:
        """The hosts beyond the local network that embedders may ask; None: any."""
        word = self.offline.strip().lower()
        if word in _OFF:
            return None
        hosts = "" if word in _ON else word
        return frozenset(host.strip(" []").rstrip(".") for host in hosts.split(",") if host.strip())

    @property
    def models_folder(self) -> Path:
        return Path(self.models) if self.models else self.data / "models"

    @property
    def dictionary_file(self) -> Path | None:
        """The user dictionary, or None where there is none."""
        if self.dictionary:
            return Path(self.dictionary)
        default = self.data / "dictionary.txt"
        return default if default.is_file() else None


def _is_milvus(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        sound = parts.port is None or parts.port > 0
    except ValueError:
        return False
    known = parts.scheme in {"http", "https", "tcp"} and bool(parts.hostname)
    return known and sound and "@" not in parts.netloc and parts.path in {"", "/"}


def _wrong(name: str, wanted: str, got: object) -> ConfigurationError:
    return ConfigurationError(f"{environment_name(name)} must be {wanted}; got {got!r}.")


def _read_file(path: str) -> dict[str, Any]:
    if not path:
        return {}
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"TANYUAN_CONFIG names {path}, which can't be read: {error}"
        ) from error


def _convert(name: str, value: object) -> Any:
    """A setting's text, or TOML value, as the type of the field's default."""
    default: object = next(item.default for item in fields(Settings) if item.name == name)
    if isinstance(default, bool):
        word = str(value).strip().lower()
        if word not in {"0", "1", "true", "false", "on", "off"}:
            raise _wrong(name, "0 or 1", value)
        return word in {"1", "true", "on"}
    if isinstance(default, Path):
        return Path(str(value)).expanduser()
    if isinstance(default, int | float):
        try:
            return type(default)(str(value))
        except ValueError:
            raise _wrong(name, "a number", value) from None
    return str(value)
