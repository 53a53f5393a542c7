"""Screenshots for the README, made by hand: ``.venv/bin/python -m tests.page.screenshots``.

A scripted model stands in for a real one; everything else is the product with its sample.
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.page.browser import DESKTOP, PHONE, Visit, launched
from tests.product import SAMPLE, Server, script, serving
from tests.services.chromium import provision
from tests.services.gguf_models import scripted_model
from tests.services.ollama import running

FOLDER = SAMPLE / "screenshots"
MODEL = "tanyuan-screenshots"
ANSWER = (
    "出差住宿按城市等级报销：北京、上海、广州、深圳每晚上限 600 元，省会城市、苏州等每晚 450 元，"
    "其他城市每晚 350 元；伙食补贴每天 120 元，不需要发票[1]。返程后 15 个工作日内在费用系统提交[1][2]。"
)
PICTURES: dict[str, tuple[str, dict[str, object]]] = {
    "answer": ("/?q=差旅报销标准&ask=1", {"viewport": DESKTOP}),
    "phone-dark": ("/?q=差旅报销标准&ask=1", {"viewport": PHONE, "color_scheme": "dark"}),
    "english": ("/?q=how much may a hotel cost", {"viewport": DESKTOP, "locale": "en-GB"}),
}


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as ollama:
        scripted_model(Path(folder), MODEL, ANSWER, url=ollama.url)
        data = Path(folder) / "data"
        script("index_documents", str(SAMPLE / "documents"), data=data)
        generator = {"generator": f"ollama:{MODEL}", "ollama_host": ollama.url}
        with (
            serving(data, answer_passages="3", **generator) as server,
            launched(provision()) as browser,
        ):
            for name, (path, profile) in PICTURES.items():
                take(browser, server, FOLDER / f"{name}.png", path, profile)
    return 0


def take(
    browser: Browser, server: Server, file: Path, path: str, profile: dict[str, object]
) -> None:
    here = Visit(browser, server.url, **profile)
    here.page.goto(server.url + path)
    expect(here.titles.first).to_be_visible(timeout=60_000)
    if "ask=1" in path:
        expect(here.page.locator("#copy")).to_be_visible(timeout=60_000)
    else:
        here.page.locator(".why summary").first.click()
    here.box.evaluate("box => box.blur()")
    here.page.screenshot(path=file)
    here.check()
    here.close()


if __name__ == "__main__":
    sys.exit(main())
