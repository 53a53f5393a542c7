"""The generator against a real Ollama with tiny models, and against servers that misbehave."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import ollama
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.errors import (
    ConfigurationError,
    GeneratorInterrupted,
    GeneratorModelMissing,
    GeneratorTimeout,
    GeneratorUnavailable,
    InvalidInput,
)
from server.models.contract import Generated, Generator, Message
from server.models.ollama import ChatStream, OllamaGenerator, choose_model
from tests.services.gguf_models import (
    CHINESE,
    ENDLESS,
    ENGLISH,
    NOISE,
    SCRIPTED,
    SCRIPTED_ENGLISH,
    scripted_model,
)
from tests.services.ollama import OllamaServer, free_port

CONTEXT = 8192
QUESTION = (Message("system", "只根据资料回答。"), Message("user", "差旅报销标准是多少？"))


def generator(model: str, host: str, *, timeout: float = 20.0) -> OllamaGenerator:
    return OllamaGenerator(
        model, host=host, context_tokens=CONTEXT, keep_alive="5m", timeout=timeout
    )


def ask(made: Generator, *, max_tokens: int = 200) -> tuple[list[str], Generated]:
    *pieces, end = made.stream(QUESTION, max_tokens=max_tokens)
    assert isinstance(end, Generated)
    assert all(isinstance(piece, str) for piece in pieces)
    return [str(piece) for piece in pieces], end


def wait_until(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


class TestAnswers:
    @pytest.mark.parametrize(
        ("model", "sentence"), [(SCRIPTED, CHINESE), (SCRIPTED_ENGLISH, ENGLISH)]
    )
    def test_pieces_make_the_sentence(self, ollama_url: str, model: str, sentence: str) -> None:
        pieces, end = ask(generator(model, ollama_url))
        assert "".join(pieces) == sentence
        assert len(pieces) >= 8
        assert end.reason == "stop"
        assert end.prompt_tokens is not None
        assert end.completion_tokens is not None
        assert end.completion_tokens >= len(pieces)

    def test_no_character_is_broken_though_tokens_end_inside(self, ollama_url: str) -> None:
        for model in (SCRIPTED, NOISE):
            pieces, _ = ask(generator(model, ollama_url))
            for piece in pieces:
                assert piece.encode().decode() == piece
                assert model == NOISE or "\ufffd" not in piece

    def test_an_answer_is_cut_at_max_tokens(self, ollama_url: str) -> None:
        pieces, end = ask(generator(SCRIPTED, ollama_url), max_tokens=6)
        assert end == Generated(
            reason="length", prompt_tokens=end.prompt_tokens, completion_tokens=6
        )
        assert 1 <= len(pieces) <= 6
        assert CHINESE.startswith("".join(pieces))

    def test_two_streams_at_once(self, ollama_url: str) -> None:
        made = generator(ENDLESS, ollama_url)
        both = [made.stream(QUESTION, max_tokens=60) for _ in range(2)]
        texts = ["", ""]
        for _ in range(10):  # in turns, so both are being written at the same time
            for number, stream in enumerate(both):
                texts[number] += str(next(stream))
        assert texts[0] == texts[1]
        for stream in both:
            stream.close()

    def test_the_model_is_loaded_once(self, ollama_server: OllamaServer) -> None:
        made = generator(SCRIPTED, ollama_server.url)
        ask(made)
        runners = ollama_server.runners()
        assert len(runners) == 1
        for max_tokens in (5, 50, 500):
            made.count_tokens("差旅")
            ask(made, max_tokens=max_tokens)
        assert ollama_server.runners() == runners, "a model that is loaded anew has a new runner"

    def test_no_proxy_of_the_environment_is_used(
        self, ollama_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
        pieces, _ = ask(generator(SCRIPTED, ollama_url))
        assert "".join(pieces) == CHINESE


class TestCancellation:
    """The endless model writes for many seconds, unless it is stopped."""

    @staticmethod
    def is_idle(server: OllamaServer) -> bool:
        before = server.cpu_seconds()
        time.sleep(0.3)
        return server.cpu_seconds() - before < 0.02

    def test_closing_stops_ollama(self, ollama_server: OllamaServer) -> None:
        stream = generator(ENDLESS, ollama_server.url).stream(QUESTION, max_tokens=4000)
        assert len(list(islice(stream, 5))) == 5
        assert not self.is_idle(ollama_server)
        stream.close()
        wait_until(lambda: self.is_idle(ollama_server))
        assert list(stream) == []

    def test_closing_from_another_thread_wakes_the_reader(
        self, ollama_server: OllamaServer
    ) -> None:
        """While a model loads or reads the prompt nothing comes, and the reader may leave then."""
        stream = generator(ENDLESS, ollama_server.url).stream(
            [Message("user", "住宿" * 1000)], max_tokens=500
        )
        read: list[object] = []
        reader = threading.Thread(target=lambda: read.extend(stream))
        reader.start()
        time.sleep(0.1)  # not loaded yet
        began = time.monotonic()
        stream.close()
        reader.join(5)
        assert not reader.is_alive()
        assert time.monotonic() - began < 1
        assert read == []
        wait_until(lambda: self.is_idle(ollama_server))

    def test_a_dropped_stream_stops_too(self, ollama_server: OllamaServer) -> None:
        def first_piece(stream: ChatStream) -> object:
            return next(stream)

        made = generator(ENDLESS, ollama_server.url)
        assert first_piece(made.stream(QUESTION, max_tokens=4000))
        wait_until(lambda: self.is_idle(ollama_server))

    def test_close_is_idempotent_and_ends_the_stream(self, ollama_url: str) -> None:
        stream = generator(SCRIPTED, ollama_url).stream(QUESTION, max_tokens=20)
        stream.close()
        stream.close()
        assert list(stream) == []

    def test_an_error_thrown_in_closes_it(self, ollama_url: str) -> None:
        stream = generator(ENDLESS, ollama_url).stream(QUESTION, max_tokens=500)
        next(stream)
        with pytest.raises(KeyError):
            stream.throw(KeyError("the reader failed"))
        assert list(stream) == []


class TestFailures:
    def test_killed_in_mid_answer_and_back_again(self, ollama_server: OllamaServer) -> None:
        made = generator(ENDLESS, ollama_server.url)
        stream = made.stream(QUESTION, max_tokens=4000)
        next(stream)
        ollama_server.kill()
        with pytest.raises(GeneratorInterrupted):
            list(stream)
        with pytest.raises(GeneratorUnavailable, match="ollama serve"):
            made.check()
        with pytest.raises(GeneratorUnavailable, match="ollama serve"):
            list(made.stream(QUESTION, max_tokens=10))
        ollama_server.start()
        assert ENDLESS in made.check()
        assert ask(made, max_tokens=10)[1].reason == "length"

    def test_the_runner_killed_in_mid_answer(self, ollama_server: OllamaServer) -> None:
        made = generator(ENDLESS, ollama_server.url)
        stream = made.stream(QUESTION, max_tokens=4000)
        next(stream)
        ollama_server.kill_runners()
        with pytest.raises(GeneratorInterrupted):
            list(stream)
        assert ask(made, max_tokens=10)[1].reason == "length"  # Ollama starts another

    def test_a_missing_model_names_the_command(self, ollama_url: str) -> None:
        made = generator("tanyuan-test-absent", ollama_url)
        with pytest.raises(GeneratorModelMissing, match="ollama pull tanyuan-test-absent"):
            made.check()
        with pytest.raises(GeneratorModelMissing, match="ollama pull tanyuan-test-absent"):
            list(made.stream(QUESTION, max_tokens=10))

    def test_a_model_removed_after_use(self, ollama_url: str, tmp_path: Path) -> None:
        name = scripted_model(tmp_path, "tanyuan-test-removed", ENGLISH, url=ollama_url)
        made = generator(name, ollama_url)
        assert "".join(ask(made)[0]) == ENGLISH
        with ollama.Client(ollama_url, trust_env=False) as client:
            client.delete(name)
        with pytest.raises(GeneratorModelMissing, match="ollama pull"):
            ask(made)

    def test_nobody_listens(self) -> None:
        made = generator(SCRIPTED, f"http://127.0.0.1:{free_port()}")
        for call in (made.check, lambda: list(made.stream(QUESTION, max_tokens=10))):
            with pytest.raises(GeneratorUnavailable, match=r"can't be reached.*refused"):
                call()

    def test_a_server_that_never_answers(self, silent: str) -> None:
        made = generator(SCRIPTED, silent, timeout=0.5)
        for call in (
            made.check,
            lambda: choose_model(silent),
            lambda: list(made.stream(QUESTION, max_tokens=10)),
        ):
            began = time.monotonic()
            with pytest.raises(GeneratorTimeout):
                call()
            assert time.monotonic() - began < 2

    def test_a_check_ends_in_time_though_bytes_keep_coming(self) -> None:
        def trickle(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.end_headers()
            for _ in range(100):
                handler.wfile.write(b" ")
                time.sleep(0.05)

        with served(trickle) as url:
            began = time.monotonic()
            with pytest.raises(GeneratorTimeout):
                generator(SCRIPTED, url).check()
            assert time.monotonic() - began < 2

    def test_silence_in_mid_answer(self) -> None:
        def stall(handler: BaseHTTPRequestHandler) -> None:
            reply(handler, 200, json.dumps(PART).encode() + b"\n")
            time.sleep(1)

        with served(stall) as url:
            stream = generator(SCRIPTED, url, timeout=0.3).stream(QUESTION, max_tokens=10)
            assert next(stream) == "甲"
            with pytest.raises(GeneratorTimeout):
                next(stream)

    @pytest.mark.parametrize(
        "line",
        [
            b"{not json",
            b'"a string"',
            b"[1]",
            b"\xff\xfe",
            b'{"message": 1}',
            b'{"error": "llama runner process has terminated: signal: killed"}',
            b"",
        ],
    )
    def test_a_malformed_line_in_mid_answer(self, line: bytes) -> None:
        def garble(handler: BaseHTTPRequestHandler) -> None:
            reply(handler, 200, json.dumps(PART).encode() + b"\n" + line + b"\n")

        with served(garble) as url:
            stream = generator(SCRIPTED, url).stream(QUESTION, max_tokens=10)
            assert next(stream) == "甲"
            with pytest.raises(GeneratorInterrupted):
                next(stream)

    def test_an_answer_that_ends_without_saying_so(self) -> None:
        with served(lambda handler: reply(handler, 200, json.dumps(PART).encode() + b"\n")) as url:
            stream = generator(SCRIPTED, url).stream(QUESTION, max_tokens=10)
            assert next(stream) == "甲"
            with pytest.raises(GeneratorInterrupted, match="complete"):
                next(stream)

    @pytest.mark.parametrize(
        ("status", "body", "words"),
        [
            (500, b'{"error":"model requires more system memory (9.9 GiB)"}', "more system memory"),
            (503, b'{"error":"server busy, please try again"}', "server busy"),
            (404, b"<html>nginx</html>", "404"),
            (302, b"", "302"),
            (200, b"<html>a page</html>\n", "doesn't speak Ollama's protocol"),
        ],
    )
    def test_other_answers_are_named(self, status: int, body: bytes, words: str) -> None:
        with served(lambda handler: reply(handler, status, body)) as url:
            made = generator(SCRIPTED, url)
            for call in (made.check, lambda: list(made.stream(QUESTION, max_tokens=10))):
                with pytest.raises(GeneratorUnavailable, match=words) as caught:
                    call()
                assert not isinstance(caught.value, GeneratorModelMissing | GeneratorInterrupted)

    @pytest.mark.parametrize("host", ["http://127.0.0.1:notaport", "http://[::1", "http://h:99999"])
    def test_a_host_that_is_no_address(self, host: str) -> None:
        with pytest.raises(ConfigurationError, match="OLLAMA_HOST"):
            generator(SCRIPTED, host)


class TestBudget:
    @settings(
        max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
        | st.text("the and in on er 报销标准<|im_end|>start\n 123", max_size=200)
    )
    def test_the_bound_holds_for_the_model_s_own_count(
        self, counting: OllamaGenerator, text: str
    ) -> None:
        bound = counting.count_tokens(text) + counting.message_overhead
        with closing(counting.stream([Message("user", text)], max_tokens=1)) as stream:
            *_, end = stream
        assert isinstance(end, Generated)
        assert end.prompt_tokens is not None
        assert end.prompt_tokens <= bound

    def test_the_bound_is_close(self, counting: OllamaGenerator) -> None:
        text = "Lodging is paid against receipts. " * 20
        *_, end = counting.stream([Message("user", text)], max_tokens=1)
        assert isinstance(end, Generated)
        assert end.prompt_tokens is not None
        assert counting.count_tokens(text) < 1.2 * end.prompt_tokens

    def test_without_ollama_a_token_a_byte(self) -> None:
        made = generator(NOISE, f"http://127.0.0.1:{free_port()}")
        assert made.count_tokens("报销abc") == 9

    def test_a_prompt_that_ollama_would_cut_is_refused(self, ollama_url: str) -> None:
        made = generator(SCRIPTED, ollama_url)
        with pytest.raises(InvalidInput, match="TANYUAN_GENERATOR_CONTEXT"):
            made.stream([Message("user", "报" * CONTEXT)], max_tokens=100)
        with pytest.raises(InvalidInput, match="TANYUAN_GENERATOR_CONTEXT"):
            made.stream(QUESTION, max_tokens=CONTEXT)

    def test_the_context_that_the_model_was_made_for_counts(
        self, ollama_url: str, tmp_path: Path
    ) -> None:
        name = scripted_model(tmp_path, "tanyuan-test-short", url=ollama_url, trained_context=256)
        made = generator(name, ollama_url)
        assert "".join(ask(made, max_tokens=100)[0]) == CHINESE
        with pytest.raises(InvalidInput, match="made for 256 at most"):
            made.stream(QUESTION, max_tokens=200)
        with ollama.Client(ollama_url, trust_env=False) as client:
            client.delete(name)

    def test_a_lone_surrogate_is_refused(self, ollama_url: str) -> None:
        for host in (ollama_url, f"http://127.0.0.1:{free_port()}"):
            with pytest.raises(InvalidInput, match="surrogate"):
                generator(SCRIPTED, host).stream([Message("user", "a\ud800")], max_tokens=10)

    def test_text_can_not_end_its_message(self, counting: OllamaGenerator) -> None:
        """``<|im_end|>`` is one token where it is a marker; as text it is several."""
        counts = []
        for text in ("<|im_end|>" * 10, "x"):
            *_, end = counting.stream([Message("user", text)], max_tokens=1)
            assert isinstance(end, Generated)
            counts.append(end.prompt_tokens or 0)
        assert counts[0] - counts[1] > 50


class TestCheckAndChoice:
    def test_check_names_version_and_model(self, ollama_url: str) -> None:
        line = generator(SCRIPTED, ollama_url).check()
        assert line.startswith("Ollama ")
        assert SCRIPTED in line
        assert ollama_url in line

    def test_a_real_server_s_model_is_chosen(self, ollama_url: str) -> None:
        with ollama.Client(ollama_url, trust_env=False) as client:
            installed = {model.model for model in client.list().models}
        assert choose_model(ollama_url) in installed

    @pytest.mark.parametrize(
        ("installed", "chosen"),
        [
            (["llama3:8b 8.0B", "qwen2.5:7b 7.6B", "qwen3:14b 14.8B"], "qwen2.5:7b"),
            (["llama3:8b 8.0B", "qwen3:4b 4.0B", "qwen3:32b 32.8B"], "qwen3:4b"),
            (["gemma3:4b 4.3B", "llama3:8b 8.0B", "llama3:70b 70.6B"], "llama3:8b"),
            (["smol:latest 135M", "odd:latest ?", "llama3:70b 70.6B"], "smol:latest"),
            (["b:latest 7B", "a:latest 7B"], "a:latest"),
            (
                ["bge-m3:latest 567M bert", "qwen3-embedding:8b 8B", "tiny:latest 1.1B"],
                "tiny:latest",
            ),
        ],
    )
    def test_the_rule_of_choice(self, installed: list[str], chosen: str) -> None:
        with served(lambda handler: reply(handler, 200, listing(installed))) as url:
            assert choose_model(url) == chosen

    @pytest.mark.parametrize("installed", [[], ["bge-m3:latest 567M bert"]])
    def test_no_model_that_can_chat(self, installed: list[str]) -> None:
        with served(lambda handler: reply(handler, 200, listing(installed))) as url:
            assert choose_model(url) is None

    def test_nobody_to_choose_from(self) -> None:
        with pytest.raises(GeneratorUnavailable, match="ollama serve"):
            choose_model(f"127.0.0.1:{free_port()}")


@pytest.fixture
def counting(ollama_url: str) -> OllamaGenerator:
    """The model whose vocabulary holds nothing but what its merges make."""
    return generator(NOISE, ollama_url)


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


PART = {"model": "m", "message": {"role": "assistant", "content": "甲"}, "done": False}


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    handler.send_response(status)
    if status == 302:
        handler.send_header("Location", "http://127.0.0.1:9/elsewhere")
    handler.end_headers()
    handler.wfile.write(body)
    handler.wfile.flush()


def listing(installed: list[str]) -> bytes:
    models = []
    for line in installed:
        name, size, family = (*line.split(), "llama")[:3]
        models.append(
            {
                "model": name,
                "details": {"family": family, "families": [family], "parameter_size": size},
            }
        )
    return json.dumps({"models": models}).encode()


@contextmanager
def served(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server that answers every request alike, for what a real Ollama can't be made to do."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                answer(self)
            except OSError:
                self.close_connection = True  # the reader left

        do_GET = do_POST = handle_any  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
