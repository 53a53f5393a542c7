"""A long text in parts, for tokenizers whose memory grows with what they are given at once."""

from collections.abc import Iterator


def pieces(text: str, longest: int) -> Iterator[str]:
    """Parts of at most ``longest`` characters that make up the text; none for an empty one.

    Parts end before a blank or line break where there is one, since no token crosses it; so the
    tokens of the parts are those of the whole. Where there is none, the sum may be off by one a part.
    """
    start = 0
    while start < len(text):
        end = start + longest
        if end < len(text):
            blank = max(text.rfind(mark, start + 1, end + 1) for mark in " \n")
            end = blank if blank > start else end
        yield text[start:end]
        start = end
