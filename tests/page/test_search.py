"""Searching: what is shown, what the address holds, and that the newest search wins."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from tests.page.browser import Visit
from tests.product import Server, serving

TRAVEL = "差旅费用报销标准（2025 版）"
Open = Callable[..., Visit]


@pytest.mark.parametrize(
    ("query", "title", "mark"),
    [("差旅报销标准", "差旅", "差旅"), ("VPN connection setup", "VPN", "vpn")],
    ids=["Chinese", "English"],
)
def test_hits_carry_highlights_and_on_demand_both_ranks(
    visit: Open, product: Server, query: str, title: str, mark: str
) -> None:
    here = visit(product)
    here.search(query)
    first = here.page.locator(".hit").first
    expect(first.locator(".title")).to_contain_text(title)
    expect(first.locator("mark").first).to_contain_text(re.compile(mark, re.IGNORECASE))
    ranks = first.locator(".why table")
    expect(ranks).to_be_hidden()
    first.locator(".why summary").click()
    for ranker in ("关键词 BM25", "语义向量", "融合"):
        row = ranks.get_by_role("row", name=ranker)
        expect(row).to_have_text(re.compile(r"#\d+\s*-?\d+\.\d{4}"))


def test_a_question_in_english_finds_chinese_documents_by_meaning(
    visit: Open, product: Server
) -> None:
    here = visit(product, "/?q=meal allowance on business trips&mode=vector")
    expect(here.page.locator(".hit", has_text=TRAVEL)).to_be_visible()


def test_the_mode_is_in_the_address_and_changes_the_results(visit: Open, product: Server) -> None:
    here = visit(product, "/?q=出差住酒店能花多少钱")
    expect(here.status).to_contain_text("按相关程度排列")
    here.page.get_by_role("radio", name="关键词").check()
    expect(here.status).to_contain_text("找到")
    assert here.address()["mode"] == "bm25"
    here.page.locator(".why summary").first.click()
    assert here.page.locator(".why").first.get_by_text("语义向量").count() == 0
    by_words = here.titles.all_inner_texts()
    here.page.get_by_role("radio", name="语义").check()
    expect(here.status).to_contain_text("按相关程度排列")
    assert here.address()["mode"] == "vector"
    assert here.titles.all_inner_texts() != by_words


def test_back_forward_and_a_shared_link_give_the_same_view(visit: Open, product: Server) -> None:
    here = visit(product)
    here.search("年假")
    expect(here.titles.first).to_contain_text("年")
    leave = here.titles.all_inner_texts()
    here.search("VPN")
    expect(here.titles.first).to_contain_text("VPN")
    shared = here.page.url
    vpn = here.titles.all_inner_texts()
    here.page.go_back()
    expect(here.box).to_have_value("年假")
    expect(here.titles).to_have_text(leave)
    here.page.go_back()
    expect(here.page.locator("#welcome")).to_be_visible()
    expect(here.titles).to_have_count(0)
    here.page.go_forward()
    here.page.go_forward()
    expect(here.titles).to_have_text(vpn)
    expect(here.page).to_have_title("VPN – 探源")
    other = visit(product, shared.removeprefix(product.url))
    expect(other.titles).to_have_text(vpn)
    expect(other.box).to_have_value("VPN")


def test_pages_follow_each_other_without_repeats(visit: Open, product: Server) -> None:
    here = visit(product, "/?q=公司")
    expect(here.titles).to_have_count(10)
    first = here.titles.all_inner_texts()
    expect(here.page.locator("#previous")).to_be_disabled()
    here.page.locator("#next").click()
    expect(here.page.locator("#page")).to_have_text("第 2 页")
    assert here.address()["page"] == "2"
    assert not set(first) & set(here.titles.all_inner_texts())
    here.page.locator("#previous").click()
    expect(here.titles).to_have_text(first)
    assert "page" not in here.address()
    here.page.goto(f"{product.url}/?q=公司&page=900")
    expect(here.status).to_have_text("没有更多结果了。")


def test_a_passage_opens_in_its_document_with_the_highlight_in_view(
    visit: Open, bare: Server
) -> None:
    # The astral characters before the passage hold JavaScript's offsets apart from the server's.
    filler = "\n\n".join(f"🚀 第 {number} 条：无关的规定。" for number in range(300))
    text = f"{filler}\n\n咖啡机的清洗周期是七天。\n\n{filler}"
    bare.fill("long", long={"title": "长文档", "text": text})
    here = visit(bare, "/?q=咖啡机清洗周期&collection=long")
    here.titles.first.click()
    mark = here.page.locator("#passage mark").first
    expect(mark).to_have_text(re.compile("咖啡"))
    assert here.is_in_view(mark)
    text = here.page.locator("#passage-text").inner_text()
    assert "第 299 条" in text
    here.page.keyboard.press("Escape")
    expect(here.page.locator("#passage")).to_be_hidden()
    assert here.has_focus(here.titles.first)
    assert here.address()["q"] == "咖啡机清洗周期"


def test_nothing_found_repeats_the_query(visit: Open, bare: Server) -> None:
    bare.fill("nothing", only="打印机在三楼。")
    here = visit(bare, "/?q=潜水艇&collection=nothing")
    expect(here.status).to_have_text("没有找到与“潜水艇”有关的内容。")
    expect(here.page.locator("#hits .hint")).to_contain_text("换个说法")
    expect(here.page.locator("#error")).to_be_hidden()


def test_loading_is_told_and_a_late_response_never_shows(visit: Open, product: Server) -> None:
    here = visit(product)
    held: list[Route] = []

    def hold(route: Route) -> None:
        if route.request.post_data_json["query"] == "年假":
            held.append(route)
        else:
            route.continue_()

    here.page.route("**/v1/search", hold)
    here.search("年假")
    expect(here.status).to_have_text("正在搜索…")
    here.search("VPN")
    expect(here.titles.first).to_contain_text("VPN")
    newest = here.titles.all_inner_texts()
    # The answer to the first search comes at last, after the page gave it up.
    [late] = held
    late.fulfill(json=product.call("/v1/search", {"query": "年假"}))
    here.page.wait_for_timeout(300)
    expect(here.titles).to_have_text(newest)
    expect(here.box).to_have_value("VPN")


def test_what_is_missing_is_one_quiet_line(visit: Open, product: Server) -> None:
    here = visit(product, "/?q=年假")
    line = here.page.locator("#degraded")
    expect(line.locator("summary")).to_have_text("部分功能未启用：重排序")
    expect(line.locator("li")).to_be_hidden()
    line.locator("summary").click()
    expect(line.locator("li")).to_contain_text("TANYUAN_RERANKER")
    expect(here.page.locator("#error")).to_be_hidden()


def test_a_stopped_server_is_a_failure_and_not_no_results(visit: Open, tmp_path: Path) -> None:
    with serving(tmp_path, embedder="none") as server:
        server.fill("default", a="打印机在三楼。")
        here = visit(server, "/?q=打印机")
        expect(here.titles).to_have_count(1)
        here.expect_failures = True
        server.kill()
        here.search("三楼")
        expect(here.page.locator("#error")).to_have_text(
            "搜索失败：无法连接服务器，请确认它正在运行。"
        )
        expect(here.status).to_have_text("")
        expect(here.titles).to_have_count(0)
        expect(here.box).to_have_value("三楼")


def test_an_unknown_collection_is_named_in_the_pages_language(visit: Open, bare: Server) -> None:
    here = visit(bare)
    here.expect_failures = True
    here.page.goto(f"{bare.url}/?q=x&collection=none")
    expect(here.page.locator("#error")).to_contain_text("没有这个知识库")


def test_the_language_switches_and_stays(visit: Open, product: Server) -> None:
    here = visit(product, "/?q=年假")
    expect(here.page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(here.status).to_contain_text("毫秒")
    here.page.get_by_role("button", name="切换到英文").click()
    expect(here.page.locator("html")).to_have_attribute("lang", "en")
    expect(here.status).to_contain_text("Best first")
    expect(here.page).to_have_title("年假 – Tanyuan")
    here.page.reload()
    expect(here.status).to_contain_text("Best first")
    english = visit(product, locale="en-GB")
    expect(english.page.get_by_role("button", name="Search", exact=True)).to_be_visible()


def test_collections_can_be_chosen(visit: Open, bare: Server) -> None:
    bare.fill("first", a="打印机在一楼。")
    bare.fill("second", a="打印机在二楼。")
    here = visit(bare, "/?q=打印机&collection=first")
    expect(here.page.locator(".hit .text")).to_have_text("打印机在一楼。")
    here.page.locator("#collection").select_option("second")
    expect(here.page.locator(".hit .text")).to_have_text("打印机在二楼。")
    assert here.address()["collection"] == "second"


def test_what_runs_here_is_told(visit: Open, product: Server) -> None:
    here = visit(product)
    here.page.locator("#about summary").click()
    expect(here.page.locator("#about dl")).to_contain_text("e5")
    expect(here.page.locator("#about dl")).to_contain_text("ollama:")
