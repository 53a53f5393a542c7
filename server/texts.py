"""What a text from outside may hold."""

import re

from server.errors import InvalidInput

# C0 and C1 controls except tab, line feed, carriage return and form feed; DEL; lone surrogates;
# and the two code points per plane end that Unicode reserves as non-characters in the BMP.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


def check_text(text: str, *, field: str, max_chars: int) -> str:
    """Return ``text`` unchanged, or raise InvalidInput naming ``field`` and the first bad character.

    ``max_chars`` counts code points.
    """
    if len(text) > max_chars:
        raise InvalidInput(
            f"{field} has {len(text):,} characters; at most {max_chars:,} are accepted.",
            field=field,
        )
    found = _FORBIDDEN.search(text)
    if found:
        raise InvalidInput(
            f"{field} holds U+{ord(found.group()):04X} at character {found.start()}, a control "
            "character or lone surrogate; remove it and send the text again.",
            field=field,
        )
    return text


def clean_text(text: str) -> str:
    """Replace what check_text refuses by a blank each, so that offsets stay; for files as found."""
    return _FORBIDDEN.sub(" ", text)
