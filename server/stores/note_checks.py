"""What every store refuses of a note, so that all refuse alike."""

import json
import re
from collections.abc import Mapping
from typing import Any

from server.errors import InvalidInput
from server.stores.notes import MAX_KEY_CHARS, MAX_NOTE_BYTES

_KEY = re.compile(rf"[A-Za-z0-9_.:-]{{1,{MAX_KEY_CHARS}}}")


def check_key(key: str) -> str:
    """Return a note's key, or raise InvalidInput."""
    if not _KEY.fullmatch(key):
        raise InvalidInput(
            f"A note's key has 1 to {MAX_KEY_CHARS} letters, digits or '-_.:'; got {key[:80]!r}.",
            field="key",
        )
    return key


def encoded(value: Mapping[str, Any]) -> str:
    """A note's value as JSON, or InvalidInput for one that is none or is too big."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError) as error:  # a lone surrogate among them
        raise InvalidInput(f"A note's value must be plain JSON: {error}.", field="value") from error
    if size > MAX_NOTE_BYTES:
        raise InvalidInput(
            f"A note's value has {size:,} bytes as JSON; at most {MAX_NOTE_BYTES:,} are kept.",
            field="value",
        )
    return text
