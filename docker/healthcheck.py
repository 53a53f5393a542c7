"""Status 0 when the server in this container answers. No proxy is asked, whatever the environment says."""

import http.client
import os
import sys

connection = http.client.HTTPConnection(
    "127.0.0.1", int(os.environ.get("TANYUAN_PORT", "8000")), timeout=4
)
try:
    connection.request("GET", "/healthz")
    status = connection.getresponse().status
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"The server does not answer: {error}")
if status != http.client.OK:
    sys.exit(f"The server answers with status {status}.")
