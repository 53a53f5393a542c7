"""Lines of an administrator's file: stripped, numbered, without notes, normalised; each kind's rules."""

from collections.abc import Iterable, Iterator

from server.errors import InvalidInput


def entries(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Number from 1 and text of each line that is neither blank nor a note (``# …``)."""
    for number, line in enumerate(lines, 1):
        entry = line.strip("\ufeff \t\r\n")
        if entry and not entry.startswith("#"):
            yield number, entry


def refusal(number: int, entry: str, rule: str, *, field: str) -> InvalidInput:
    """Names the line, shows its beginning and says the rule that it breaks."""
    return InvalidInput(f"line {number}, {entry[:60]!r}: {rule}.", field=field)
