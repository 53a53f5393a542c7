"""Mappings of the Elasticsearch indices, as JSON."""
