"""Answers: streamed from a real Ollama, cited, stopped, broken off, and where there is no model."""

import json
import re
import time
import urllib.request
from collections.abc import Callable

from playwright.sync_api import expect

from tests.page.browser import Visit
from tests.product import Server
from tests.services.gguf_models import CHINESE
from tests.services.ollama import OllamaServer

Open = Callable[..., Visit]
QUESTION = "差旅报销标准"


def test_an_answer_streams_with_citations_that_open_their_passage(
    visit: Open, product: Server
) -> None:
    here = visit(product)
    here.box.fill(QUESTION)
    here.page.get_by_role("button", name="提问").click()
    expect(here.chips).to_have_text(["1", "2"])
    expect(here.page.locator("#copy")).to_be_visible()
    assert here.page.locator("#answer-text").inner_text() == re.sub(r"[\[\]]", "", CHINESE)
    assert here.address() == {"q": QUESTION, "ask": "1"}
    # Only what is cited stands below, by its number.
    expect(here.page.locator("#answer-sources li")).to_have_count(2)
    source = here.page.locator("#answer-sources .title").first.inner_text()
    here.chips.first.click()
    expect(here.page.locator("#passage-title")).to_have_text(source)
    mark = here.page.locator("#passage mark").first
    expect(mark).to_be_visible()
    assert here.is_in_view(mark)
    here.page.keyboard.press("Escape")
    assert here.has_focus(here.chips.first)


def test_a_chip_shows_its_source_on_hover_and_on_focus(visit: Open, product: Server) -> None:
    here = visit(product, f"/?q={QUESTION}&ask=1")
    card = here.page.locator("#card")
    expect(here.chips).to_have_count(2)
    here.chips.first.hover()
    expect(card).to_be_visible()
    expect(card.locator("strong")).to_contain_text("差旅")
    assert len(card.locator("p").inner_text()) > 50
    here.page.mouse.move(0, 0)
    expect(card).to_be_hidden()
    here.chips.nth(1).focus()
    expect(card).to_be_visible()
    box = card.bounding_box()
    assert box
    assert 0 <= box["x"] <= box["x"] + box["width"] <= 1200
    here.page.keyboard.press("Escape")
    expect(card).to_be_hidden()
    assert here.chips.first.get_attribute("aria-label").startswith("来源 1：")  # type: ignore[union-attr]


def test_alt_enter_asks_and_paging_back_does_not_ask_again(visit: Open, product: Server) -> None:
    here = visit(product)
    asked: list[str] = []
    here.page.on(
        "request", lambda sent: asked.append(sent.url) if "answer" in sent.url.split("/") else None
    )
    here.box.fill(QUESTION)
    here.box.press("Alt+Enter")
    expect(here.chips).to_have_count(2)
    here.page.locator("#next").click()
    expect(here.page.locator("#page")).to_have_text("第 2 页")
    expect(here.page.locator("#answer")).to_be_hidden()
    here.page.go_back()
    expect(here.chips).to_have_count(2)
    expect(here.page.locator("#answer")).to_be_visible()
    assert len(asked) == 1


def test_the_answer_can_be_copied(visit: Open, product: Server) -> None:
    here = visit(
        product, f"/?q={QUESTION}&ask=1", permissions=["clipboard-read", "clipboard-write"]
    )
    here.page.locator("#copy").click()
    expect(here.page.locator("#copy")).to_have_text("已复制")
    assert here.page.evaluate("navigator.clipboard.readText()") == CHINESE


def test_stop_and_escape_end_the_answer_and_the_model(
    visit: Open, endless: Server, ollama_server: OllamaServer
) -> None:
    here = visit(endless, f"/?q={QUESTION}&ask=1")
    state = here.page.locator("#answer-state")
    for stop in (
        lambda: here.page.locator("#stop").click(),
        lambda: here.page.keyboard.press("Escape"),
    ):
        expect(here.chips.nth(1)).to_be_visible()
        expect(state).to_have_text("正在回答…")
        stop()
        expect(state).to_have_text("已停止")
        expect(here.page.locator("#stop")).to_be_hidden()
        kept = here.page.locator("#answer-text").inner_text()
        assert kept
        assert is_idle(ollama_server)
        assert here.page.locator("#answer-text").inner_text() == kept
        here.page.locator("#ask").click()  # a stopped answer may be asked for again
    here.page.locator("#stop").click()


