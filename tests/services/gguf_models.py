"""Tiny language models for a real Ollama, made in a moment: they stand in for gigabytes of weights.

A model here is a true llama-architecture GGUF file (0.5 MB) that Ollama's own runner loads, tokenizes
for and samples from; only what it knows is small. Attention and feed-forward weights are zero, so the
last token alone decides the next, and the output matrix is a table of such pairs. So a *scripted*
model answers any prompt with one sentence, an *endless* one repeats its sentence until it is stopped,
and a *random* one has random weights and writes noise. What they can't show: quality of answers.

The vocabulary is byte-level as GPT-2's: the 256 bytes, a few merges, ChatML's markers and the pieces
of the sentence. The pieces are cut at bytes, so many end inside a Chinese character, as with real
models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import ollama
from numpy.typing import NDArray

CHINESE = "差旅报销标准为每天三百元[1]，住宿费凭发票在限额内报销[2]。"
ENGLISH = "The travel allowance is 300 yuan a day [1], and lodging is paid against receipts [2]."

# The models that make_models makes, by name.
SCRIPTED = "tanyuan-test-chinese"
SCRIPTED_ENGLISH = "tanyuan-test-english"
ENDLESS = "tanyuan-test-endless"
NOISE = "tanyuan-test-noise"
MODELS = (SCRIPTED, SCRIPTED_ENGLISH, ENDLESS, NOISE)

TEMPLATE = (
    "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n"
)
_START, _END = "<|im_start|>", "<|im_end|>"
_MERGES = ("t h", "th e", "Ġ the", "i n", "a n", "an d", "Ġ and", "e r", "o n")
_HEADS = 4


def make_models(folder: Path, *, url: str) -> None:
    """Make all of MODELS: what says CHINESE, ENGLISH, CHINESE for ever and slowly, and noise."""
    scripted_model(folder, SCRIPTED, CHINESE, url=url)
    scripted_model(folder, SCRIPTED_ENGLISH, ENGLISH, url=url)
    scripted_model(folder, ENDLESS, CHINESE, url=url, endless=True, layers=100)
    random_model(folder, NOISE, url=url)


def scripted_model(
    folder: Path,
    name: str,
    sentence: str = CHINESE,
    *,
    url: str,
    endless: bool = False,
    layers: int = 2,
    trained_context: int = 131_072,
) -> str:
    """Make a model that answers every chat with ``sentence``, and return its name in Ollama.

    ``endless``: it says the sentence again and again. ``layers``: more of them make it slower (100:
    some 100 to 200 tokens a second), for tests that act in the middle of an answer.
    ``trained_context``: the longest context in tokens that the file says it was made for.
    """
    pieces = cut(sentence.encode())
    vocabulary = _vocabulary(pieces)
    first = len(vocabulary.tokens) - len(pieces)
    chain = [*range(first, len(vocabulary.tokens))]
    width = 64 * -(-(len(pieces) + 1) // 64)  # a dimension a state, so that no two states mix
    embedding = np.zeros((len(vocabulary.tokens), width), dtype=np.float32)
    output = np.zeros_like(embedding)
    embedding[:, 0] = 1  # state 0: whatever ends the prompt
    for state, token in enumerate(chain, start=1):
        embedding[token] = np.eye(1, width, state)
    following = [*chain, chain[0] if endless else vocabulary.tokens.index(_END)]
    for state, token in enumerate(following):
        output[token, state] = 10
    return _create(
        folder,
        name,
        url,
        vocabulary,
        embedding,
        output,
        layers=layers,
        noise=None,
        trained_context=trained_context,
    )


def random_model(
    folder: Path, name: str, *, url: str, seed: int = 0, trained_context: int = 131_072
) -> str:
    """Make a model with random weights, which writes noise, and return its name in Ollama."""
    noise = np.random.default_rng(seed)
    vocabulary = _vocabulary(())
    shape = (len(vocabulary.tokens), 64)
    embedding, output = (noise.normal(size=shape).astype(np.float32) for _ in range(2))
    return _create(
        folder,
        name,
        url,
        vocabulary,
        embedding,
        output,
        layers=2,
        noise=noise,
        trained_context=trained_context,
    )


def cut(text: bytes) -> list[bytes]:
    """Cut text into pieces of 4 bytes or more, none of them twice."""
    pieces: list[bytes] = []
    start = 0
    while start < len(text):
        end = start + 4
        while text[start:end] in pieces and end < len(text):
            end += 1
        pieces.append(text[start:end])
        start = end
    if len(pieces) > 1 and (len(pieces[-1]) < 4 or pieces[-1] in pieces[:-1]):
        last = pieces.pop()
        pieces[-1] += last
    return pieces


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    tokens: Sequence[str]
    types: Sequence[int]


def _vocabulary(pieces: Sequence[bytes]) -> _Vocabulary:
    merged = ["".join(merge.split()) for merge in _MERGES]
    spelled = [_spell(piece) for piece in pieces]
    known = [*_spell(bytes(range(256))), *merged]
    if set(spelled) & set(known):
        raise ValueError("A piece of the sentence is a token already; change the sentence.")
    normal, control = int(gguf.TokenType.NORMAL), int(gguf.TokenType.CONTROL)
    return _Vocabulary(
        [_START, _END, *known, *spelled],
        [control, control, *[normal] * (len(known) + len(spelled))],
    )


def _spell(data: bytes) -> str:
    """Bytes as GPT-2 writes them in its vocabulary: printable ones as they are, others from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return "".join(chr(byte if byte in printable else 0x100 + others.index(byte)) for byte in data)


def _create(
    folder: Path,
    name: str,
    url: str,
    vocabulary: _Vocabulary,
    embedding: NDArray[np.float32],
    output: NDArray[np.float32],
    *,
    layers: int,
    noise: np.random.Generator | None,
    trained_context: int = 131_072,
) -> str:
    width, inner = embedding.shape[1], 32
    key_value = width // _HEADS  # one head of keys and values is enough
    file = folder / f"{name}.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(trained_context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(width // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(_MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)

    def weights(*shape: int) -> NDArray[np.float32]:
        if noise is None:
            return np.zeros(shape, dtype=np.float32)
        return (noise.normal(size=shape) / 8).astype(np.float32)

    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output_norm.weight", np.ones(width, dtype=np.float32))
    writer.add_tensor("output.weight", output)
    for block in (f"blk.{layer}" for layer in range(layers)):
        writer.add_tensor(f"{block}.attn_norm.weight", np.ones(width, dtype=np.float32))
        writer.add_tensor(f"{block}.attn_q.weight", weights(width, width))
        writer.add_tensor(f"{block}.attn_k.weight", weights(key_value, width))
        writer.add_tensor(f"{block}.attn_v.weight", weights(key_value, width))
        writer.add_tensor(f"{block}.attn_output.weight", weights(width, width))
        writer.add_tensor(f"{block}.ffn_norm.weight", np.ones(width, dtype=np.float32))
        writer.add_tensor(f"{block}.ffn_gate.weight", weights(inner, width))
        writer.add_tensor(f"{block}.ffn_up.weight", weights(inner, width))
        writer.add_tensor(f"{block}.ffn_down.weight", weights(width, inner))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    client = ollama.Client(url, trust_env=False)
    try:
        digest = client.create_blob(file)
        client.create(
            model=name,
            files={file.name: digest},
            template=TEMPLATE,
            # One thread: more of them cost a tiny model seconds of waiting for each other.
            parameters={"num_thread": 1, "num_ctx": 4096},
        )
    finally:
        client.close()
    file.unlink()
    return name
