"""Document frequencies, as the term vectors of a document that is in no index tell them."""

from collections.abc import Mapping, Sequence
from typing import Any

from server.stores.contract import Frequencies
from server.stores.elasticsearch.client import Client
from server.stores.filters import ALWAYS

# Without it the shard is chosen at random, so that equal queries would weigh their terms differently.
_ONE_SHARD = "0"


def read(client: Client, index: str, terms: Mapping[str, Sequence[str]]) -> Frequencies:
    """In one request. Raises CollectionNotFound where the index is not there."""
    texts = {field: " ".join(found) for field, found in terms.items()}
    answer = client.termvectors(
        index=index,
        doc={**texts, "labels": ALWAYS},
        term_statistics=True,
        field_statistics=False,
        positions=False,
        offsets=False,
        payloads=False,
        routing=_ONE_SHARD,
    )
    vectors = answer["term_vectors"]
    return Frequencies(
        chunks=_count(vectors, "labels", ALWAYS),
        of={
            field: {term: _count(vectors, field, term) for term in found}
            for field, found in terms.items()
        },
    )


def _count(vectors: Mapping[str, Any], field: str, term: str) -> int:
    """A term that the shard doesn't have comes without its frequency."""
    return int(vectors.get(field, {}).get("terms", {}).get(term, {}).get("doc_freq", 0))
