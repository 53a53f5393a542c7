"""What the Elasticsearch store asks, and how it reads answers, without a server."""

import json

import numpy as np
import pytest

from server.documents import TEXT_FIELDS
from server.errors import (
    CollectionNotFound,
    ConfigurationError,
    InvalidInput,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
    TanyuanError,
)
from server.stores.contract import Leg, LegsRequest, TextClause
from server.stores.elasticsearch import queries
from server.stores.elasticsearch.bulk import Operation
from server.stores.elasticsearch.client import connect
from server.stores.elasticsearch.errors import Busy, TooManyClauses, from_cause
from server.stores.elasticsearch.indices import chunks_mapping, mapping
from server.stores.elasticsearch.store import ElasticsearchStore
from server.stores.filters import Exists, Not, Range, Terms
from tests.stores.builders import LEXICAL_RECIPE, RECIPE, unit


class TestMappings:
    def test_nothing_unknown_is_taken(self) -> None:
        assert mapping("documents")["dynamic"] == "strict"
        assert mapping("chunks")["dynamic"] == "strict"

    def test_every_text_field_is_split_at_blanks_only(self) -> None:
        fields = mapping("chunks")["properties"]
        for name in TEXT_FIELDS:
            assert fields[name] == {"type": "text", "analyzer": "whitespace"}
        assert set(TEXT_FIELDS) <= set(mapping("chunks")["_source"]["excludes"])

    def test_the_recipe_is_stamped_and_sets_the_dimensions(self) -> None:
        made = chunks_mapping(RECIPE)
        assert made["_meta"] == {"recipes": {"1": RECIPE.as_json()}}
        assert made["properties"]["vector"]["dims"] == RECIPE.dimensions
        assert made["properties"]["vector"]["index_options"]["type"] == "int8_hnsw"
        assert "vector" not in chunks_mapping(LEXICAL_RECIPE)["properties"]


class TestQueries:
    def test_equal_terms_are_one_with_their_weights_summed(self) -> None:
        clauses = (
            TextClause(field="words", terms=("a", "b", "a"), weight=2.0),
            TextClause(field="words", terms=("a",), weight=0.5),
            TextClause(field="bigrams", terms=("a",)),
        )
        assert queries.term_weights(clauses) == {
            ("words", "a"): 4.5,
            ("words", "b"): 2.0,
            ("bigrams", "a"): 1.0,
        }

    def test_the_heaviest_terms_are_kept(self) -> None:
        weights = {("words", "a"): 1.0, ("words", "b"): 3.0, ("words", "c"): 1.0}
        kept = queries.text_query(weights, at_most=2)["bool"]["should"]
        assert [next(iter(term["term"]["words"].values())) for term in kept] == ["b", "a"]

    def test_the_same_filter_is_in_both_legs(self) -> None:
        condition = Not(Terms("acl", ("hr",)))
        request = LegsRequest(
            text=(TextClause(field="words", terms=("a",)),), vector=unit(1), filter=condition, k=7
        )
        searches = queries.leg_searches(request)
        expected = {"bool": {"must_not": [{"terms": {"labels": ["acl\x1fshr"]}}]}}
        assert searches["bm25"]["query"]["bool"]["filter"] == [expected]
        assert searches["vector"]["knn"]["filter"] == expected
        assert searches["bm25"]["size"] == searches["vector"]["size"] == 7

    @pytest.mark.parametrize(("k", "candidates"), [(1, 100), (100, 200), (10_000, 10_000)])
    def test_the_pool_of_candidates(self, k: int, candidates: int) -> None:
        knn = queries.vector_search(unit(1), None, k)["knn"]
        assert (knn["k"], knn["num_candidates"]) == (k, candidates)

    def test_vectors_are_sent_at_length_one(self) -> None:
        vector = np.random.default_rng(1).standard_normal(512).astype(np.float32)
        vector /= np.linalg.norm(vector)
        sent = np.array(queries.vector_json(vector))
        assert np.linalg.norm(sent) == pytest.approx(1.0, abs=1e-7)
        assert np.array_equal(sent.astype(np.float32), vector) or np.allclose(sent, vector, 1e-6)

    def test_an_open_range_stays_within_its_type(self) -> None:
        bounds = queries.filter_query(Range(key="n", gte="b"))["range"]["labels"]
        assert bounds == {"gte": "n\x1fsb", "lt": "n\x1ft"}
        bounds = queries.filter_query(Range(key="n", lt="b"))["range"]["labels"]
        assert bounds == {"gte": "n\x1fs", "lt": "n\x1fsb"}
        assert queries.filter_query(Range(key="n")) == queries.filter_query(Exists("n"))
        with pytest.raises(InvalidInput):
            queries.filter_query(Range(key="n", gte="b", lt=3))

    def test_scores_are_read_as_lucenes_and_cosines(self) -> None:
        def answer(*scores: float) -> queries.Json:
            hits = [{"_id": f"d:{i}", "_score": score} for i, score in enumerate(scores)]
            return {"took": 3, "hits": {"total": {"value": 9}, "hits": hits}}

        bm25 = queries.read_leg("bm25", answer(4.4, 2.2))
        assert bm25 == Leg(hits=(("d:0", 2.0), ("d:1", 1.0)), total=9, took_ms=3.0)
        vector = queries.read_leg("vector", answer(0.5, 1.0, 0.5))
        assert isinstance(vector, Leg)
        assert vector.hits == (("d:1", 1.0), ("d:0", 0.0), ("d:2", 0.0))
        assert vector.total == 3

    def test_operations_are_lines_of_json(self) -> None:
        lines = Operation("index", {"_id": "a\n汉"}, {"text": "b\nc"}).lines().split(b"\n")
        assert [json.loads(line) for line in lines] == [
            {"index": {"_id": "a\n汉"}},
            {"text": "b\nc"},
        ]
        assert b"\n" not in Operation("delete", {"_id": "a"}).lines()


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "kind", "reason", "expected"),
        [
            (404, "index_not_found_exception", "no such index [p.c-1.chunks]", CollectionNotFound),
            (429, "es_rejected_execution_exception", "queue is full", Busy),
            (429, "circuit_breaking_exception", "[parent] Data too large", Busy),
            (
                429,
                "cluster_block_exception",
                "index [x] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage "
                "watermark, index has read-only-allow-delete block];",
                StoreFull,
            ),
            (500, "i_o_exception", "No space left on device", StoreFull),
            (403, "cluster_block_exception", "FORBIDDEN/8/index write (api)", StoreUnavailable),
            (503, "unavailable_shards_exception", "primary shard is not active", StoreUnavailable),
            (503, "search_phase_execution_exception", "all shards failed", StoreUnavailable),
            (503, "process_cluster_event_timeout_exception", "30s", StoreTimeout),
            (504, "", "gateway", StoreTimeout),
            (400, "document_parsing_exception", "failed to parse", InvalidInput),
            (413, "", "too large", InvalidInput),
            (406, "media_type_header_exception", "wrong version", ConfigurationError),
            (400, "x", "maxClauseCount is set to 1024", TooManyClauses),
        ],
    )
    def test_a_cause_has_one_error(
        self, status: int, kind: str, reason: str, expected: type[TanyuanError]
    ) -> None:
        found = from_cause(status, {"type": kind, "reason": reason})
        assert type(found) is expected
        assert found.message

    def test_the_cause_below_counts(self) -> None:
        cause = {
            "type": "search_phase_execution_exception",
            "reason": "all shards failed",
            "failed_shards": [
                {"reason": {"type": "x", "reason": "maxClauseCount is set to 99"}},
            ],
        }
        found = from_cause(400, cause)
        assert isinstance(found, TooManyClauses)
        assert found.limit == 99

    def test_a_missing_collection_is_named(self) -> None:
        cause = {"type": "index_not_found_exception", "reason": "no such index [p.c_1.documents]"}
        assert "'c_1'" in from_cause(404, cause).message


