"""Fixtures of the lifecycle's tests."""

from tests.lifecycle.stores import open_store, store

__all__ = ["open_store", "store"]
