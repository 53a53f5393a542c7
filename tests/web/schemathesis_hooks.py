"""What schemathesis must be told: NDJSON is sent as the text that it is."""

from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def ndjson(ctx: Any, value: Any) -> bytes:
    text = value if isinstance(value, str) else str(value)
    return text.encode("utf-8", "surrogatepass")
