"""Retrieval: retrievers, fusion, reranking, highlights."""