def is_idle(server: OllamaServer, *, seconds: float = 15.0) -> bool:
    """Whether the model comes to rest: it takes no processor time for half a second."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        before = server.cpu_seconds()
        time.sleep(0.5)
        if server.cpu_seconds() - before < 0.05:
            return True
    return False


def test_a_focused_chip_stays_while_the_answer_grows(visit: Open, endless: Server) -> None:
    here = visit(endless, f"/?q={QUESTION}&ask=1")
    expect(here.chips.nth(1)).to_be_visible()
    here.chips.first.focus()
    length = len(here.page.locator("#answer-text").inner_text())
    here.page.wait_for_function(
        "longer => document.getElementById('answer-text').innerText.length > longer",
        arg=length + 40,
    )
    assert here.has_focus(here.chips.first)
    expect(here.page.locator("#card")).to_be_visible()
    here.page.keyboard.press("Escape")


def test_ollama_killed_in_mid_answer_is_told_and_search_goes_on(
    visit: Open, endless: Server, ollama_server: OllamaServer
) -> None:
    here = visit(endless, f"/?q={QUESTION}&ask=1")
    expect(here.chips.nth(1)).to_be_visible()
    ollama_server.kill()
    error = here.page.locator("#answer-error")
    expect(error).to_contain_text("回答中断：回答模型中途停止了，搜索不受影响")
    expect(here.page.locator("#stop")).to_be_hidden()
    expect(here.chips.first).to_be_visible()  # what came is kept
    here.page.get_by_role("button", name="切换到英文").click()
    expect(error).to_contain_text("The answer broke off: The answering model stopped")
    here.search("年假")
    expect(
        here.page.locator(".hit .text").filter(has_text="差旅期间的年假照常计算。")
    ).to_be_visible()
    # Asked again with the generator away, the sources speak for themselves.
    here.page.locator("#ask").click()
    expect(here.page.locator("#answer-state")).to_contain_text("Quoted from the documents")
    expect(here.page.locator("#answer-reason")).not_to_be_empty()
    expect(here.chips.first).to_be_visible()
    ollama_server.start()
    here.search(QUESTION)
    here.page.locator("#ask").click()
    expect(here.page.locator("#answer-state")).to_have_text("Answering…")
    here.page.locator("#stop").click()


def test_ollama_killed_in_mid_answer_is_a_typed_event(
    endless: Server, ollama_server: OllamaServer
) -> None:
    request = urllib.request.Request(
        f"{endless.url}/v1/answer",
        data=json.dumps({"question": QUESTION, "stream": True}).encode(),
        headers={"Content-Type": "application/json"},
    )
    events: list[tuple[str, dict[str, object]]] = []
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        request, timeout=60
    ) as stream:
        name = ""
        for line in stream:
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                events.append((name, json.loads(value)))
                if len(events) == 20:
                    ollama_server.kill()
    assert events[0][0] == "sources"
    assert {name for name, _ in events[1:-1]} == {"token"}
    assert events[-1][0] == "error"
    problem = events[-1][1]
    assert problem["code"] == "generator_interrupted"
    said = "".join(str(data["text"]) for name, data in events if name == "token")
    assert problem["answer"]["answer"] == said  # type: ignore[index]
    assert problem["answer"]["status"] == "partial"  # type: ignore[index]
    assert endless.call("/v1/search", {"query": "年假", "mode": "bm25"})["hits"]


def test_without_a_model_an_extract_is_marked_as_such(visit: Open, bare: Server) -> None:
    bare.fill("extract", a="打印机在三楼。碎纸机在四楼。")
    here = visit(bare, "/?q=打印机在哪里&collection=extract&ask=1")
    expect(here.page.locator("#answer-state")).to_have_text("原文摘录（未使用语言模型）")
    expect(here.page.locator("#answer-text")).to_contain_text("打印机在三楼。")
    expect(here.chips.first).to_have_text("1")
    expect(here.page.locator("#answer-error")).to_be_hidden()


def test_a_server_gone_in_mid_answer_is_told(visit: Open, endless: Server) -> None:
    here = visit(endless, f"/?q={QUESTION}&ask=1")
    expect(here.chips.nth(1)).to_be_visible()
    here.expect_failures = True
    endless.kill()
    expect(here.page.locator("#answer-error")).to_have_text(
        "回答中断：无法连接服务器，请确认它正在运行。"
    )
