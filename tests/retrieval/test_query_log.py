"""The log of queries: bounded, shared, and never in the way of a search."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.retrieval.query_log import FILE_NAME, MAX_QUERIES, QueryLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[QueryLog]:
    opened = QueryLog.in_folder(tmp_path)
    yield opened
    opened.close()


def queries(log: QueryLog, collection: str = "c", limit: int = 100) -> dict[str, tuple[int, int]]:
    return {each.query: (each.count, each.total) for each in log.recent(collection, limit)}


def test_a_query_is_counted_however_it_is_written(log: QueryLog) -> None:
    log.note("c", "差旅 報銷", 3)
    log.note("c", " 差旅  报销 ", 5)
    log.note("other", "vpn", 1)
    log.flush()
    log.note("c", "差旅 报销", 7)
    assert queries(log) == {"差旅 报销": (3, 7)}
    assert queries(log, "other") == {"vpn": (1, 1)}
    assert queries(log, "none") == {}


def test_the_latest_come_first(log: QueryLog) -> None:
    for query in ("a", "b", "c"):
        log.note("c", query, 0)
        time.sleep(0.002)
    assert [each.query for each in log.recent("c", 2)] == ["c", "b"]


def test_blank_and_long_queries_are_passed_over(log: QueryLog) -> None:
    for query in ("", " \u3000", "长" * 201):
        log.note("c", query, 0)
    log.note("c", "长" * 200, 0)
    assert list(queries(log)) == ["长" * 200]
    assert log.dropped == 0


def test_those_not_seen_for_longest_go(log: QueryLog) -> None:
    log.note("c", "first", 0)
    log.note("c", "kept", 0)
    log.flush()
    for number in range(MAX_QUERIES - 1):
        log.note("c", f"q{number}", 0)
        if number == 100:
            time.sleep(0.002)
            log.note("c", "kept", 0)
    found = queries(log, limit=MAX_QUERIES + 10)
    assert len(found) == MAX_QUERIES
    assert "first" not in found
    assert found["kept"] == (2, 0)


def test_a_thread_writes_what_waits(tmp_path: Path) -> None:
    log = QueryLog(tmp_path / FILE_NAME, flush_seconds=0.01)
    log.note("c", "差旅", 1)
    other = QueryLog(tmp_path / FILE_NAME)
    deadline = time.monotonic() + 10
    while not queries(other):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    log.close()
    other.close()


def test_several_processes_and_threads_count_together(log: QueryLog, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from server.retrieval.query_log import QueryLog\n"
        "log = QueryLog.in_folder(Path(sys.argv[1]))\n"
        "for _ in range(50): log.note('c', 'same', 1); log.flush()\n"
        "log.close(); print(log.dropped)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]

    def note() -> None:
        for _ in range(50):
            log.note("c", "same", 1)
            log.flush()

    threads = [threading.Thread(target=note) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        assert process.communicate(timeout=60)[0].strip() == b"0"
    assert queries(log) == {"same": (200, 1)}


def test_a_collection_is_forgotten(log: QueryLog) -> None:
    log.note("c", "written", 0)
    log.flush()
    log.note("c", "waiting", 0)
    log.note("other", "kept", 0)
    assert log.forget("c")
    assert queries(log) == {}
    assert queries(log, "other") == {"kept": (1, 0)}


@pytest.mark.parametrize("broken", ["no database", "a folder"])
def test_a_file_that_cannot_be_used_only_drops_queries(tmp_path: Path, broken: str) -> None:
    path = tmp_path / FILE_NAME
    if broken == "a folder":
        path.mkdir()
    else:
        path.write_bytes(b"this is no database" * 100)
    log = QueryLog(path)
    log.note("c", "a", 0)
    log.note("c", "a", 0)
    log.flush()
    assert log.dropped == 2
    assert log.recent("c", 10) == []
    assert not log.forget("c")
    log.close()
    log.close()


def test_the_file_is_for_its_owner_alone(log: QueryLog, tmp_path: Path) -> None:
    log.note("c", "a", 0)
    log.flush()
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o077 == 0
