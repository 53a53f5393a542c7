"""A browser for the tests of the page, and fonts that it can show Chinese with.

In this order: the program that ``TANYUAN_TEST_CHROMIUM`` names; a Chromium or Chrome on PATH; Debian's
package. Run as a module, it gets what is missing: ``python -m tests.services.chromium``.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.services.system import MissingTool, install, need_command

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FONTS = "fonts-noto-cjk"


def provision() -> Path:
    """The browser's program, installed where it is missing.

    Raises MissingTool naming the command that gets it.
    """
    configured = os.environ.get("TANYUAN_TEST_CHROMIUM")
    if configured:
        if not os.access(configured, os.X_OK):
            raise MissingTool(f"TANYUAN_TEST_CHROMIUM names {configured}, which can't be run.")
        return Path(configured)
    found = next((Path(path) for path in map(shutil.which, NAMES) if path), None)
    browser = found or need_command("chromium", packages=("chromium",))
    if not shows_chinese():
        install([FONTS], wanted="a font with Chinese characters")
    return browser


def shows_chinese() -> bool:
    """Whether a font on this system has Chinese; True where fontconfig can't tell (macOS)."""
    if shutil.which("fc-list") is None:
        return True
    listed = subprocess.run(
        ["fc-list", ":lang=zh-cn", "family"], capture_output=True, text=True, check=False
    )
    return bool(listed.stdout.strip())


if __name__ == "__main__":
    sys.stdout.write(f"{provision()}\n")
