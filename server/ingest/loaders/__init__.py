"""Loaders: files to documents, one module a kind. ``files.py`` chooses by the name's ending."""
