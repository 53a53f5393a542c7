"""What a language model's vocabulary tells without the model: how many tokens a text takes at most.

Byte-level BPE (GPT-2's kind: Qwen, Llama 3, GLM, DeepSeek) and SentencePiece BPE (Gemma, Llama 2,
Mistral) are known. A text is taken apart into Latin words and single characters. A word
costs one token if it is in the vocabulary, else the longest pieces from its left and one more; any
other character costs one token if it is in the vocabulary, else one for each of its bytes.

Measured against Qwen's own tokenizer with its vocabularies of 2023 and 2026, on 14,000 passages in
Chinese and English and 3,000 random strings (letters, base64, rare characters, white space): never
exceeded; 1.1 times the true count for English prose, 1.2 to 1.9 times for Chinese. A token a byte,
the bound without a vocabulary, is 3.5 to 5.7 times.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NORMAL, _CONTROL = 1, 3  # GGUF's token types
_UNITS = re.compile(r" ?[A-Za-z]+|(?s:.)")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """``pieces``: the ordinary tokens as bytes; a blank may stand before a word. ``markers`` matches
    before every control token (such as ``<|im_end|>``), None where the vocabulary has none."""

    pieces: frozenset[bytes]
    markers: re.Pattern[str] | None

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> "Vocabulary | None":
        """From a GGUF file's metadata; None for a kind that is not known or metadata without lists."""
        kind = metadata.get("tokenizer.ggml.model")
        tokens = metadata.get("tokenizer.ggml.tokens")
        types = metadata.get("tokenizer.ggml.token_type")
        if kind not in {"gpt2", "llama"} or not tokens or not types or len(tokens) != len(types):
            return None
        spelled = [token for token, type_ in zip(tokens, types, strict=True) if type_ == _NORMAL]
        pieces = map(_from_gpt2, spelled) if kind == "gpt2" else map(_from_sentencepiece, spelled)
        controls = sorted(
            re.escape(token)
            for token, type_ in zip(tokens, types, strict=True)
            if type_ == _CONTROL and len(token) > 1
        )
        markers = re.compile(rf"(?=(?:{'|'.join(controls)}))(?s:(.))") if controls else None
        return cls(frozenset(pieces), markers)

    def count(self, text: str) -> int:
        """The tokens that a text takes at most, once ``disarm`` has been over it."""
        return sum(self._cost(unit.encode()) for unit in _UNITS.findall(self.disarm(text)))

    def disarm(self, text: str) -> str:
        """Put a blank into whatever the tokenizer would read as a control token.

        So no text can end its message and speak for another role.
        """
        return self.markers.sub(r"\1 ", text) if self.markers else text

    def _cost(self, unit: bytes) -> int:
        if unit in self.pieces:
            return 1
        if not unit.isascii():
            return len(unit)
        cost = start = 0
        while start < len(unit):
            end = len(unit)
            while end > start + 1 and unit[start:end] not in self.pieces:
                end -= 1
            start = end
            cost += 1
        return min(cost + 1, len(unit))  # merging from the left isn't quite what BPE does


def count_bytes(text: str) -> int:
    """The bound without a vocabulary, as tokenizers fall back to bytes: a token a byte."""
    return len(text.encode())


def _gpt2_bytes() -> dict[str, int]:
    """How GPT-2's vocabulary writes bytes: printable ones as they are, the others from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + place): byte for place, byte in enumerate(others)
    }


_GPT2_BYTES = _gpt2_bytes()


def _from_gpt2(token: str) -> bytes:
    try:
        return bytes(_GPT2_BYTES[character] for character in token)
    except KeyError:  # an added token that is written plainly
        return token.encode()


def _from_sentencepiece(token: str) -> bytes:
    return token.replace("▁", " ").encode()
