"""What scripts that move collections share: stopping, the receiving side, and what is told at the end."""

import signal
import sys
from dataclasses import replace

SHOWN = 20  # ids that a list shows


class Interrupt:
    """The first Ctrl-C lets what is in hand be finished; the second stops at once."""

    def __init__(self) -> None:
        self._reason = ""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def reason(self) -> str:
        return self._reason

    def _note(self, number, _frame) -> None:
        if self._reason:
            raise KeyboardInterrupt
        self._reason = f"interrupted by {signal.Signals(number).name}"
        print("\nStopping after this batch; once more stops at once.", file=sys.stderr)


def guarded(name, run, arguments) -> int:
    """Run a script's ``run``; its errors as messages and exit codes."""
    from server.errors import ModelUnavailable, StoreUnavailable, TanyuanError

    try:
        return run(arguments)
    except (StoreUnavailable, ModelUnavailable) as error:
        print(f"{name}: {error.message} Run it again to go on.", file=sys.stderr)
        return 1
    except TanyuanError as error:
        print(f"{name}: {error.message}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{name}: {error.filename or error}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. Run it again to go on.", file=sys.stderr)
        return 130


def open_receiver(settings, recipe):
    """Services that take in a collection of ``recipe``, with its model where a setting names no other.

    Where this machine doesn't have that model, with the one that it chooses by itself.
    """
    from server.app import open_services
    from server.errors import ConfigurationError
    from server.models.choice import choose_embedder

    settings = replace(settings, reranker="none", generator="none")
    model = recipe.model if recipe.embedder else "none"
    if settings.embedder == "auto" and model:
        own = replace(settings, embedder=model)
        try:
            choose_embedder(own)
        except ConfigurationError as error:
            print(f"Another embedder has to be taken: {error.message}", file=sys.stderr)
        else:
            settings = own
    return open_services(settings)


def arrival(report, name) -> str:
    """A transfer's report in words."""
    lines = [
        f"{name}: {report.written:,} documents written ({report.chunks:,} chunks), "
        f"{report.unchanged:,} were there already, {report.removed:,} removed, "
        f"{len(report.failures):,} failed, in {report.seconds:,.1f} s."
    ]
    for document_id, error in list(report.failures.items())[:SHOWN]:
        lines.append(f"Failed: {document_id}: {error.message}")
    for what in ("missing", "differing", "surplus"):
        ids = getattr(report, what)
        if ids:
            more = f" and {len(ids) - SHOWN:,} more" if len(ids) > SHOWN else ""
            lines.append(f"{what.capitalize()} in {name}: {', '.join(ids[:SHOWN])}{more}")
    if report.notice:
        lines.append(report.notice)
    if report.stopped:
        lines.append(f"Stopped: {report.stopped} Run it again to go on.")
    elif report.whole:
        lines.append(f"Everything is there as it was sent (digest {report.digest[:16]}…).")
    return "\n".join(lines)