class TestConnection:
    @pytest.mark.parametrize(
        ("url", "address"),
        [
            ("http://localhost", "http://localhost:9200"),
            ("https://es.example", "https://es.example:443"),
            ("https://es.example:9243/path/", "https://es.example:9243/path"),
            ("http://[::1]:9200", "http://[::1]:9200"),
            ("http://a:1, http://b:2", "http://a:1, http://b:2"),
            ("https://user:se%40cret@es.example:9200", "https://es.example:9200"),
        ],
    )
    def test_addresses(self, url: str, address: str) -> None:
        client = connect(url)
        assert client.addresses == address
        client.close()

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "es:9200",
            "ftp://es",
            "http://",
            "http://es:port",
            "http://es:99999",
            "http://es?q=1",
        ],
    )
    def test_addresses_that_cannot_be_used(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="TANYUAN_ELASTICSEARCH_URL"):
            connect(url)

    def test_secrets_are_in_no_text(self, tmp_path: object) -> None:
        store = ElasticsearchStore("https://elastic:geheim@es.example")
        assert "geheim" not in repr(store)
        assert "geheim" not in repr(vars(store))
        store.close()
        for options in (
            {"api_key": "geheim", "user": "elastic", "password": "geheim"},
            {"password": "geheim", "user": "elastic", "ca_file": f"{tmp_path}/none.pem"},
        ):
            with pytest.raises(ConfigurationError) as caught:
                connect("https://es.example", **options)  # type: ignore[arg-type]
            assert "geheim" not in str(caught.value)

    @pytest.mark.parametrize("prefix", ["", "Upper", "a.b", "*", "a,b", "-x", "x" * 65])
    def test_prefixes_that_cannot_be_used(self, prefix: str) -> None:
        with pytest.raises(ConfigurationError, match="TANYUAN_INDEX_PREFIX"):
            ElasticsearchStore("http://localhost:9200", prefix=prefix)
