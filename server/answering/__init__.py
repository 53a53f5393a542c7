"""Answering: passages within a budget, the prompt, generation, citations."""
