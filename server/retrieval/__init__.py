"""Retrieval: two retrievers, fusion, reranking, highlights."""
