"""Tiny models of BGE's architectures, with seeded random weights, as folders that load like real ones."""

import json
import string
from pathlib import Path
from typing import Any

CHINESE = (
    "差旅报销标准按照职级和城市分为三档一线每晚住宿上限六百元年假病事请申审批流程公司员工手册密码"
)
SPECIAL_BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
POSITIONS = 64


def bert(
    folder: Path,
    *,
    pooling: str | None = "cls",
    hidden: int = 32,
    seed: int = 7,
    spread: float = 0.5,  # of the weights; so that different texts get clearly different vectors
) -> Path:
    """An embedder of bge-*-v1.5's kind: BERT with WordPiece, reading 64 tokens."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    letters = string.ascii_lowercase + string.digits
    words = [*SPECIAL_BERT, *CHINESE, *letters, *(f"##{one}" for one in letters), *",.:：，。"]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        max_position_embeddings=POSITIONS,
        initializer_range=spread,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    _write(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": POSITIONS},
    )
    if pooling is not None:
        _write(
            folder / "1_Pooling" / "config.json",
            {
                "word_embedding_dimension": hidden,
                "pooling_mode_cls_token": pooling == "cls",
                "pooling_mode_mean_tokens": pooling == "mean",
                "pooling_mode_max_tokens": pooling == "max",
            },
        )
    return folder


def sentences(
    folder: Path,
    *,
    pooling: str | list[str] | None = "mean",
    prompts: dict[str, str] | None = None,
    dense: int = 0,
    normalized: bool = False,
    max_tokens: int = 0,
    seed: int = 7,
) -> Path:
    """A model as sentence-transformers saves it; ``pooling`` None: the plain BERT folder that it was made
    of. ``dense``: dimensions of a layer behind the pooling."""
    if pooling is None:
        return bert(folder, pooling=None, seed=seed)
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import (
        Dense,
        Normalize,
        Pooling,
        Transformer,
    )

    plain = bert(folder.with_name(f"{folder.name}-plain"), pooling=None, seed=seed)
    transformer = Transformer(str(plain))
    if max_tokens:
        transformer.max_seq_length = max_tokens
    pool = Pooling(32, pooling)
    modules = [transformer, pool]
    if dense:
        modules.append(Dense(pool.get_embedding_dimension(), dense))
    if normalized:
        modules.append(Normalize())
    model = SentenceTransformer(modules=modules, device="cpu", prompts=prompts or {})
    model.save(str(folder), create_model_card=False)
    if max_tokens:  # older versions keep it here, which is what M3E's folder has
        _write(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens})
    return folder


def reranker(folder: Path, *, labels: int = 1, seed: int = 7, spread: float = 0.5) -> Path:
    """A reranker of bge-reranker-base's kind: XLM-RoBERTa with a Unigram tokenizer, 64 tokens."""
    from transformers import XLMRobertaForSequenceClassification

    config = _roberta(folder, seed, labels, spread)
    XLMRobertaForSequenceClassification(config).save_pretrained(folder)
    return folder


def m3(folder: Path, *, seed: int = 7) -> Path:
    """An embedder of BGE-M3's kind: XLM-RoBERTa with heads for sparse weights and for token vectors."""
    import torch
    from transformers import XLMRobertaModel

    config = _roberta(folder, seed)
    XLMRobertaModel(config).save_pretrained(folder)
    for name, outputs in (("sparse_linear.pt", 1), ("colbert_linear.pt", config.hidden_size)):
        head = torch.nn.Linear(config.hidden_size, outputs)
        with torch.no_grad():
            head.bias.fill_(0.5)  # so that most tokens have a weight
        torch.save(head.state_dict(), folder / name)
    return folder


def _roberta(folder: Path, seed: int, labels: int = 2, spread: float = 0.5) -> Any:
    """The configuration of a tiny XLM-RoBERTa, whose tokenizer is written to the folder."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import XLMRobertaConfig

    words = ["<s>", "<pad>", "</s>", "<unk>", "▁", *CHINESE, *string.ascii_letters, *string.digits]
    pieces = [(word, -float(number)) for number, word in enumerate(dict.fromkeys(words))]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": POSITIONS},
    )
    torch.manual_seed(seed)
    return XLMRobertaConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=POSITIONS + 2,
        type_vocab_size=1,
        num_labels=labels,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        initializer_range=spread,
    )


def _write(file: Path, value: dict[str, object]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value), encoding="utf-8")
