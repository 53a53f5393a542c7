"""Models: the contracts (``contract.py``), one file an adapter, and the choice for ``auto``."""
