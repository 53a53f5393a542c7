"""Ingest: files to documents, documents to chunks, chunks to the store."""
