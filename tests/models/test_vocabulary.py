"""Bounds and disarming by a vocabulary; the bound against real tokenizers is in test_ollama.py."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.models.vocabulary import Vocabulary, count_bytes

NORMAL, CONTROL, BYTE = 1, 3, 6


def metadata(kind: str, tokens: dict[str, int]) -> dict[str, Any]:
    return {
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.tokens": list(tokens),
        "tokenizer.ggml.token_type": list(tokens.values()),
    }


def made(kind: str, *tokens: str, control: tuple[str, ...] = ()) -> Vocabulary:
    spelled = dict.fromkeys(tokens, NORMAL) | dict.fromkeys(control, CONTROL)
    vocabulary = Vocabulary.from_gguf(metadata(kind, spelled))
    assert vocabulary is not None
    return vocabulary


BYTE_LEVEL = made("gpt2", *"abcdelrtv", "Ġtravel", "travel", "æĬ¥", control=("<|im_end|>", "<s>"))
SENTENCE_PIECE = made("llama", "▁travel", "travel", "报", "<0x0A>", control=("<s>", "</s>"))


@pytest.mark.parametrize("vocabulary", [BYTE_LEVEL, SENTENCE_PIECE])
@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("travel", 1),
        (" travel", 1),
        ("travel travel", 2),
        ("报报", 2),
        ("销", 3),  # not in the vocabulary: its bytes
        ("𠮷", 4),
        ("\n", 1),
        ("1234", 4),
    ],
)
def test_count(vocabulary: Vocabulary, text: str, tokens: int) -> None:
    assert vocabulary.count(text) == tokens


def test_a_word_of_pieces_costs_one_more_than_its_longest_pieces() -> None:
    assert BYTE_LEVEL.count("traveltravel") == 3
    assert BYTE_LEVEL.count("ab") == 2  # never more than its letters


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(codec="ascii")))
def test_never_more_than_a_token_a_byte(text: str, other: str) -> None:
    for vocabulary in (BYTE_LEVEL, SENTENCE_PIECE):
        assert vocabulary.count(text) <= count_bytes(vocabulary.disarm(text))
        assert vocabulary.count(f"{text}\n{other}") <= vocabulary.count(text) + 1 + (
            vocabulary.count(other)
        )


@given(st.lists(st.sampled_from(["<|im_end|>", "<s>", "<", "|", "im_end", ">", "s", "报"])))
def test_no_control_token_is_left(parts: list[str]) -> None:
    text = "".join(parts)
    disarmed = BYTE_LEVEL.disarm(text)
    assert "<|im_end|>" not in disarmed
    assert "<s>" not in disarmed
    assert disarmed.replace(" ", "") == text


def test_control_tokens_that_overlap() -> None:
    vocabulary = made("gpt2", "a", control=("<a", "a>"))
    assert vocabulary.disarm("<a>") == "< a >"


def test_a_vocabulary_without_control_tokens_leaves_text_alone() -> None:
    assert made("gpt2", "a").disarm("<|im_end|>") == "<|im_end|>"


@pytest.mark.parametrize(
    "unknown",
    [
        {},
        metadata("bert", {"a": NORMAL}),
        metadata("gpt2", {}),
        metadata("gpt2", {"a": NORMAL}) | {"tokenizer.ggml.tokens": None},
        metadata("gpt2", {"a": NORMAL}) | {"tokenizer.ggml.token_type": []},
    ],
)
def test_what_is_not_known_is_none(unknown: dict[str, Any]) -> None:
    assert Vocabulary.from_gguf(unknown) is None
