"""What scripts that change a generation share: who calls, and the progress bar."""

import getpass
import os
import threading

from tqdm import tqdm


def login() -> str:
    """The user's name, or his number where he has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())


def caller() -> str:
    """Who calls the script, for records."""
    return f"{login()} (script)"


def watched(work):
    """Run a rebuild, a roll back or a dictionary change with a bar on a terminal; its record.

    Raises what the work raises.
    """
    ended = threading.Event()
    with tqdm(total=work.record.total, unit="document", disable=None) as bar:
        watching = threading.Thread(target=_watch, args=(work, bar, ended), daemon=True)
        watching.start()
        try:
            return work.run()
        finally:
            ended.set()
            watching.join()


def _watch(work, bar, ended):
    while not ended.wait(0.2):
        record = work.record
        bar.total = record.total
        bar.set_postfix(state=record.state, embedded=record.embedded, refresh=False)
        bar.update(record.done - bar.n)
