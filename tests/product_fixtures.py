"""The sample collection, indexed once for all tests that look at the product as a whole."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.product import SAMPLE, script


@dataclass(frozen=True)
class Indexed:
    """A data folder with the sample in it. ``report``: what scripts/index_documents said."""

    data: Path
    report: dict[str, Any]


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Indexed:
    """The sample on the embedded store with real embeddings. Not to be written to."""
    own = tmp_path_factory.getbasetemp()
    # What the processes of one run share lies beside the folders that each of them has.
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    data, report = shared / "sample", shared / "sample.json"
    with FileLock(shared / "sample.lock"):
        if not report.exists():
            documents = str(SAMPLE / "documents")
            said = script("index_documents", documents, data=data)
            report.write_text(json.dumps(said), "utf-8")
    return Indexed(data, json.loads(report.read_text("utf-8")))


@pytest.fixture(scope="session")
def copy_of_sample(sample: Indexed, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes data folders of one's own with the sample in them."""

    def make() -> Path:
        return shutil.copytree(sample.data, tmp_path_factory.mktemp("copy") / "data")

    return make
