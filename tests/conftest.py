"""Fixtures for every test; the servers' own stand in ``tests/services``."""

from hypothesis import settings

# How long an example takes says how busy the machine is.
settings.register_profile("tanyuan", deadline=None)
settings.load_profile("tanyuan")

pytest_plugins = [
    "tests.services.ollama_fixtures",
    "tests.services.elasticsearch_fixtures",
    "tests.services.chromium_fixtures",
    "tests.store_fixtures",
    "tests.product_fixtures",
]
