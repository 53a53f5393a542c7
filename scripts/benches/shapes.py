"""Models of the shapes of BGE's, with random weights, made on the spot: for speed and memory alone."""

import json
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benches.shared import sample_texts

SPECIAL_BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SPECIAL_XLM = ["<s>", "<pad>", "</s>", "<unk>"]
CHARACTERS = [chr(point) for point in range(0x4E00, 0x9FA6)]  # 20,902 of Chinese


@dataclass(frozen=True, slots=True)
class Shape:
    kind: Literal["embedder", "reranker"]
    layers: int
    hidden: int
    heads: int
    inner: int
    vocabulary: int


# As their config.json on the hub has them.
SHAPES = {
    "bge-small-zh-v1.5": Shape("embedder", 4, 512, 8, 2_048, 21_128),
    "bge-base-zh-v1.5": Shape("embedder", 12, 768, 12, 3_072, 21_128),
    "bge-reranker-base": Shape("reranker", 12, 768, 12, 3_072, 250_002),
}


def make(name: str, folder: Path) -> Path:
    """A folder that loads like the model of that name; the same weights each time."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(7)
    shape = SHAPES[name]
    (_bert if shape.kind == "embedder" else _xlm_roberta)(shape, folder)
    return folder


def _bert(shape: Shape, folder: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    letters = string.ascii_lowercase + string.digits
    words = [*SPECIAL_BERT, *string.punctuation, *"，。：；、（）《》？！", *letters]
    words += [f"##{one}" for one in letters] + CHARACTERS
    words = _filled(words, shape.vocabulary)
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    BertModel(BertConfig(max_position_embeddings=512, **_sizes(shape))).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    _save(tokenizer, folder, "BertTokenizer")
    pooling = folder / "1_Pooling"
    pooling.mkdir()
    (pooling / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))


def _xlm_roberta(shape: Shape, folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    words = [*SPECIAL_XLM, "▁", *string.ascii_letters, *string.digits, *string.punctuation]
    words = _filled([*words, *CHARACTERS, *_english()], shape.vocabulary)
    pieces = [(word, -10 - number / 1e5) for number, word in enumerate(words)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    config = XLMRobertaConfig(
        max_position_embeddings=514,
        type_vocab_size=1,
        num_labels=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        **_sizes(shape),
    )
    XLMRobertaForSequenceClassification(config).save_pretrained(folder)
    _save(tokenizer, folder, "XLMRobertaTokenizer")


def _sizes(shape: Shape) -> dict[str, Any]:
    return {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.inner,
        # Embedders' so that texts differ; trained ones differ more.
        "initializer_range": 0.04 if shape.kind == "embedder" else 0.02,
    }


def _english() -> list[str]:
    words = {word.strip(string.punctuation) for text in sample_texts() for word in text.split()}
    return [f"▁{word}" for word in sorted(words) if word.isascii() and word]


def _filled(words: Sequence[str], size: int) -> list[str]:
    """Without repetitions, and as many as a real vocabulary has."""
    kept = list(dict.fromkeys(words))[:size]
    return kept + [f"unused{number:06}" for number in range(size - len(kept))]


def _save(tokenizer: Any, folder: Path, kind: str) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    stated = {"tokenizer_class": kind, "do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))


def texts(count: int, chance: Callable[[], float], *, least: int, most: int) -> list[str]:
    """Parts of the sample, mixed lengths: ``chance`` (0 to 1) places each length between two numbers of
    characters, of which a Chinese one is a token."""
    whole = "\n".join(sample_texts())
    found = []
    for _ in range(count):
        start = int(chance() * (len(whole) - most))
        found.append(whole[start : start + least + int(chance() * (most - least))])
    return found
