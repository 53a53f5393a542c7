"""What the folder of a sentence-transformers model says of itself: its modules, prompts and sizes.

``modules.json`` names the modules that a text goes through; a plain BERT or RoBERTa folder has none and is
pooled by the mean, as sentence-transformers does. Only files are read here, no weights.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from server.errors import EmbedderUnavailable
from server.models import weights
from server.models.tokens import positions

MEAN = "mean"
QUERY_PROMPTS = ("query",)  # the names that sentence-transformers looks for, in its order
PASSAGE_PROMPTS = ("document", "passage", "corpus")
POOLINGS = frozenset({"cls", "max", MEAN, "mean_sqrt_len_tokens", "weightedmean", "lasttoken"})
UNCHANGED = frozenset({"Normalize", "LayerNorm", "Dropout"})  # modules that keep the dimensions

_LEGACY = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": MEAN,
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_OWN_FILES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
_MODULE_FILES = ("config.json", "model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """``poolings``: side by side in the vector; ``shown_prompt``: whether they see the prompt's tokens.
    ``files``: what decides the vectors beside the transformer's own files, relative to the folder."""

    dimensions: int
    max_tokens: int
    poolings: tuple[str, ...] = (MEAN,)
    shown_prompt: bool = True
    query_prompt: str = ""
    passage_prompt: str = ""
    files: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, folder: Path) -> "Shape":
        """Raises EmbedderUnavailable for a folder that is not whole, or holds modules that are not known."""
        config = weights.read_json(folder / "config.json")
        hidden = int(config.get("hidden_size") or config.get("dim") or 0)
        longest = positions(folder, config)
        if not hidden or not longest or not weights.is_whole(folder):
            raise EmbedderUnavailable(
                f"{folder} holds no whole BERT-like model (config.json with hidden_size and "
                "max_position_embeddings, tokenizer.json, weights): scripts/fetch_models gets one."
            )
        if any("Classification" in kind for kind in config.get("architectures") or ()):
            raise EmbedderUnavailable(f"{folder} holds a classifier or reranker, not an embedder.")
        modules = list(_modules(folder))
        pooling: Mapping[str, Any] = {}
        dimensions = hidden
        for kind, path in modules:
            if kind == "Pooling":
                pooling = weights.read_json(folder / path / "config.json")
                dimensions = hidden * len(_poolings(folder, pooling))
            elif kind == "Dense":
                dimensions = int(weights.read_json(folder / path / "config.json")["out_features"])
        bert = weights.read_json(folder / "sentence_bert_config.json")
        own = weights.read_json(folder / "config_sentence_transformers.json")
        stated = int(bert.get("max_seq_length") or longest)
        return cls(
            dimensions=min(dimensions, int(own.get("truncate_dim") or dimensions)),
            max_tokens=min(longest, stated),
            poolings=_poolings(folder, pooling),
            shown_prompt=bool(pooling.get("include_prompt", True)),
            query_prompt=_prompt(own, QUERY_PROMPTS),
            passage_prompt=_prompt(own, PASSAGE_PROMPTS),
            files=tuple(_files(folder, [path for _, path in modules])),
        )


def _modules(folder: Path) -> Iterator[tuple[str, str]]:
    """Kind and path of each module after the transformer. Raises EmbedderUnavailable."""
    listed = weights.read_list(folder / "modules.json")
    if not listed:
        if (folder / "modules.json").is_file():
            raise EmbedderUnavailable(f"{folder}/modules.json can't be read.")
        return
    for number, module in enumerate(listed):
        name, path = str(module.get("type", "")), str(module.get("path", ""))
        library, _, kind = name.partition(".")[0], *name.rpartition(".")[1:]
        inside = not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts
        first = number == 0 and kind in {"Transformer", "BERT", "RoBERTa"} and path in {"", "."}
        rest = number > 0 and kind in {"Pooling", "Dense", *UNCHANGED}
        # A module of another library would be code that comes with the weights.
        if library != "sentence_transformers" or not inside or not (first or rest):
            raise EmbedderUnavailable(
                f"{folder} has the module {name!r} at {path!r} in modules.json: only a transformer in "
                f"the folder itself is supported, then Pooling, Dense, {', '.join(sorted(UNCHANGED))}."
            )
        if number > 0:
            yield kind, path


def _poolings(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _LEGACY.items() if config.get(key)] or [MEAN]
    found = (modes,) if isinstance(modes, str) else tuple(str(mode) for mode in modes)
    if not POOLINGS.issuperset(found):
        raise EmbedderUnavailable(f"{folder} wants the pooling {', '.join(found)}: not known.")
    return found


def _prompt(config: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """By name as ``encode_query`` and ``encode_document`` choose it, else the default one."""
    prompts = config.get("prompts") or {}
    for name in names:
        if name in prompts:  # an empty one is meant
            return str(prompts[name] or "")
    return str(prompts.get(config.get("default_prompt_name")) or "")


def _files(folder: Path, paths: list[str]) -> Iterator[str]:
    for name in [*_OWN_FILES, *(f"{path}/{name}" for path in paths for name in _MODULE_FILES)]:
        if (folder / name).is_file():
            yield name
