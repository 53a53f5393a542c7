"""Terms that the references search by: functions from a text to its terms, in order."""

import logging
import re
import subprocess
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import opencc

Terms = Callable[[str], Sequence[str]]

_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA = "\u3041-\u30ff"
_RUN = re.compile(rf"([{_HAN}{_KANA}]+)|[^\W_{_HAN}{_KANA}]+")
_CJK_TERMS = Path(__file__).with_name("CjkTerms.java")


def folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower()


def quiet_jieba() -> ModuleType:
    """jieba's own package, without its warnings and log."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its source has invalid escapes
        import jieba
    jieba.setLogLevel(logging.CRITICAL)
    return jieba


def jieba_words() -> Terms:
    """jieba's cut_for_search, as its own package does it, without punctuation and blanks."""
    cut = quiet_jieba().cut_for_search
    return lambda text: [word for word in cut(folded(text)) if re.search(r"\w", word)]


def simplified(terms: Terms) -> Terms:
    """The terms of the text in Simplified characters."""
    convert = opencc.OpenCC("t2s").convert
    return lambda text: terms(convert(text))


def characters(text: str) -> list[str]:
    """Each Chinese character, and Latin words whole."""
    return _grams(text, 1)


def bigrams(text: str) -> list[str]:
    """Pairs of neighbouring Chinese characters (one that stands alone by itself), Latin words whole."""
    return _grams(text, 2)


def _grams(text: str, length: int) -> list[str]:
    found: list[str] = []
    for run in _RUN.finditer(folded(text)):
        word = run.group()
        if run[1] is None or len(word) <= length:
            found.append(word)
        else:
            found += [word[at : at + length] for at in range(len(word) - length + 1)]
    return found


def trigrams(text: str) -> list[str]:
    """What FTS5's trigram tokenizer makes of a text; nothing of one shorter than three characters."""
    return [text[at : at + 3] for at in range(len(text) - 2)]


def words(text: str) -> list[str]:
    """What FTS5's unicode61 makes of a text: letters and digits, so a whole run of Chinese is one."""
    return re.findall(r"[^\W_]+", text)


@contextmanager
def cjk_terms(java: Path, libraries: Path) -> Iterator[Terms]:
    """Terms of Lucene's own CJKAnalyzer, which is Elasticsearch's ``cjk``, in a process of its own."""
    command = [java, "-cp", f"{libraries}/*", _CJK_TERMS]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    ) as process:
        given, made = process.stdin, process.stdout

        def terms(text: str) -> list[str]:
            given.write(" ".join(text.split()) + "\n")
            given.flush()
            return made.readline().split()

        yield terms
        given.close()
