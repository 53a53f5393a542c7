"""What the language model wrote, kept in a file, so that a run that was cut off does not ask again."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from server.errors import StoreUnavailable
from server.models.contract import Message

_PRIVATE = 0o600  # questions tell what is in documents that not everybody may see


class Answers:
    """By what was asked of whom. For one process at a time; a line that was cut off is passed over."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = dict(_lines(file))

    def keep(self, keys: Iterable[str]) -> None:
        """Forget all others: those of passages that are gone or changed, say. Raises StoreUnavailable."""
        wanted = set(keys)
        self._known = {key: text for key, text in self._known.items() if key in wanted}
        part = self._file.with_suffix(".part")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part.unlink(missing_ok=True)
            part.touch(mode=_PRIVATE)
            part.write_text("".join(_line(*each) for each in self._known.items()), encoding="utf-8")
            part.replace(self._file)
        except OSError as error:
            raise StoreUnavailable(f"{self._file} can't be written: {error}.") from error

    def get(self, key: str) -> str | None:
        return self._known.get(key)

    def put(self, key: str, text: str) -> None:
        """Raises StoreUnavailable."""
        self._known[key] = text
        try:
            self._file.touch(mode=_PRIVATE)
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(_line(key, text))
        except OSError as error:
            raise StoreUnavailable(f"{self._file} can't be written: {error}.") from error


def key_of(generator: str, messages: Iterable[Message]) -> str:
    asked = json.dumps([generator, *([each.role, each.content] for each in messages)])
    return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _line(key: str, text: str) -> str:
    return json.dumps({"key": key, "text": text}) + "\n"


def _lines(file: Path) -> Iterable[tuple[str, str]]:
    if not file.is_file():
        return
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            yield str(record["key"]), str(record["text"])
        except (ValueError, KeyError, TypeError):
            continue
