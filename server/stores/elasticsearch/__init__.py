"""The store at scale: Elasticsearch 8.19 and 9.x, without plugins and without a paid licence."""
