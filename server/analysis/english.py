"""Words of Latin and other alphabets: stop words, accents, stems."""

import threading
import unicodedata
from functools import lru_cache
from importlib.resources import files

import snowballstemmer

_CACHED_STEMS = 100_000
_ACCENT = "\u0300", "\u036f"


class EnglishWords:
    """Thread-safe. Porter2 leaves words of other alphabets as they are."""

    def __init__(self) -> None:
        data = files("server.analysis") / "data" / "stopwords_en.txt"
        self.stop_words = frozenset(data.read_text("utf-8").split())
        self._stemmer = snowballstemmer.stemmer("english")
        self._lock = threading.Lock()  # a stemmer keeps the word that it works on
        self.stem = lru_cache(_CACHED_STEMS)(self._stem)

    def _stem(self, word: str) -> str:
        if not word.isascii():  # café is cafe
            letters = unicodedata.normalize("NFD", word)
            bare = "".join(char for char in letters if not _ACCENT[0] <= char <= _ACCENT[1])
            word = unicodedata.normalize("NFC", bare) or word
        with self._lock:
            return self._stemmer.stemWord(word) or word
