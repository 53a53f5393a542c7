"""Numbers as Chinese writes them, in figures (15日, 第30条, 2025年) or in characters (十五日, 第三十条,
二〇二五年): a query's other way to write each, to be looked for beside it. Pure.

Only numbers with a measure word, with 第 before them or in per cent count: a figure alone is as likely a
code, and a character alone a part of a word (一般, 千万, 三角).
"""

import re
from collections.abc import Iterator

from server.analysis.synonyms import Expansion

MAX_NUMBERS = 8  # of a query
MAX_WRITINGS = 6  # of a number, or of several side by side
_MOST = 10**12

_DIGITS = "零一二三四五六七八九"
_SIGNS = "零〇一二两三四五六七八九十百千万亿"
_MEASURES = (
    "[年月日号天周旬岁时秒元块米吨克斤名位人次条款项章节编篇页份件台辆倍成折级类层楼期批套间户届轮]"
    "|个(?:月|工作日|小时|星期|季度|自然日)?|小时|分钟|工作日|公里|公斤|平方米|季度"
)
_FIGURES = re.compile(
    r"(?<![0-9a-z.,:/_-])(第 ?|)(\d{1,3}(?:,\d{3})+|\d{1,12})"
    rf" ?(?:([万亿]?)({_MEASURES}|(?<=[万亿]))|(%))"
)
# Not the end of a word (统一年度) or of a day's name (周三天气).
_CHARACTERS = re.compile(rf"(?<![{_SIGNS}统同唯单任逐专周期])(第?)([{_SIGNS}]+)({_MEASURES})")
_PER_CENT = re.compile(rf"百分之([{_SIGNS}]+)")
_SCALES = {"万": 10_000, "亿": 100_000_000}
_NOT_PAIRS = frozenset("月日号")  # 二月, never 两月
# What begins like a number and is a word: 一个, 一次, 一些人; 一 counts with what is measured exactly.
_EXACT = re.compile(r"[年月日天周岁元]|个.+|小时|分钟|工作日|公里|公斤|平方米")


def expand(text: str) -> tuple[Expansion, ...]:
    """The numbers of a normalised text, each with its other writings; none within another."""
    found: list[Expansion] = []
    for start, phrase, written in sorted(_found(text))[:MAX_NUMBERS]:
        end = start + len(phrase)
        added = written
        if written and phrase.endswith("天"):  # as people say; rules write 日
            added += tuple(f"{each[:-1]}日" for each in (phrase, *written))
        before = found[-1] if found else None
        if not added or (before and start < before.end):
            continue
        if before and start == before.end:  # a date, or a chapter's article: one phrase
            both = tuple(first + second for first in before.added for second in added)
            found[-1] = Expansion(before.phrase + phrase, before.start, end, both[:MAX_WRITINGS])
        else:
            found.append(Expansion(phrase, start, end, added[:MAX_WRITINGS]))
    return tuple(found)


def in_characters(number: int) -> str:
    """A number as it is read: 一百零五, 十五, 两 nowhere. Raises ValueError but for 0 to 10¹² - 1."""
    if not 0 <= number < _MOST:
        raise ValueError(f"{number} has no writing here.")
    read = _read(number)
    return read[1:] if read.startswith("一十") else read


def in_figures(characters: str) -> int | None:
    """The number that is read so, 0 to 10¹² - 1, or None for what is not: the other way round of
    ``in_characters``, with 两 for 二 and 〇 for 零."""
    plain = characters.replace("两", "二").replace("〇", "零")
    whole = section = digit = 0  # ``section``: below the 万 or 亿 that may follow
    for sign in plain:
        if sign in _DIGITS:
            digit = _DIGITS.index(sign)
        elif sign in "十百千":
            section += (digit or 1) * 10 ** ("十百千".index(sign) + 1)
            digit = 0
        elif sign == "万":
            whole += (section + digit) * _SCALES[sign]
            section = digit = 0
        else:
            whole = (whole + section + digit) * _SCALES[sign]
            section = digit = 0
    number = whole + section + digit
    return number if number < _MOST and in_characters(number) == plain else None


def _found(text: str) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Where, what stands there, and its other writings."""
    for match in _FIGURES.finditer(text):
        before, figures, scale, measure, per_cent = match.groups()
        number = int(figures.replace(",", ""))
        if number >= _MOST:
            continue
        written = (
            (f"百分之{in_characters(number)}",)
            if per_cent
            else tuple(_characters(before.rstrip(), number, scale, measure))
        )
        yield match.start(), match[0], written
    for match in _PER_CENT.finditer(text):
        share = in_figures(match[1])
        yield match.start(), match[0], () if share is None else (f"{share}%",)
    for match in _CHARACTERS.finditer(text):
        before, signs, measure = match.groups()
        yield match.start(), match[0], tuple(_figures(before, signs, measure))


def _characters(before: str, number: int, scale: str, measure: str) -> Iterator[str]:
    if measure == "年" and 1000 <= number < 3000 and not before + scale:
        year = "".join(_DIGITS[int(digit)] for digit in str(number))
        yield f"{year.replace('零', '〇')}年"
        if "零" in year:
            yield f"{year}年"
        return
    yield f"{before}{in_characters(number)}{scale}{measure}"
    if number == 2 and not before and measure not in _NOT_PAIRS:
        yield f"两{scale}{measure}"
    if scale and measure:
        yield f"{before}{number * _SCALES[scale]}{measure}"
    elif number and number % 10_000 == 0:
        yield f"{before}{number // 10_000}万{measure}"


def _figures(before: str, signs: str, measure: str) -> Iterator[str]:
    if len(signs) == 4 and measure == "年" and all(sign in _DIGITS + "〇" for sign in signs):
        yield "".join(str(_DIGITS.index(sign)) for sign in signs.replace("〇", "零")) + "年"
        return
    number = in_figures(signs)
    if number is None or (signs == "一" and not before and not _EXACT.fullmatch(measure)):
        return
    yield f"{before}{number}{measure}"
    if number and number % 10_000 == 0:
        yield f"{before}{number // 10_000}万{measure}"


def _read(number: int) -> str:
    for size, sign in ((10**8, "亿"), (10**4, "万"), (1000, "千"), (100, "百"), (10, "十")):
        if number >= size:
            head, rest = divmod(number, size)
            gap = "零" if 0 < rest < size // 10 else ""
            return _read(head) + sign + (gap + _read(rest) if rest else "")
    return _DIGITS[number]
