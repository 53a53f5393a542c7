"""Analysis: text to terms with offsets, one pipeline for index and query."""
