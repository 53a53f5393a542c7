"""A browser, and servers with what each kind of test needs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.page.browser import Visit, launched
from tests.product import Server, serving
from tests.services.gguf_models import SCRIPTED, scripted_model
from tests.services.ollama import OllamaServer

LAYERS = 20  # so many that an answer of 4096 tokens takes seconds, and a prompt under one


@pytest.fixture(scope="package")  # its event loop must be gone when tests of other rooms run theirs
def browser(chromium: Path) -> Iterator[Browser]:
    expect.set_options(timeout=20_000)
    with launched(chromium) as started:
        yield started


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens pages, each a fresh browser profile. After the test: no page complained in its console,
    asked another host or was kept from something by its content security policy."""
    with ExitStack() as closing:
        visits: list[Visit] = []

        def open_page(server: Server, path: str = "/", **profile: object) -> Visit:
            made = Visit(browser, server.url, **profile)
            closing.callback(made.close)
            visits.append(made)
            made.page.goto(server.url + path)
            return made

        yield open_page
        for made in visits:
            made.check()


@pytest.fixture(scope="session")
def product(copy_of_sample: Callable[[], Path], ollama_url: str) -> Iterator[Server]:
    """The sample, real embeddings, and a model that says one sentence with two citations."""
    generator = {"generator": f"ollama:{SCRIPTED}", "ollama_host": ollama_url}
    # Few passages: the tiny models take a token for each byte of the prompt.
    with serving(copy_of_sample(), answer_passages="3", **generator) as server:
        yield server


@pytest.fixture
def endless(tmp_path: Path, ollama_server: OllamaServer) -> Iterator[Server]:
    """Two short documents and a model that never ends, on an Ollama that may be killed."""
    name = "tanyuan-test-page"
    scripted_model(tmp_path, name, url=ollama_server.url, endless=True, layers=LAYERS)
    generator = {"generator": f"ollama:{name}", "ollama_host": ollama_server.url}
    with serving(tmp_path, embedder="none", generator_answer_tokens="4096", **generator) as server:
        server.fill(
            "default", travel="差旅报销标准：住宿每晚 600 元。", leave="差旅期间的年假照常计算。"
        )
        yield server


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Neither documents nor models, for tests with documents of their own."""
    with serving(tmp_path_factory.mktemp("bare"), embedder="none") as server:
        yield server
