"""The connection to Elasticsearch: addresses, credentials, headers and errors in one place."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from elastic_transport import ApiResponse
from elasticsearch import ApiError, Elasticsearch, TransportError
from elasticsearch.exceptions import ConnectionError as NoConnection
from elasticsearch.exceptions import SSLError, UnsupportedProductError
from urllib3.exceptions import NewConnectionError

from server.errors import ConfigurationError
from server.stores.elasticsearch.errors import from_exception

# A server accepts its own major version and the one before, so this is understood by 8.x and 9.x.
_COMPATIBLE = "application/vnd.elasticsearch+{}; compatible-with=8"
_MIME = re.compile(r"application/(?:vnd\.elasticsearch\+)?(json|x-ndjson)(?:;.*)?")
_READS = ("/_search", "/_msearch", "/_mget", "/_termvectors", "/_refresh")  # by POST
_CONNECTIONS = 32  # at once to one node; more wait


class Client(Elasticsearch):
    """Elasticsearch's client that speaks to both majors and raises the product's errors only."""

    def perform_request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any | None = None,
        endpoint_id: str | None = None,
        path_parts: Mapping[str, Any] | None = None,
    ) -> ApiResponse[Any]:
        compatible = {
            name: _MIME.sub(lambda found: _COMPATIBLE.format(found[1]), value)
            for name, value in (headers or {}).items()
        }
        others = len(self.transport.node_pool)
        while True:
            others -= 1
            try:
                return super().perform_request(
                    method,
                    path,
                    params=params,
                    headers=compatible,
                    body=body,
                    endpoint_id=endpoint_id,
                    path_parts=path_parts,
                )
            except (ApiError, TransportError, UnsupportedProductError) as error:
                # A node that is down is left out for a while, and the next one asked.
                if not others or not _may_repeat(error, method, path):
                    raise from_exception(error, self.addresses) from error

    @property
    def addresses(self) -> str:
        """The nodes' addresses for people; they hold no credentials."""
        nodes = self.transport.node_pool.all()
        return ", ".join(sorted(node.base_url for node in nodes))


def _may_repeat(error: Exception, method: str, path: str) -> bool:
    """Whether the request reached no node, or does the same when it is made twice."""
    if not isinstance(error, NoConnection) or isinstance(error, SSLError):
        return False
    unsent = isinstance(error.__cause__, NewConnectionError)
    return unsent or method in {"GET", "HEAD"} or path.endswith(_READS)


def connect(
    url: str,
    *,
    api_key: str = "",
    user: str = "",
    password: str = "",
    ca_file: str = "",
    timeout: float = 30.0,
) -> Client:
    """A client for the nodes that ``url`` names (several with commas between), not yet used.

    A user and password in the URL count where none are given. Raises ConfigurationError.
    """
    hosts: list[str] = []
    for part in filter(None, map(str.strip, url.split(","))):
        host, found_user, found_password = _split(part)
        hosts.append(host)
        if not user and found_user:
            user, password = found_user, found_password
    if not hosts:
        raise ConfigurationError("TANYUAN_ELASTICSEARCH_URL names no server.")
    if api_key and user:
        raise ConfigurationError(
            "Set TANYUAN_ELASTICSEARCH_API_KEY, or TANYUAN_ELASTICSEARCH_USER and _PASSWORD, "
            "not both."
        )
    options: dict[str, Any] = {}
    if ca_file:
        if not any(host.startswith("https:") for host in hosts):
            raise ConfigurationError("TANYUAN_ELASTICSEARCH_CA is set, but the URL is not https.")
        if not Path(ca_file).is_file():
            raise ConfigurationError(f"TANYUAN_ELASTICSEARCH_CA names no file: {ca_file}")
        options["ca_certs"] = ca_file
    try:
        return Client(
            hosts,
            api_key=api_key or None,
            basic_auth=(user, password) if user else None,
            request_timeout=timeout,
            connections_per_node=_CONNECTIONS,
            # A write that is sent twice is not the same as one sent once, and a server that
            # refuses for lack of room is not asked at once again: bulk.py repeats what may be.
            max_retries=0,
            retry_on_status=(),
            **options,
        )
    except (ValueError, OSError):
        # Neither message is passed on: both may quote what was configured.
        raise ConfigurationError(
            "TANYUAN_ELASTICSEARCH_URL, _CA or the credentials can't be used; check their form."
        ) from None


def _split(url: str) -> tuple[str, str, str]:
    """(address without credentials and with a port, user, password)."""
    wrong = ConfigurationError(
        "TANYUAN_ELASTICSEARCH_URL must look like http://127.0.0.1:9200 or https://host:9200; "
        "several are separated by commas."
    )
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 9200)
    except ValueError:
        raise wrong from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise wrong
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    address = f"{parts.scheme}://{name}:{port}{parts.path.rstrip('/')}"
    return address, unquote(parts.username or ""), unquote(parts.password or "")
