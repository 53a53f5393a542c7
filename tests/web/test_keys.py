"""Keys: shown once, kept as hashes, revoked at once, and made by the script."""

import json
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from server.errors import ConfigurationError, InvalidInput
from server.web.keys import Keys, check_binding, is_loopback

ROOT = Path(__file__).parents[2]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys.in_folder(tmp_path / "data")


def test_a_token_finds_its_key_until_it_is_revoked(keys: Keys) -> None:
    assert not keys.exist()
    assert keys.all() == []
    assert keys.find("ty_anything") is None
    token = keys.create(name="portal-1", role="reader", groups=["hr", "finance", "hr"])
    assert token.startswith("ty_")
    assert len(token) >= 43
    found = keys.find(token)
    assert found is not None
    assert (found.name, found.role, found.groups) == ("portal-1", "reader", ("finance", "hr"))
    assert keys.find(token + "x") is None
    assert keys.find("\ud800") is None
    revoked = keys.revoke("portal-1")
    assert revoked.revoked_at
    assert keys.find(token) is None
    assert keys.exist(), "revoking the last key must not open the server"
    assert keys.revoke("portal-1") == revoked


def test_the_file_holds_no_token_and_is_its_owners_alone(keys: Keys, tmp_path: Path) -> None:
    token = keys.create(name="a", role="admin")
    (file,) = (tmp_path / "data").iterdir()
    assert token.encode() not in file.read_bytes()
    assert token[3:].encode() not in file.read_bytes()
    assert file.stat().st_mode & 0o077 == 0


def test_tokens_differ(keys: Keys) -> None:
    tokens = {keys.create(name=f"k{n}", role="reader") for n in range(20)}
    assert len(tokens) == 20


@pytest.mark.parametrize("name", ["", "a b", "-x", "x" * 65, "a\n", "a/b"])
def test_bad_names_are_refused(keys: Keys, name: str) -> None:
    with pytest.raises(InvalidInput):
        keys.create(name=name, role="reader")


def test_a_name_is_used_once(keys: Keys) -> None:
    keys.create(name="a", role="reader")
    keys.revoke("a")
    with pytest.raises(InvalidInput, match="already"):
        keys.create(name="a", role="reader")
    with pytest.raises(InvalidInput, match="no key named"):
        keys.revoke("b")


@pytest.mark.parametrize("group", ["a,b", " a", "a\n", "", "\x00"])
def test_bad_groups_are_refused(keys: Keys, group: str) -> None:
    with pytest.raises(InvalidInput):
        keys.create(name="a", role="reader", groups=[group])
    assert not keys.exist()


def test_a_damaged_file_lets_nobody_in(keys: Keys, tmp_path: Path) -> None:
    keys.create(name="a", role="admin")
    (tmp_path / "data" / "keys.sqlite").write_bytes(b"no database at all" * 100)
    for ask in (keys.exist, keys.all, lambda: keys.find("ty_x")):
        with pytest.raises(ConfigurationError, match="can't be used"):
            ask()


def test_many_threads_at_once(keys: Keys) -> None:
    tokens: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: tokens.append(keys.create(name=f"k{n}", role="reader")))
        for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {keys.find(token).name for token in tokens} == {f"k{n}" for n in range(16)}


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("x.localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.4", False),
        ("localhost.example.com", False),
        ("127.0.0.1.nip.io", False),
        ("", False),
    ],
)
def test_what_is_loopback(keys: Keys, host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    if loopback:
        check_binding(host, keys)
        return
    with pytest.raises(ConfigurationError, match="scripts/keys create"):
        check_binding(host, keys)
    keys.create(name="a", role="admin")
    check_binding(host, keys)


def script(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "keys"), *arguments, "--data", str(data)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_script_makes_lists_and_revokes(tmp_path: Path) -> None:
    made = script(tmp_path, "create", "--name", "it", "--role", "writer", "--groups", "hr, it")
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    key = Keys.in_folder(tmp_path).find(token)
    assert key is not None
    assert (key.role, key.groups) == ("writer", ("hr", "it"))
    listed = script(tmp_path, "list", "--json")
    assert [item["name"] for item in json.loads(listed.stdout)] == ["it"]
    assert token not in listed.stdout + script(tmp_path, "list").stdout
    assert script(tmp_path, "revoke", "it").returncode == 0
    assert Keys.in_folder(tmp_path).find(token) is None
    assert script(tmp_path, "revoke", "none").returncode == 2
    assert script(tmp_path, "create", "--name", "x", "--role", "king").returncode == 2


def test_the_file_is_sqlite_that_others_can_read(keys: Keys, tmp_path: Path) -> None:
    keys.create(name="a", role="admin")
    connection = sqlite3.connect(tmp_path / "data" / "keys.sqlite")
    assert connection.execute("select name, role from keys").fetchall() == [("a", "admin")]
    connection.close()
