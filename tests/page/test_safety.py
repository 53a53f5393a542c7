"""Hostile text is only ever text, nothing leaves the server's own host, and keys are asked for."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from tests.page.browser import Visit
from tests.product import Server, script, serving

Open = Callable[..., Visit]

ATTACKS = (
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "\"><svg onload='window.hacked = 1'>",
    "</p></li></main><h1>hacked</h1>",
    "javascript:window.hacked=1",
    "${window.hacked = 1}{{7*7}}",
    "\u202egnp.exe",
)


@pytest.fixture(scope="session")
def hostile(bare: Server) -> Server:
    """A collection whose every part is an attack."""
    attack = " ".join(ATTACKS)
    bare.fill(
        "hostile",
        a={
            "title": f"hostile {attack}"[:1000],
            "text": f"# hostile {attack}\n\nA hostile text [1] with {attack}",
            "source": f"hostile/{attack}",
            "metadata": {"owner": attack, "tags": [*ATTACKS]},
        },
    )
    return bare


def assert_unharmed(here: Visit) -> None:
    assert here.page.evaluate("window.hacked") is None
    assert here.page.locator("main script, main img, main svg, main h1, dialog svg").count() == 0
    assert here.page.locator("[onerror], [onload], a[href^=javascript]").count() == 0


def test_hostile_text_is_shown_as_text(visit: Open, hostile: Server) -> None:
    here = visit(hostile, "/?q=hostile&collection=hostile&ask=1")
    hit = here.page.locator(".hit")
    expect(hit.locator(".title")).to_contain_text(ATTACKS[0])
    expect(hit.locator(".text")).to_contain_text(ATTACKS[1])
    expect(hit.locator(".path")).to_contain_text(ATTACKS[2])
    hit.locator(".why summary").click()
    expect(hit.locator(".why")).to_contain_text(ATTACKS[3])
    expect(here.page.locator("#answer-text")).to_contain_text("hostile text")
    assert_unharmed(here)
    here.chips.first.hover()
    expect(here.page.locator("#card")).to_contain_text(ATTACKS[0])
    assert_unharmed(here)
    here.chips.first.click()
    expect(here.page.locator("#passage-text")).to_contain_text(ATTACKS[3])
    expect(here.page.locator("#passage-title")).to_contain_text(ATTACKS[0])
    assert_unharmed(here)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_query_is_shown_as_text(visit: Open, bare: Server, attack: str) -> None:
    bare.fill("empty")
    here = visit(bare, "/?collection=empty")
    here.search(attack)
    expect(here.status).to_have_text(f"没有找到与“{attack}”有关的内容。")
    expect(here.box).to_have_value(attack)
    assert_unharmed(here)


def test_hostile_addresses_do_no_harm(visit: Open, bare: Server) -> None:
    here = visit(bare)
    here.expect_failures = True
    hostile = f"/?q={ATTACKS[1]}&collection={ATTACKS[0]}&mode={ATTACKS[2]}&page=-3&ask=2"
    here.page.goto(bare.url + hostile)
    expect(here.page.locator("#error")).to_contain_text("搜索失败")
    assert_unharmed(here)


def test_the_policy_forbids_what_the_page_never_needs(visit: Open, bare: Server) -> None:
    here = visit(bare)
    response = here.page.goto(bare.url)
    assert response
    policy = response.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    html = response.text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html)
    assert "http://" not in html.replace("http://www.w3.org", "")


def test_a_needed_key_is_asked_for_and_used(visit: Open, tmp_path: Path) -> None:
    with serving(tmp_path, embedder="none") as server:
        server.fill("default", a="打印机在三楼。")
        key = script("keys", "create", "--name", "reader", "--role", "reader", data=tmp_path)
        here = visit(server, "/")
        here.expect_failures = True
        held: list[Route] = []
        here.page.route("**/v1/collections", lambda route: held.append(route))  # noqa: PLW0108 - it is marked by Playwright
        here.page.goto(f"{server.url}/?q=打印机&ask=1")
        dialog = here.page.locator("#key")
        expect(dialog).to_be_visible()
        # Without a key the page says so, and does not insist, however late a refusal comes.
        here.page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        with here.page.expect_response("**/v1/collections") as refused:
            held.pop().continue_()
        assert refused.value.status == 401
        here.page.unroute("**/v1/collections")
        expect(dialog).to_be_hidden()
        expect(here.page.locator("#error")).to_contain_text("需要有效的访问密钥")
        here.search("打印机")
        expect(dialog).to_be_visible()
        expect(here.page.locator("#key-wrong")).to_be_hidden()
        here.page.locator("#key-value").fill("ty_wrong")
        here.page.keyboard.press("Enter")
        expect(here.page.locator("#key-wrong")).to_be_visible()
        here.page.locator("#key-value").fill(key["token"])
        here.page.keyboard.press("Enter")
        expect(here.titles).to_have_count(1)
        expect(dialog).to_be_hidden()
        expect(here.page.locator("#collection")).to_have_value("default")
        here.page.locator("#ask").click()
        expect(here.page.locator("#answer-text")).to_contain_text("打印机在三楼")
        here.page.reload()
        expect(here.titles).to_have_count(1)
        assert key["token"] not in here.page.url
        assert here.page.evaluate("localStorage.getItem('key')") is None
