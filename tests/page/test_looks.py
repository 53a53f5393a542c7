"""Phone width, both colour schemes, and what assistive technology is told (axe-core's rules)."""

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.page.browser import DESKTOP, PHONE, Visit
from tests.product import Server

Open = Callable[..., Visit]
SCHEMES = ("light", "dark")
SERIOUS = {"serious", "critical"}
WORD = "W" * 400


def assert_fits(here: Visit) -> None:
    """No sideways scrolling."""
    width = here.page.evaluate("document.documentElement.scrollWidth")
    assert width <= here.page.viewport_size["width"]  # type: ignore[index]


def test_a_phone_never_scrolls_sideways(visit: Open, product: Server) -> None:
    here = visit(product, viewport=PHONE, has_touch=True, is_mobile=True)
    expect(here.page.locator("#welcome")).to_be_visible()
    assert_fits(here)
    here.box.fill("差旅报销标准")
    here.page.locator("#ask").tap()
    expect(here.chips).to_have_count(2)
    expect(here.titles.first).to_be_visible()
    here.page.locator(".why summary").first.tap()
    here.page.locator("#stages summary").tap()
    here.page.locator("#about summary").tap()
    expect(here.page.locator("#about dt").first).to_be_visible()
    assert_fits(here)
    here.titles.first.tap()
    expect(here.page.locator("#passage mark").first).to_be_visible()
    assert_fits(here)


def test_unbroken_words_wrap(visit: Open, bare: Server) -> None:
    labels = {"owner": WORD, "k" * 60: "x"}
    document = {
        "title": WORD,
        "text": f"# {WORD}\n\nprinter {WORD}",
        "source": WORD,
        "metadata": labels,
    }
    bare.fill("words", a=document)
    here = visit(bare, "/?q=printer&collection=words&ask=1", viewport=PHONE)
    expect(here.titles).to_have_count(1)
    here.page.locator(".why summary").first.click()
    expect(here.page.locator("#answer-sources .title")).to_be_visible()
    assert_fits(here)
    here.chips.first.hover()
    expect(here.page.locator("#card")).to_be_visible()
    assert_fits(here)
    here.titles.first.click()
    expect(here.page.locator("#passage mark").first).to_be_visible()
    assert here.page.locator("#passage-text").evaluate("e => e.scrollWidth <= e.clientWidth")
    here.page.keyboard.press("Escape")
    here.search(f"Z{WORD}")
    expect(here.status).to_contain_text("没有找到")
    assert_fits(here)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_no_serious_barrier(
    visit: Open, product: Server, scheme: str, viewport: dict[str, int]
) -> None:
    here = visit(product, color_scheme=scheme, viewport=viewport, locale="en-GB")
    assert barriers(here) == []
    here.page.goto(f"{product.url}/?q=差旅报销标准&ask=1")
    expect(here.chips).to_have_count(2)
    expect(here.titles.first).to_be_visible()
    for summary in (".why", "#degraded", "#stages", "#answer-context", "#about"):
        here.page.locator(f"{summary} summary").first.click()
    expect(here.page.locator("#about dt").first).to_be_visible()
    here.chips.first.focus()
    assert barriers(here) == []
    here.chips.first.click()
    expect(here.page.locator("#passage mark").first).to_be_visible()
    assert barriers(here) == []
    here.page.keyboard.press("Escape")
    here.expect_failures = True
    here.page.goto(f"{product.url}/?q=x&collection=none")
    expect(here.page.locator("#error")).to_be_visible()
    here.page.evaluate("document.getElementById('key').showModal()")
    assert barriers(here) == []


def barriers(here: Visit) -> list[str]:
    """axe's serious findings: rule and place."""
    here.page.wait_for_function("document.querySelectorAll('[aria-busy=true]').length === 0")
    here.page.evaluate(Axe().axe_script)
    found = here.page.evaluate("axe.run({ resultTypes: ['violations'] })")
    return [
        f"{rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        if rule["impact"] in SERIOUS
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_highlighted_text_stands_out_and_stays_legible(
    visit: Open, product: Server, scheme: str
) -> None:
    here = visit(product, "/?q=年假", color_scheme=scheme)
    mark = here.page.locator(".text mark").first
    ink, paper = (
        mark.evaluate(f"mark => getComputedStyle(mark).{name}")
        for name in ("color", "backgroundColor")
    )
    around = here.page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
    assert contrast(ink, paper) >= 4.5
    assert paper != around


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast of two CSS colours of the form rgb(r, g, b)."""
    lights = sorted((luminance(one), luminance(other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    channels = [int(part) / 255 for part in colour.removeprefix("rgb(").rstrip(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
