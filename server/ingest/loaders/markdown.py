"""Markdown files, with YAML or TOML front matter."""

import datetime
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from server.documents import MAX_TITLE_CHARS, Document, check_metadata
from server.errors import InvalidInput
from server.ingest.blocks import read_blocks
from server.ingest.loaders.decoding import decode

_MAX_FRONT_MATTER = 64 * 1024
_FENCES = {"---": "yaml", "+++": "toml"}
_OWN = {"title", "acl", "source", "metadata", "text"}


def load_markdown(data: bytes, *, document_id: str, title: str, acl: Sequence[str]) -> Document:
    """The document of a Markdown file.

    Front matter may give ``title``, ``source``, ``acl`` (a list or one group) and ``metadata``; of
    its other entries, those that metadata can hold are kept as metadata. Without a title there, the
    first heading is the title where it is a level-1 heading that opens the text, else ``title``.
    Raises InvalidInput, also for front matter that can't be read, since it may restrict access.
    """
    front, text = _split(decode(data))
    metadata = {key: _plain(value) for key, value in front.items() if key not in _OWN}
    metadata = {key: value for key, value in metadata.items() if _fits(key, value)}
    own = front.get("metadata") or {}
    if not isinstance(own, Mapping):
        raise InvalidInput("The front matter's metadata must be a mapping.", field="metadata")
    groups = front.get("acl", acl)
    if isinstance(groups, str):
        groups = [groups]
    if not isinstance(groups, Sequence) or not all(isinstance(group, str) for group in groups):
        raise InvalidInput(
            "The front matter's acl must be a group or a list of groups.", field="acl"
        )
    return Document.create(
        id=document_id,
        text=text,
        title=str(front.get("title") or _first_heading(text) or title)[:MAX_TITLE_CHARS],
        source=str(front.get("source") or document_id),
        acl=groups,
        metadata=metadata | {str(key): _plain(value) for key, value in own.items()},
    )


def _split(text: str) -> tuple[dict[str, Any], str]:
    """Front matter and the text after it."""
    fence, _, rest = text.partition("\n")
    kind = _FENCES.get(fence.rstrip())
    if kind is None:
        return {}, text
    head = f"\n{rest[:_MAX_FRONT_MATTER]}\n"
    end = head.find(f"\n{fence.rstrip()}\n")
    if end < 0:
        return {}, text
    try:
        front = yaml.safe_load(head[:end]) if kind == "yaml" else tomllib.loads(head[:end])
    except (yaml.YAMLError, tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"The front matter is not {kind.upper()}; mend it or take it out: {error}",
            field="metadata",
        ) from error
    if not isinstance(front, dict):
        return {}, text  # a rule above some text
    return {str(key): value for key, value in front.items()}, rest[end + len(fence.rstrip()) + 1 :]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _fits(key: str, value: Any) -> bool:
    try:
        return bool(check_metadata({key: value}))
    except InvalidInput:
        return False


def _first_heading(text: str) -> str:
    opening = text[:4096]
    blocks = read_blocks(opening)
    first = blocks[0] if blocks else None
    if first is None or first.kind != "heading":
        return ""
    underlined = opening[first.start : first.end].endswith("=")
    return first.headings[-1] if underlined or opening.startswith("# ", first.start) else ""
