"""A visit of the page in a real Chromium."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Browser, Locator, Page, sync_playwright

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP = {"width": 1200, "height": 800}
PHONE = {"width": 390, "height": 844}


@contextmanager
def launched(program: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*FLAGS])
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """One tab with a profile of its own, and what it did that it shouldn't.

    ``expect_failures``: set where requests are meant to fail, which browsers report as errors.
    """

    def __init__(self, browser: Browser, url: str, **profile: object) -> None:
        settings: dict[str, object] = {"locale": "zh-CN", "viewport": DESKTOP, **profile}
        self.context = browser.new_context(**settings)  # type: ignore[arg-type]
        self.context.set_default_timeout(20_000)
        self.page: Page = self.context.new_page()
        self.expect_failures = False
        self._origin = url
        self._complaints: list[str] = []
        self._foreign: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self._complaints.append(str(error)))
        self.page.on("request", lambda request: self._asked(request.url))

    def _heard(self, message: object) -> None:
        kind, text = message.type, message.text  # type: ignore[attr-defined]
        failed_request = text.startswith("Failed to load resource")
        if kind in {"error", "warning"} and not (failed_request and self.expect_failures):
            self._complaints.append(f"{kind}: {text}")

    def _asked(self, url: str) -> None:
        if not url.startswith(f"{self._origin}/"):
            self._foreign.append(url)

    def check(self) -> None:
        assert self._complaints == []
        assert self._foreign == []

    def close(self) -> None:
        self.context.close()

    # What a visitor sees and does ------------------------------------------------------------------

    @property
    def box(self) -> Locator:
        return self.page.locator("#q")

    @property
    def titles(self) -> Locator:
        return self.page.locator("#hits .title")

    @property
    def status(self) -> Locator:
        return self.page.locator("#status")

    @property
    def chips(self) -> Locator:
        return self.page.locator("#answer-text .chip")

    def search(self, query: str) -> None:
        self.box.fill(query)
        self.box.press("Enter")

    def address(self) -> dict[str, str]:
        """The parameters of the page's URL."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.page.url).query).items()}

    def has_focus(self, locator: Locator) -> bool:
        return bool(locator.evaluate("element => element === document.activeElement"))

    def is_in_view(self, locator: Locator) -> bool:
        """Whether an element's middle is what one sees at its place."""
        return bool(
            locator.evaluate(
                """element => {
                  const { left, top, width, height } = element.getBoundingClientRect();
                  const there = document.elementFromPoint(left + width / 2, top + height / 2);
                  return element.contains(there);
                }"""
            )
        )
