"""Variants: sets to measure on and profiles to compare there, as files name them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from server.errors import InvalidInput
from server.evaluation.dataset import Dataset
from server.retrieval.profile import Profile

DEFAULT = "default"  # the variant that the others are compared with


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedSet:
    """A data set and the collection that its corpus is in."""

    name: str
    collection: str
    dataset: Dataset

    def first(self, limit: int | None) -> "JudgedSet":
        """With the first ``limit`` queries only; None: all."""
        return replace(self, dataset=self.dataset.first(limit))


class _Set(BaseModel):
    model_config = ConfigDict(extra="forbid")

    data: Path
    collection: str | None = None
    queries: Path | None = None
    qrels: Path | None = None


_SETS = TypeAdapter(dict[str, _Set])


def folder_set(folder: Path) -> JudgedSet:
    """A folder whose corpus is in the collection of its name."""
    name = folder.resolve().name
    return JudgedSet(name=name, collection=name, dataset=Dataset.load(folder))


def read_sets(path: Path) -> list[JudgedSet]:
    """Sets of a JSON file: name → ``data`` (a folder) and, where they differ from the folder's own,
    ``collection``, ``queries`` and ``qrels``; paths start at the file's folder. Raises InvalidInput."""
    try:
        named = _SETS.validate_python(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{path}: {place}: {first['msg']}.") from None
    return [_read_set(name, given, path.parent) for name, given in named.items()]


def read_variants(path: Path) -> dict[str, Profile]:
    """Profiles of a JSON file: name → the values that differ from the defaults. The defaults themselves
    come first, as DEFAULT. Raises InvalidInput."""
    variants = {DEFAULT: Profile()}
    for name, values in read_json(path).items():
        if name == DEFAULT:
            raise InvalidInput(f"{path}: {DEFAULT} is the name of the defaults; choose another.")
        try:
            variants[name] = profile_of(values)
        except InvalidInput as error:
            raise InvalidInput(f"{path}: {name}: {error.message}") from None
    return variants


def profile_of(values: object) -> Profile:
    """The default profile with these values in the place of its own. Raises InvalidInput."""
    if not isinstance(values, Mapping):
        raise InvalidInput("a profile is a JSON object.")
    return Profile.from_dict(values)


def read_json(path: Path) -> dict[str, Any]:
    """Raises InvalidInput for what is not a JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InvalidInput(f"{path} can't be read: {error.strerror}.") from error
    except ValueError as error:
        raise InvalidInput(f"{path} is no JSON: {error}.") from None
    if not isinstance(found, dict):
        raise InvalidInput(f"{path}: expected a JSON object.")
    return found


def _read_set(name: str, given: _Set, base: Path) -> JudgedSet:
    folder = base / given.data
    dataset = Dataset.load(
        folder,
        queries=base / given.queries if given.queries else None,
        qrels=base / given.qrels if given.qrels else None,
    )
    collection = given.collection or folder.resolve().name
    return JudgedSet(name=name, collection=collection, dataset=dataset)
