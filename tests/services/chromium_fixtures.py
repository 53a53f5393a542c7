"""Fixture of the browser's program."""

from pathlib import Path

import pytest

from tests.services.chromium import provision


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The browser's program; ``tests/page`` drives it."""
    return provision()
