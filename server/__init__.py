"""Tanyuan (探源): private search and question answering over a company's own documents."""

__version__ = "0.1.0"
