"""The keyboard: short cuts, movement, and input methods whose Enter is not a command."""

from collections.abc import Callable

import pytest
from playwright.sync_api import CDPSession, Request, expect

from tests.page.browser import Visit
from tests.product import Server

Open = Callable[..., Visit]

# Where the focus is: id, name, class, and the parent's class.
FOCUSED = (
    "(({ id, name, className, parentNode }) => [id, name, className, parentNode.className])"
    "(document.activeElement)"
)


def test_a_slash_goes_to_the_box_unless_a_field_has_the_focus(visit: Open, product: Server) -> None:
    here = visit(product, "/?q=年假")
    expect(here.titles.first).to_be_visible()
    here.titles.first.focus()
    here.page.keyboard.press("/")
    assert here.has_focus(here.box)
    expect(here.box).to_have_value("年假")
    here.page.keyboard.type("a/b")
    expect(here.box).to_have_value("a/b")


def test_arrows_move_from_the_box_through_the_results_and_back(
    visit: Open, product: Server
) -> None:
    here = visit(product, "/?q=公司")
    expect(here.titles).to_have_count(10)
    here.box.focus()
    for at in range(10):
        here.page.keyboard.press("ArrowDown")
        assert here.has_focus(here.titles.nth(at))
        assert here.is_in_view(here.titles.nth(at))
    here.page.keyboard.press("ArrowDown")
    assert here.has_focus(here.titles.last)
    for at in reversed(range(9)):
        here.page.keyboard.press("ArrowUp")
        assert here.is_in_view(here.titles.nth(at))
    here.page.keyboard.press("ArrowUp")
    assert here.has_focus(here.box)
    here.page.keyboard.press("ArrowDown")
    here.page.keyboard.press("Enter")
    expect(here.page.locator("#passage")).to_be_visible()


def test_escape_keeps_the_query(visit: Open, product: Server) -> None:
    here = visit(product, "/?q=年假")
    expect(here.titles.first).to_be_visible()
    here.box.press("Escape")
    expect(here.box).to_have_value("年假")


@pytest.mark.parametrize("key", ["Control+Enter", "Meta+Enter"])
def test_control_enter_searches_in_a_new_tab(visit: Open, product: Server, key: str) -> None:
    here = visit(product, "/?q=年假")
    expect(here.titles.first).to_be_visible()
    here.box.fill("病假")
    with here.page.context.expect_page() as opened:
        here.box.press(key)
    expect(opened.value.locator("#q")).to_have_value("病假")
    assert here.page.url.endswith("?q=%E5%B9%B4%E5%81%87")
    opened.value.close()


def test_tab_reaches_everything_that_a_mouse_does(visit: Open, product: Server) -> None:
    here = visit(product, "/?q=年假")
    expect(here.titles.first).to_be_visible()
    here.box.focus()
    reached = {"q"}
    for key in [*["Shift+Tab"] * 3, *["Tab"] * 14]:
        here.page.keyboard.press(key)
        reached |= {*here.page.evaluate(FOCUSED)}
    assert {"collection", "language", "ask", "mode", "title", "why"} <= reached


@pytest.fixture
def searches(visit: Open, product: Server) -> tuple[Visit, list[str], CDPSession]:
    """A page with the cursor in the box, the searches it sends, and the way to its input method."""
    here = visit(product)
    sent: list[str] = []

    def note(request: Request) -> None:
        if request.url.endswith("/v1/search"):
            sent.append(request.post_data_json["query"])

    here.page.on("request", note)
    here.box.focus()
    return here, sent, here.context.new_cdp_session(here.page)


def press_enter(keyboard: CDPSession, *, code: int = 13) -> None:
    key = {"key": "Enter", "code": "Enter", "text": "\r", "windowsVirtualKeyCode": code}
    keyboard.send("Input.dispatchKeyEvent", {"type": "keyDown", **key})
    keyboard.send("Input.dispatchKeyEvent", {"type": "keyUp", **key})


def compose(keyboard: CDPSession, text: str) -> None:
    place = {"selectionStart": len(text), "selectionEnd": len(text)}
    keyboard.send("Input.imeSetComposition", {"text": text, **place})


def test_enter_that_ends_a_composition_sends_nothing(
    searches: tuple[Visit, list[str], CDPSession],
) -> None:
    here, sent, keyboard = searches
    for text in ("n", "ni", "nian", "nianjia"):
        compose(keyboard, text)
    press_enter(keyboard)
    press_enter(keyboard, code=229)  # as input methods on Windows send it
    here.page.wait_for_timeout(300)
    assert sent == []
    assert here.address() == {}
    keyboard.send("Input.insertText", {"text": "年假"})
    expect(here.box).to_have_value("年假")
    here.page.wait_for_timeout(50)
    press_enter(keyboard)
    expect(here.titles.first).to_be_visible()
    assert sent == ["年假"]


def test_enter_right_after_a_composition_sends_nothing_where_it_comes_late(
    searches: tuple[Visit, list[str], CDPSession],
) -> None:
    """Safari ends the composition first and then reports the Enter that ended it, with code 229."""
    here, sent, keyboard = searches
    compose(keyboard, "nianjia")
    keyboard.send("Input.insertText", {"text": "年假"})
    press_enter(keyboard, code=229)
    here.page.wait_for_timeout(300)
    assert sent == []
    press_enter(keyboard)
    expect(here.titles.first).to_be_visible()
    assert sent == ["年假"]
