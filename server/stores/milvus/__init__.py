"""Milvus under the embedded store's documents: what finds nearest vectors in place of FAISS."""
