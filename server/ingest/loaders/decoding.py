"""Bytes of a file to text: UTF-8, UTF-16 and GB18030 told apart."""

import codecs

from server.errors import InvalidInput
from server.texts import clean_text

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE = 20_000  # characters that are looked at to judge a guess
# Browsers read these names so, and pages rely on it.
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "iso8859-1": "cp1252", "ascii": "cp1252"}


def decode(data: bytes, declared: str = "") -> str:
    """The text, with line breaks as "\\n" and without controls.

    ``declared``: an encoding that the file itself names; where it doesn't fit, it is passed over.
    Raises InvalidInput where no encoding fits.
    """
    return clean_text(_decode(data, declared).replace("\r\n", "\n").replace("\r", "\n"))


def _decode(data: bytes, declared: str) -> str:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            text = _try(data[len(mark) :], encoding)
            if text is None:
                raise InvalidInput(f"The file is marked as {encoding} but isn't; save it as UTF-8.")
            return text
    for encoding in (_known(declared), "utf-8"):
        text = _try(data, encoding) if encoding else None
        if text is not None and "\x00" not in text:
            return text
    for encoding in ("utf-16-le", "utf-16-be"):
        text = _try(data, encoding) if b"\x00" in data else None
        if text is not None and _is_plain(text):
            return text
    text = _try(data, "gb18030")
    if text is not None and _is_chinese(text):
        return text
    raise InvalidInput(
        "The file is not text in UTF-8, UTF-16 or GB18030; convert it to UTF-8 and try again."
    )


def _known(declared: str) -> str:
    try:
        name = codecs.lookup(declared).name if declared else ""
    except LookupError:
        return ""
    return _WIDER.get(name, name)


def _try(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeError, LookupError):  # LookupError: a codec that is not for text
        return None


def _is_plain(text: str) -> bool:
    """Whether nearly all is ASCII or Chinese, which random pairs of bytes are not."""
    sample = text[:_SAMPLE]
    plain = sum(
        c in "\t\n\r"
        or " " <= c <= "~"
        or "\u4e00" <= c <= "\u9fff"
        or "\u3000" <= c <= "\u303f"
        or "\uff00" <= c <= "\uffef"
        for c in sample
    )
    return plain >= 0.9 * len(sample)


def _is_chinese(text: str) -> bool:
    """Whether the characters beyond ASCII are common ones. GB18030 gives a meaning to most bytes, and
    other encodings read as it give mostly rare ones."""
    beyond = "".join(c for c in text[:_SAMPLE] if c > "~")
    common = len(beyond.encode("gb2312", "ignore").decode("gb2312"))
    return "\x00" not in text and common >= 0.8 * len(beyond)
