"""The sample collection, indexed once for all tests that look at the product as a whole."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.product import SAMPLE, script


@dataclass(frozen=True)
class Indexed:
    """A data folder with the sample in it. ``report``: what scripts/index_documents said."""

    data: Path
    report: dict[str, Any]


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Indexed:
    """The sample on the embedded store with real embeddings. Not to be written to."""
    data = tmp_path_factory.mktemp("sample")
    return Indexed(data, script("index_documents", str(SAMPLE / "documents"), data=data))


@pytest.fixture(scope="session")
def copy_of_sample(sample: Indexed, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes data folders of one's own with the sample in them."""

    def make() -> Path:
        return shutil.copytree(sample.data, tmp_path_factory.mktemp("copy") / "data")

    return make
