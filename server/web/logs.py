"""Logs: one JSON object a line on stderr, each with the id of the request that it belongs to.

No line holds a secret or a document's text; queries and questions are logged at debug only.
"""

import json
import logging
import re
import sys
import uuid
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

request_id: ContextVar[str] = ContextVar("request_id", default="-")

_SANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")


def accept_request_id(offered: str | None) -> str:
    """The id that a client offers if it is a plain word, else a new one."""
    return offered if offered and _SANE.fullmatch(offered) else uuid.uuid4().hex


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; what a caller gives as ``extra={"fields": {…}}`` is merged in."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "request_id": request_id.get(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(level: str) -> None:
    """Send this product's log lines to stderr; others' libraries from warnings on.

    For the process that serves; called once, before the first request.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("server").setLevel(level.upper())
