"""What schemathesis must be told: NDJSON is sent as the text that it is, and a URL that HTTP servers refuse
unread (414, tested apart) says nothing about a call."""

from typing import Any
from urllib.parse import urlencode

import schemathesis

from server.web.serving import LONGEST_REQUEST_LINE

LONGEST_QUERY = LONGEST_REQUEST_LINE - 200  # the rest of the line


@schemathesis.serializer("application/x-ndjson")
def ndjson(ctx: Any, value: Any) -> bytes:
    text = value if isinstance(value, str) else str(value)
    return text.encode("utf-8", "surrogatepass")


@schemathesis.hook
def filter_query(context: Any, query: Any) -> bool:
    return len(urlencode(query or {}, doseq=True, errors="surrogatepass")) < LONGEST_QUERY
