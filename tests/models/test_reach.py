"""What TANYUAN_OFFLINE lets embedders ask."""

from pathlib import Path

import pytest

from server.errors import ConfigurationError
from server.models.choice import choose_embedder
from server.models.reach import is_local
from server.settings import Settings

LOCAL = [
    "127.0.0.1",
    "127.8.8.8",
    "::1",
    "::ffff:10.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.20",
    "fd00::5",
    "fe80::1%eth0",
    "169.254.0.9",
    "localhost",
    "LOCALHOST.",
    "ollama",
    "gpu-1",
    "gpu.local",
    "gpu.home.arpa",
    "embeddings.corp.internal",
]
ELSEWHERE = [
    "",
    ".",
    "api.openai.com",
    "aip.baidubce.com",
    "8.8.8.8",
    "8.8.8.8.",
    "172.32.0.1",
    "100.64.0.1",
    "2001:4860:4860::8888",
    "::ffff:8.8.8.8",
    "134744072",
    "0x8080808",
    "0X8080808",
    "8.8",
    "127.0.0.1.nip.io",
    "localhost.example.com",
    "evil.com.",
]


@pytest.mark.parametrize("host", LOCAL)
def test_hosts_of_this_machine_and_its_network_are_local(host: str) -> None:
    assert is_local(host)


@pytest.mark.parametrize("host", ELSEWHERE)
def test_other_hosts_are_not(host: str) -> None:
    assert not is_local(host)


OPENAI = {"embedder": "openai:text-embedding-3-small", "openai_api_key": "sk-secret-1"}
ERNIE = {
    "embedder": "ernie:embedding-v1",
    "ernie_api_key": "ak-secret-1",
    "ernie_secret_key": "sk-secret-1",
}


@pytest.mark.parametrize(
    ("chosen", "host"),
    [
        (OPENAI, "api.openai.com"),
        (ERNIE, "aip.baidubce.com"),
        ({"embedder": "ollama:bge-m3", "ollama_host": "https://ollama.example.com"}, "ollama.example.com"),
        (OPENAI | {"openai_url": "http://127.0.0.1@evil.com/v1"}, ""),
        (OPENAI | {"openai_url": "http://127.0.0.1:1/v1", "embedder_proxy": "http://u:p4ss@proxy.example.com"},
         "proxy.example.com"),
    ],
)  # fmt: skip
def test_a_server_elsewhere_is_refused_with_what_would_leave_and_what_allows_it(
    chosen: dict[str, str], host: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        choose_embedder(Settings(data=tmp_path, **chosen))
    message = refused.value.message
    if host:
        assert f"would send the text of all documents and queries to {host}" in message
        assert f"TANYUAN_OFFLINE={host} allows it" in message
    assert "secret" not in message
    assert "p4ss" not in message


@pytest.mark.parametrize(
    "offline", ["0", "false", "off", "api.openai.com", "a.example.com, API.OpenAI.com."]
)
def test_an_exception_allows_it(offline: str, tmp_path: Path) -> None:
    chosen = choose_embedder(Settings(data=tmp_path, offline=offline, **OPENAI))
    assert chosen.name == "openai:text-embedding-3-small"


@pytest.mark.parametrize(
    "offline", ["1", "true", "ON", "", "openai.com", "api.openai.com.evil.com"]
)
def test_nothing_else_does(offline: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="TANYUAN_OFFLINE"):
        choose_embedder(Settings(data=tmp_path, offline=offline, **OPENAI))


@pytest.mark.parametrize(
    "offline", ["2", "*", "https://api.openai.com", "api.openai.com/v1", "a b"]
)
def test_a_value_that_is_none_is_refused(offline: str) -> None:
    with pytest.raises(ConfigurationError, match="TANYUAN_OFFLINE must be 1, 0, or names of hosts"):
        Settings(offline=offline)


def test_the_setting_is_read_from_environment_and_file(tmp_path: Path) -> None:
    file = tmp_path / "tanyuan.toml"
    file.write_text("offline = false\n")
    assert Settings.load({"TANYUAN_CONFIG": str(file)}).exceptions is None
    assert Settings.load({}).exceptions == frozenset()
    assert Settings.load({"TANYUAN_OFFLINE": "0"}).exceptions is None
    hosts = Settings.load({"TANYUAN_OFFLINE": "api.openai.com,[2001:db8::1]"}).exceptions
    assert hosts == {"api.openai.com", "2001:db8::1"}


def test_settings_do_not_show_keys() -> None:
    shown = repr(Settings(**(ERNIE | OPENAI), embedder_proxy="http://u:p4ss@proxy"))
    assert "secret" not in shown
    assert "p4ss" not in shown
