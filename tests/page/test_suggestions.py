"""Suggestions under the search box, and what was meant, in a real browser."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from tests.page.browser import DESKTOP, PHONE, Visit
from tests.page.test_keyboard import compose
from tests.page.test_looks import assert_fits, barriers
from tests.product import Server

Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def handbook(bare: Server) -> Server:
    """Documents whose phrases are known."""
    bare.fill(
        "hints",
        travel={"title": "差旅费用报销标准", "text": "员工差旅报销须在十五日内提交。"},
        policy={"title": "Travel Policy", "text": "Travel expenses need a receipt."},
    )
    for _ in range(200):
        found = bare.call("/v1/suggest?q=chailv&collection=hints")
        if found["suggestions"]:
            return bare
    raise AssertionError(found)


def start(visit: Open, server: Server, **profile: object) -> Visit:
    here = visit(server, "/?collection=hints", **profile)
    expect(here.page.locator("#collection")).to_have_value("hints")
    return here


def options(page: Page) -> list[str]:
    expect(page.locator("#suggestions li").first).to_be_visible()
    return page.locator("#suggestions li span").all_inner_texts()


def test_arrows_choose_and_enter_searches(visit: Open, handbook: Server) -> None:
    here = start(visit, handbook)
    here.box.press_sequentially("chailv")
    found = options(here.page)
    assert found[0] == "差旅费用报销标准"
    expect(here.box).to_have_attribute("aria-expanded", "true")
    assert here.box.get_attribute("aria-activedescendant") is None
    here.box.press("ArrowDown")
    active = here.page.locator("#suggestions [aria-selected=true]")
    expect(active).to_contain_text("差旅费用报销标准")
    assert here.box.get_attribute("aria-activedescendant") == active.get_attribute("id")
    assert here.has_focus(here.box)
    expect(here.box).to_have_value("chailv")
    here.box.press("ArrowUp")
    expect(active).to_have_count(0)
    here.box.press("ArrowUp")
    expect(active).to_contain_text(found[-1])
    here.box.press("ArrowDown")
    here.box.press("ArrowDown")
    here.box.press("Enter")
    expect(here.titles.first).to_have_text("差旅费用报销标准")
    assert here.address()["q"] == "差旅费用报销标准"
    expect(here.page.locator("#suggestions")).to_be_hidden()


def test_enter_alone_searches_for_what_was_typed(visit: Open, handbook: Server) -> None:
    here = start(visit, handbook)
    here.box.press_sequentially("差旅")
    options(here.page)
    here.box.press("Enter")
    expect(here.titles.first).to_be_visible()
    assert here.address()["q"] == "差旅"
    expect(here.page.locator("#suggestions")).to_be_hidden()


def test_escape_closes_the_list_and_keeps_the_query(visit: Open, handbook: Server) -> None:
    here = start(visit, handbook)
    here.box.press_sequentially("trav")
    options(here.page)
    here.box.press("Escape")
    expect(here.page.locator("#suggestions")).to_be_hidden()
    expect(here.box).to_have_value("trav")
    expect(here.box).to_have_attribute("aria-expanded", "false")


def test_a_click_searches(visit: Open, handbook: Server) -> None:
    here = start(visit, handbook)
    here.box.press_sequentially("trav")
    options(here.page)
    here.page.locator("#suggestions li", has_text="Travel Policy").click()
    expect(here.titles.first).to_have_text("Travel Policy")
    assert here.address()["q"] == "Travel Policy"


def test_an_input_method_asks_when_it_is_done(visit: Open, handbook: Server) -> None:
    here = start(visit, handbook)
    asked: list[str] = []
    here.page.on("request", lambda request: asked.append(request.url))
    here.box.focus()
    keyboard = here.context.new_cdp_session(here.page)
    for text in ("c", "ch", "chai", "chailv"):
        compose(keyboard, text)
    here.page.wait_for_timeout(400)
    assert [url for url in asked if "/suggest" in url] == []
    keyboard.send("Input.insertText", {"text": "差旅"})
    assert options(here.page)[0] == "差旅费用报销标准"


def test_a_late_answer_neither_replaces_a_newer_one_nor_opens_a_closed_list(
    visit: Open, handbook: Server
) -> None:
    here = start(visit, handbook)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    here.page.route("**/v1/suggest?q=trav&*", hold)
    here.box.press_sequentially("trav")
    here.page.wait_for_timeout(400)
    here.box.fill("差旅")
    assert options(here.page)[0] == "差旅费用报销标准"
    here.box.fill("trav")
    here.page.wait_for_timeout(400)
    here.box.press("Escape")
    assert len(held) == 2
    for route in held:
        route.abort()
    here.page.wait_for_timeout(200)
    expect(here.page.locator("#suggestions")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_what_was_meant_is_a_link_and_nothing_bars_the_way(
    visit: Open, handbook: Server, scheme: str, viewport: dict[str, int]
) -> None:
    here = start(visit, handbook, color_scheme=scheme, viewport=viewport, locale="en-GB")
    here.box.press_sequentially("trav")
    options(here.page)
    here.box.press("ArrowDown")
    assert barriers(here) == []
    assert_fits(here)
    here.box.press("Escape")
    here.search("差率报销")
    expect(here.page.locator("#meant")).to_have_text("Did you mean: 差旅报销")
    assert barriers(here) == []
    assert_fits(here)
    here.page.locator("#meant a").click()
    expect(here.page.locator("#meant")).to_be_hidden()
    assert here.address()["q"] == "差旅报销"
    expect(here.box).to_have_value("差旅报销")
