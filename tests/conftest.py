"""Fixtures for every test; the servers' own stand in ``tests/services``."""

pytest_plugins = [
    "tests.services.ollama_fixtures",
    "tests.services.elasticsearch_fixtures",
    "tests.services.chromium_fixtures",
    "tests.product_fixtures",
]
