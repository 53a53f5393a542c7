"""Stores: the contract (``contract.py``), filters, and one folder or file a backend."""
