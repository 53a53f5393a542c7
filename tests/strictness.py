"""The pytest plugin of ``scripts/test``: quick tests first, and no test is left out unseen.

Where several processes share the tests (pytest-xdist with ``--dist loadgroup``), the tests of a module stay
together, and so do those of a server, which is then started once.
"""

import pytest

from tests.services.elasticsearch import VERSIONS

_SERVERS = {
    "elasticsearch": "elasticsearch",
    "ollama_url": "ollama",
    "ollama_server": "ollama",
}  # by fixture
_NOT_RUN = ("skipped", "xfailed", "xpassed")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that wait for a server or a browser come last, so that simple failures show at once."""
    items.sort(key=_uses_a_service)


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    names = {*getattr(item, "fixturenames", ())}
    chosen = getattr(item, "callspec", None)
    values = chosen.params.values() if chosen else ()
    if any(isinstance(value, str) and value in VERSIONS for value in values):
        names.add("elasticsearch")  # which the fixture asks for itself
    servers = [server for fixture, server in _SERVERS.items() if fixture in names]
    group = servers[0] if servers else item.nodeid.partition("::")[0]
    item.add_marker(pytest.mark.xdist_group(group))


def _uses_a_service(item: pytest.Item) -> bool:
    fixtures = getattr(item, "_fixtureinfo", None)
    definitions = fixtures.name2fixturedefs.values() if fixtures else ()
    return any(
        definition.func.__module__.startswith("tests.services")
        for choices in definitions
        for definition in choices
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for outcome in _NOT_RUN:
        if count := len(terminalreporter.stats.get(outcome, ())):
            terminalreporter.write_line(f"{count} {outcome}: that counts as failed here.", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # one of several processes, which report to the first
        return
    if exitstatus == pytest.ExitCode.OK and any(map(reporter.stats.get, _NOT_RUN)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
