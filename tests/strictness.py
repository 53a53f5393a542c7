"""The pytest plugin of ``scripts/test``: quick tests first, and no test is left out unseen."""

import pytest

_NOT_RUN = ("skipped", "xfailed", "xpassed")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that wait for a server or a browser come last, so that simple failures show at once."""
    items.sort(key=_uses_a_service)


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
    if exitstatus == pytest.ExitCode.OK and any(map(reporter.stats.get, _NOT_RUN)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
