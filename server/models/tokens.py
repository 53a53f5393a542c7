"""A model's own tokenizer, twice: one that cuts what the model would not read, and one that only counts.

Neither is ever changed, so that all threads may use both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.models.pieces import pieces
from server.models.weights import read_json
from server.texts import clean_text

CHARS_PER_TOKEN = 64  # text past this many characters a token is not even tokenized
COUNT_CHARS = 50_000  # the tokenizer takes some kilobyte a token
# Families whose position numbers start after the padding token's.
OFFSET_FAMILIES = frozenset({"xlm-roberta", "roberta", "camembert", "xlm-roberta-xl"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """``max_tokens``: of a text or a pair of texts, special tokens included."""

    reader: Any
    counter: Any
    max_tokens: int

    @classmethod
    def load(cls, content: str, *, max_tokens: int, pairs: bool) -> "Tokens":
        """From the content of a ``tokenizer.json``. Pairs are cut on the second text's side.

        Raises whatever the library raises on what is none.
        """
        from tokenizers import Tokenizer  # noqa: PLC0415 - comes with the models that need it

        reader, counter = (Tokenizer.from_str(content) for _ in range(2))
        reader.no_padding()
        reader.enable_truncation(max_tokens, strategy="only_second" if pairs else "longest_first")
        counter.no_padding()
        counter.no_truncation()
        return cls(reader=reader, counter=counter, max_tokens=max_tokens)

    def read(self, texts: Sequence[Any]) -> list[Any]:
        """Encodings of texts, or of pairs of texts, cut at max_tokens."""
        encoded: list[Any] = self.reader.encode_batch(texts)
        return encoded

    def prepare(self, text: str) -> str:
        """A text that the tokenizer can take, without the part that would be cut anyway."""
        return clean_text(text[: CHARS_PER_TOKEN * self.max_tokens])

    def count(self, text: str) -> int:
        """Tokens of a text of any length, special ones left out."""
        return sum(
            len(self.counter.encode(clean_text(piece), add_special_tokens=False).ids)
            for piece in pieces(text, COUNT_CHARS)
        )

    def first(self, text: str, longest: int) -> str:
        """The part of a text that makes up its first ``longest`` tokens."""
        text = self.prepare(text)
        encoding = self.counter.encode(text, add_special_tokens=False)
        return text if len(encoding.ids) <= longest else text[: encoding.offsets[longest - 1][1]]


def positions(folder: Path, config: dict[str, Any]) -> int:
    """How many tokens a model can read at once, special tokens included; 0 where it doesn't say."""
    count = int(config.get("max_position_embeddings") or 0)
    if config.get("model_type") in OFFSET_FAMILIES:
        count -= int(config.get("pad_token_id") or 0) + 1
    stated = read_json(folder / "tokenizer_config.json").get("model_max_length")
    if isinstance(stated, int | float) and 0 < stated < count:
        count = int(stated)
    return max(count, 0)
