"""Nearest vectors from ChromaDB, under the embedded store's documents and BM25 (DECISIONS.md)."""
