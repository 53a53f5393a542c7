"""Tiny models with random weights whose vocabulary is that of the sample collection."""

import json
import re
import string
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.product import SAMPLE

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
POSITIONS = 64
# Where a word stands weighs this much more in the vectors than which word it is, so that the model ranks
# little better than chance, and there is something to learn for it in a few hundred examples.
PLACES = 10


def texts() -> Iterator[str]:
    for file in sorted((SAMPLE / "documents").rglob("*")):
        if file.is_file():
            yield file.read_text(encoding="utf-8", errors="ignore").lower()


def embedder(folder: Path, *, places: float = PLACES, seed: int = 7) -> Path:
    """BERT of one layer, 64 dimensions wide, that reads 64 tokens; pooled by the mean."""
    import torch
    from transformers import BertConfig, BertModel

    size = _tokenizer(folder)
    torch.manual_seed(seed)
    model = BertModel(_config(BertConfig, size))
    with torch.no_grad():
        model.embeddings.position_embeddings.weight.mul_(places)
    model.save_pretrained(folder)
    return folder


def reranker(folder: Path, *, seed: int = 7) -> Path:
    """The same shape with a head that scores pairs."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    size = _tokenizer(folder)
    torch.manual_seed(seed)
    config = _config(BertConfig, size, num_labels=1)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def _config(kind, size: int, **more):
    return kind(
        vocab_size=size,
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=POSITIONS,
        **more,
    )


def _tokenizer(folder: Path) -> int:
    """Characters, words that stand twice, and letters for the others; how many there are."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words: Counter[str] = Counter()
    characters: set[str] = set()
    for text in texts():
        characters |= {one for one in text if not one.isspace()}
        words.update(re.findall(r"[a-z]{2,}", text))
    frequent = [word for word, count in words.items() if count > 1]
    pieces = [f"##{one}" for one in string.ascii_lowercase + string.digits]
    vocabulary = {
        word: number
        for number, word in enumerate(
            dict.fromkeys([*SPECIAL, *sorted(characters), *frequent, *pieces])
        )
    }
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    stated = {"tokenizer_class": "BertTokenizer", "model_max_length": POSITIONS}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    return len(vocabulary)
