"""Pinyin: how Chinese is read, and what people type instead of it.

pypinyin knows the readings of characters and of words. Where it knows no word it gives a character
every reading that it ever had; those kept are the ones that some share of its words have, so that 差
in 差旅 is cha or chai and not also ci, cuo or jie.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from functools import cache
from itertools import islice, product

MAX_READINGS = 4  # of one text

_HAN = re.compile("[\u3007\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]+")
_COMMON = 0.08  # of a character's places in words
_SEPARATORS = re.compile(r"[\s'’·\-]+")
_TONE = re.compile(r"(?<=[a-z])[1-5](?![0-9])")
_YU = re.compile(r"(?<=[ln])yu")
_FIRST = re.compile(r"^(?:([zcs])h|n(?=[a-z]))")
_LAST = re.compile(r"(?<=[aei]n)g$")


def has_han(text: str) -> bool:
    return _HAN.search(text) is not None


def is_han(text: str) -> bool:
    return _HAN.fullmatch(text) is not None


def readings(text: str) -> list[tuple[str, ...]]:
    """Ways to read a normalised text, the likeliest first, at most MAX_READINGS: a syllable for each
    Chinese character, any other character as it is."""
    choices: list[tuple[str, ...]] = []
    at = 0
    for match in _HAN.finditer(text):
        choices += [(char,) for char in text[at : match.start()]]
        choices += _of_run(match.group())
        at = match.end()
    choices += [(char,) for char in text[at:]]
    return list(islice(product(*choices), MAX_READINGS))


def letters(text: str) -> str:
    """What somebody typed of pinyin as ``readings`` would have it joined: without tones (as marks or
    digits) and separators, ü as v. Chinese in it stays."""
    apart = unicodedata.normalize("NFD", text.lower()).replace("u\u0308", "v")
    bare = "".join(char for char in apart if not unicodedata.combining(char))
    joined = unicodedata.normalize("NFC", bare)
    # Joined, a number may come to stand where a tone does: the same then as if it was typed so.
    while (less := _SEPARATORS.sub("", _TONE.sub("", joined))) != joined:
        joined = less
    return _YU.sub("v", joined)


def blurred(syllable: str) -> str:
    """One form for syllables that many speakers do not tell apart: zh and z, n and l, -ng and -n."""
    return _LAST.sub("", _FIRST.sub(lambda match: match[1] or "l", syllable))


def _of_run(run: str) -> list[tuple[str, ...]]:
    """The readings of each of a run's characters."""
    from pypinyin import Style, pinyin  # noqa: PLC0415 - a third of a second, when first needed

    found = pinyin(run, style=Style.NORMAL, heteronym=True, v_to_u=False)
    if len(found) != len(run):  # never seen
        return [(char,) for char in run]
    common = _common_readings()
    return [
        tuple(each for each in syllables if each in common.get(char, syllables)) or (syllables[0],)
        for char, syllables in zip(run, found, strict=True)
    ]


@cache
def _common_readings() -> Mapping[str, frozenset[str]]:
    """Character → the readings that a share of the words with it have."""
    from pypinyin.contrib.tone_convert import to_normal  # noqa: PLC0415
    from pypinyin.phrases_dict import phrases_dict  # noqa: PLC0415

    plain = cache(lambda syllable: to_normal(syllable, v_to_u=False))
    counts: dict[str, Counter[str]] = {}
    for word, syllables in phrases_dict.items():
        for char, given in zip(word, syllables, strict=False):
            counts.setdefault(char, Counter())[plain(given[0])] += 1
    return {
        char: frozenset(each for each, count in found.items() if count >= _COMMON * found.total())
        for char, found in counts.items()
    }
