"""Evaluation: runs, judgements and measures."""
